"""The train stage: trains the moments network and then the generator on prepared images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wsdcast.images.contexts import FixedContexts, fixed_contexts, training_pairs
from wsdcast.images.data.store import Images, open_images
from wsdcast.images.drawing import require_own_samples
from wsdcast.images.memory import require_training
from wsdcast.images.networks import ImageMoments, fixed_moments_of, generator_model, image_path, moments_model
from wsdcast.images.recipe import ImageRecipe
from wsdcast.nets.unet import UNet
from wsdcast.nets.weights import Model, load_network, size_in_words, to_device
from wsdcast.runs import devices, processes
from wsdcast.runs.artefact import is_current, require, resolve
from wsdcast.runs.devices import compiled
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import GENERATOR, IMAGES, MOMENTS, ImagePriorName
from wsdcast.runs.overrides import Overridden
from wsdcast.runs.summary import Summary
from wsdcast.runs.unfinished import require_same_recipe
from wsdcast.training.batches import FlowBatch, Pairs, flow_batches_of
from wsdcast.training.fitting import fit_and_write
from wsdcast.training.loop import Batch, Plan
from wsdcast.training.state import Training
from wsdcast.training.validation import flow_scores, moments_scores
from wsdcast.warmstart.flow import LOSS_WEIGHTS, training_loss
from wsdcast.warmstart.moments import negative_log_likelihood
from wsdcast.warmstart.prior import PRIOR_MAKERS, frozen_prior

EVENLY = torch.ones(1, 1)
"""Weights of the validation scores: all pixels count the same."""


@devices.own_torch_settings()
def train(
    recipe: str | Path | ImageRecipe | Overridden | None = None,
    run: str | Path | None = None,
    *,
    prior: ImagePriorName | None = None,
    overwrite: bool = False,
) -> Summary:
    """Train the moments network, then the generator, into ``RUN/moments`` and ``RUN/generator``.

    Every training step draws new contexts, so their moments are predicted in each step and not stored. A training that was stopped
    continues from its last checkpoint; on a CPU the result is the same bit for bit. Under torchrun all processes train together.

    Args:
        recipe: path or name of a recipe; default: the one of the prepared images.
        run: run directory; default ``runs/<recipe name>``.
        prior: the prior that flow matching starts from, and whose features the generator reads; default: the recipe's.
        overwrite: replace networks made from another recipe.

    Raises:
        UserError: if no images are prepared, the images do not fit the task, an unfinished training belongs to another recipe, or training
            diverges.
        StoppedError: if SIGTERM or SIGINT arrives.
    """
    processes.join()
    resolved, directory = resolve(recipe, run, ImageRecipe, IMAGES, generator__prior=prior)
    images = open_images(require(resolved, directory, IMAGES))
    devices.keep_freed_memory()
    unseen = fixed_contexts(images, "validation", resolved.task)
    summary = Summary("inpaint train", facts={"training images": images.count("train")})
    try:
        require_own_samples(resolved)
    except UserError as error:  # this generator needs options of the command that samples
        summary.facts["own samples"] = f"impossible: {error}"
    networks = [MOMENTS, GENERATOR] if resolved.generator.needs_moments_network else [GENERATOR]
    processes.decided(lambda: require_same_recipe(resolved, directory, networks, overwrite))
    current = processes.decided(lambda: is_current(resolved, directory, GENERATOR, overwrite))
    if resolved.generator.needs_moments_network:
        _moments(resolved, directory, images, unseen, overwrite, summary)
        network = load_network(moments_model(resolved.moments, images.shape[0]), directory / MOMENTS)
        if resolved.generator.compile:
            compiled(network)  # it predicts the moments of every batch of the generator
        prior_of = frozen_prior(network, PRIOR_MAKERS[resolved.generator.prior])
    else:
        prior_of = frozen_prior(fixed_moments_of(resolved, images))
    if current:
        summary.facts["current"] = str(directory / GENERATOR)
        return summary

    path, weight = image_path(resolved.generator, images), LOSS_WEIGHTS[resolved.generator.loss_weight]

    def loss_of(network: UNet, batch: FlowBatch) -> Tensor:
        assert batch.prior is not None
        return training_loss(network, batch.prior, batch.context, batch.target, batch.draws, path, weight)

    random, settings = _seed(resolved, 1), resolved.generator
    generator, pairs = generator_model(settings, images.shape[0]), training_pairs(images, resolved.task, random)
    batches = flow_batches_of(pairs, images.shape, random, lambda _, context: prior_of(context), settings.times)

    def validate(network: UNet) -> dict[str, float]:
        return flow_scores(network, prior_of, unseen, path)

    require_training(GENERATOR, generator, settings, images, *generator.input_shapes(*images.shape[1:]))
    plan = Plan(batches, loss_of, images.count("train"), settings, resolved.seed, validate)
    _fit(resolved, directory / GENERATOR, generator, random, plan, overwrite, summary)
    return summary


def _moments(recipe: ImageRecipe, directory: Path, images: Images, unseen: FixedContexts, overwrite: bool, summary: Summary) -> None:
    """Train the moments network h_phi, unless it is current."""
    if processes.decided(lambda: is_current(recipe, directory, MOMENTS, overwrite)):
        summary.facts[f"current: {MOMENTS}"] = str(directory / MOMENTS)
        return

    def loss_of(network: ImageMoments, batch: Pairs) -> Tensor:
        return negative_log_likelihood(network, *batch)

    def validate(network: ImageMoments) -> dict[str, float]:
        return moments_scores(network, unseen, EVENLY)

    random, settings = _seed(recipe, 0), recipe.moments
    network, pairs = moments_model(settings, images.shape[0]), training_pairs(images, recipe.task, random)
    require_training(MOMENTS, network, settings, images, (1, images.shape[0] + 1, *images.shape[1:]))
    plan = Plan(pairs, loss_of, images.count("train"), settings, recipe.seed, validate)
    _fit(recipe, directory / MOMENTS, network, random, plan, overwrite, summary)


def _fit(
    recipe: ImageRecipe, path: Path, network: Model, random: torch.Generator, plan: Plan[Model, Batch], overwrite: bool, summary: Summary
) -> None:
    """Train a network and write it to ``path``, whose name is that of the network. Add to the summary."""
    training = Training.of(to_device(network, plan.settings.channels_last), random)
    done = fit_and_write(recipe, path, training, plan, recipe.training, overwrite)
    summary.facts |= done.facts(path.name)
    summary.written[str(path)] = size_in_words(done.network)


def _seed(recipe: ImageRecipe, network: int) -> torch.Generator:
    """Seed torch's global generator, and return the generator for the random part of batches.

    The global generator draws the initial weights and dropout. Both generators depend only on the recipe's seed and the number of the
    network, not on what was trained before. The order of the samples comes from a third generator.
    """
    torch.manual_seed(2 * recipe.seed + network)
    seed = int(np.random.SeedSequence([recipe.seed, network, 1]).generate_state(1)[0])
    return torch.Generator(devices.device()).manual_seed(seed)
