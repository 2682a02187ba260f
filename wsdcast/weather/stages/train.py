"""Stage 2: train the moments network, then the generator, on the prepared store."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wsdcast.data.store.analysis import Analysis, open_analysis
from wsdcast.nets.peak import training_memory
from wsdcast.nets.weights import WEIGHTS, Model, load_network, save_networks, size_in_words, to_device
from wsdcast.runs import devices, processes
from wsdcast.runs.artefact import Summary, is_current, make_stamp, require, resolve
from wsdcast.runs.names import ANALYSIS, GENERATOR, MOMENTS, PREDICTIONS, PriorName
from wsdcast.runs.recipes import Network
from wsdcast.runs.resources import require_memory, require_space
from wsdcast.sampling.priors import prior_maker
from wsdcast.training.batches import FlowBatch, Pairs, flow_batches_of, pairs_of
from wsdcast.training.fitting import Fitted, fitted
from wsdcast.training.loop import Batch, BatchOf
from wsdcast.training.predictions import Predictors, checked, errors, folds, in_words, read_predictions, write_predictions
from wsdcast.training.state import Training
from wsdcast.training.validation import flow_scores, moments_scores
from wsdcast.warmstart.flow import LOSS_WEIGHTS, joint_loss, training_loss
from wsdcast.warmstart.moments import MomentsModel, negative_log_likelihood
from wsdcast.warmstart.prior import InformedPrior, Moments, PriorOf, warm_start
from wsdcast.weather.forcings import area_weights, surroundings
from wsdcast.weather.harmonic_transform import weather_path
from wsdcast.weather.networks import context_channels, generator_model, moments_model
from wsdcast.weather.priors import fixed_or_given
from wsdcast.weather.recipe import Recipe
from wsdcast.weather.samples import Samples, samples_of
from wsdcast.weather.weights import generator_weights, moments_weights


def train(
    recipe: str | Path | Recipe | None = None,
    run: str | Path | None = None,
    *,
    prior: PriorName | None = None,
    moments: Moments | None = None,
    overwrite: bool = False,
) -> Summary:
    """Train the moments model and write ``RUN/moments``, then train the generator and write ``RUN/generator``.

    If the recipe trains both networks at the same time, both are in ``RUN/generator``. A training that was stopped continues from its last
    checkpoint; on a CPU the result has the same bits. If torchrun started several processes, they train together.

    Args:
        recipe: path or name of a recipe; default: the one of the prepared store.
        run: run directory; default ``runs/<recipe name>``.
        prior: where flow matching starts, and what the generator reads of the moments; default from the recipe.
        moments: your own model for the prior ``given``: ``moments(context) -> (mean, std)``, as in
            :func:`wsdcast.weather.priors.fixed_or_given`. Pass the same model to :func:`wsdcast.rollout`.
        overwrite: replace networks made from another recipe.

    Raises:
        UserError: if nothing is prepared, the store or an unfinished training belongs to another recipe, or training diverges.
        StoppedError: if the process received SIGTERM or SIGINT.
    """
    processes.join()
    resolved, directory = resolve(recipe, run, Recipe, ANALYSIS, generator__prior=prior)
    record = open_analysis(require(resolved, directory, ANALYSIS, "prepare"), copies=processes.on_this_machine())
    devices.keep_freed_memory()
    forcings = surroundings(record, resolved.forcings, devices.device())
    samples, validation_samples = samples_of(record, forcings, "train", "validation")
    summary = Summary("train", facts={"training triples": len(samples)})
    processes.decided(lambda: _require_memory(resolved, record, samples))

    prior_of: Callable[[Tensor, Tensor], InformedPrior] | None = None
    from_context: PriorOf | None = None
    make_prior = prior_maker(resolved.generator.prior)
    if resolved.generator.reads_frozen_moments:
        _moments(resolved, directory, record, samples, validation_samples, overwrite, summary)
        trained_moments = load_network(_untrained_moments(resolved, record, samples), directory / MOMENTS)
        from_context = warm_start(trained_moments, make_prior)
        # The summary shows both splits: a moments model that overfits is overconfident on validation samples.
        for split, label in ((samples, "training"), (validation_samples, "validation")):
            if len(split):
                summary.facts[f"moments, {label} split"] = in_words(*checked(trained_moments, split, area_weights(record)))
        _predictions(resolved, directory, record, samples, overwrite, summary)
        predicted_moments = read_predictions(directory / PREDICTIONS, devices.device())
        prior_of = lambda indices, _: make_prior(*predicted_moments(indices))  # noqa: E731
    elif not resolved.generator.needs_moments_network:
        fixed = from_context = warm_start(fixed_or_given(resolved, record, moments), make_prior)
        prior_of = lambda _, context: fixed(context)  # noqa: E731
    if processes.decided(lambda: is_current(resolved, directory, GENERATOR, overwrite)):
        summary.facts["current"] = str(directory / GENERATOR)
        return summary

    _seed(resolved, 1)
    sizes = record.grid.includes_poles, forcings.channels, len(record.variables)
    model: nn.Module = generator_model(resolved.generator, *sizes)
    # The generator that draws warmth, flow time and noise must not have the seed of the generator that orders the samples.
    random = torch.Generator(devices.device()).manual_seed(int(np.random.SeedSequence([resolved.seed, 1]).generate_state(1)[0]))
    if prior_of is None:
        model = nn.ModuleDict({"moments": moments_model(resolved.moments, *sizes), "generator": model})

    path, weight = weather_path(resolved.generator, record.grid), LOSS_WEIGHTS[resolved.generator.loss_weight]
    of_channels = generator_weights(resolved, record)

    def loss_of(network: nn.Module, batch: FlowBatch) -> Tensor:
        if batch.prior is not None:
            return training_loss(network, batch.prior, batch.context, batch.target, batch.draws, path, weight, of_channels)
        both_networks: nn.ModuleDict = network  # type: ignore[assignment]
        options = resolved.generator.moments == "end-to-end", resolved.generator.moments_weight
        generator, moments_network = both_networks["generator"], both_networks["moments"]
        return joint_loss(
            generator, moments_network, make_prior, batch.context, batch.target, batch.draws, *options, path, weight, of_channels
        )

    def validate(network: nn.Module) -> dict[str, float]:
        if from_context is not None:
            return flow_scores(network, from_context, validation_samples, path)
        both_networks: nn.ModuleDict = network  # type: ignore[assignment]
        flow = flow_scores(both_networks["generator"], warm_start(both_networks["moments"], make_prior), validation_samples, path)
        return flow | moments_scores(both_networks["moments"], validation_samples, area_weights(record))

    stamp = make_stamp(resolved, directory, GENERATOR)
    with processes.completed_by_first(directory / GENERATOR, stamp, overwrite, "train") as unfinished:
        training = Training.of(to_device(model, resolved.generator.channels_last), random)
        batches = flow_batches_of(pairs_of(samples), samples.shape, random, prior_of, resolved.generator.times)
        validate_or_none = validate if len(validation_samples) else None
        result = _fitted(
            resolved, resolved.generator, training, batches, loss_of, len(samples), unfinished, GENERATOR, validate_or_none, summary
        )
        if processes.is_first():
            save_networks({WEIGHTS: result.network}, unfinished, stamp | {"seconds": result.history.seconds})
    summary.written[str(directory / GENERATOR)] = size_in_words(result.network)
    return summary


def _require_memory(recipe: Recipe, record: Analysis, samples: Samples) -> None:
    """Check before training that networks and batches fit in memory. A GPU is not checked: torch fails in the first step there.

    Raises:
        UserError: if they do not fit.
    """
    if devices.device().type != "cpu":
        return
    forcings, channels, grid = samples.forcings.channels, len(record.variables), record.grid.shape
    generator = generator_model(recipe.generator, record.grid.includes_poles, forcings, channels)
    inputs = (1, generator.first.in_channels, *grid), (1,), (1,)
    needed = training_memory(generator, recipe.generator.batch, recipe.generator.precision == "bf16", *inputs)
    if recipe.generator.needs_moments_network:
        moments, settings = moments_model(recipe.moments, record.grid.includes_poles, forcings, channels), recipe.moments
        optimisation = recipe.generator if recipe.generator.moments != "frozen" else settings
        context = (1, context_channels(forcings, channels), *grid)
        needed_by_moments = training_memory(moments, optimisation.batch, optimisation.precision == "bf16", context)
        if recipe.generator.moments != "frozen":
            needed += needed_by_moments
        else:
            require_memory(needed_by_moments, f"training the moments network in batches of {settings.batch} at {record.grid.name}")
    require_memory(needed, f"training the generator in batches of {recipe.generator.batch} at {record.grid.name}")


def _moments(
    recipe: Recipe, directory: Path, record: Analysis, samples: Samples, validation_samples: Samples, overwrite: bool, summary: Summary
) -> None:
    """Train h_phi, and for each fold a network that does not see the fold's samples, unless current networks are stored."""
    if processes.decided(lambda: is_current(recipe, directory, MOMENTS, overwrite)):
        summary.facts[f"current: {MOMENTS}"] = str(directory / MOMENTS)
        return

    of_channels = moments_weights(recipe, record)

    def loss_of(network: MomentsModel, batch: Pairs) -> Tensor:
        return negative_log_likelihood(network, *batch, of_channels)

    folds_by_name = _folds(recipe, samples)
    samples_by_name = {WEIGHTS: samples, **{name: samples.subset(outside) for name, (outside, _) in folds_by_name.items()}}
    validate = partial(moments_scores, samples=validation_samples, weights=area_weights(record)) if len(validation_samples) else None
    stamp, seconds = make_stamp(recipe, directory, MOMENTS), 0.0
    with processes.completed_by_first(directory / MOMENTS, stamp, overwrite, "train") as unfinished:
        networks: dict[str, MomentsModel] = {}
        for name, network_samples in samples_by_name.items():
            _seed(recipe, 0)
            label = MOMENTS if name == WEIGHTS else f"{MOMENTS}, {name}"
            network = _untrained_moments(recipe, record, samples)
            training = Training.of(to_device(network, recipe.moments.channels_last), torch.Generator())
            result = _fitted(
                recipe,
                recipe.moments,
                training,
                pairs_of(network_samples),
                loss_of,
                len(network_samples),
                unfinished,
                label,
                validate,
                summary,
            )
            networks[name] = result.network
            seconds += result.history.seconds
        if folds_by_name:
            # On samples that a network has not seen, its errors are larger than its std says. The folds measure by which factor.
            predictors: Predictors = [(networks[name], inside) for name, (_, inside) in folds_by_name.items()]
            _, ratio = errors(predictors, samples, area_weights(record))
            # A std that the recipe gives as a number stays as it is.
            is_fixed = isinstance(recipe.moments.std, float)
            outcome = "std is fixed by the recipe" if is_fixed else "std scaled by it"
            summary.facts["moments, out of fold"] = f"(x - mean) / std has std {ratio.square().mean().sqrt():.2f}; {outcome}"
            for network in () if is_fixed else networks.values():
                network.calibration.copy_(ratio)
        if processes.is_first():
            save_networks(dict(networks), unfinished, stamp | {"seconds": seconds})
    summary.written[str(directory / MOMENTS)] = size_in_words(networks[WEIGHTS])


def _predictions(recipe: Recipe, directory: Path, record: Analysis, samples: Samples, overwrite: bool, summary: Summary) -> None:
    """Predict the moments of the training samples, unless current predictions are stored.

    A network's errors are smaller on samples that it has seen, and a generator that is trained on such moments trusts them too much.
    Therefore, with folds, each sample is predicted by the network that has not seen it. Without folds, dropout stays on: the errors are
    then about as large as on new samples, at no cost (docs/results/gfs.md).
    """
    if processes.decided(lambda: is_current(recipe, directory, PREDICTIONS, overwrite)):
        return
    _seed(recipe, 0)
    folds_by_name = _folds(recipe, samples) or {WEIGHTS: (torch.arange(0), torch.arange(len(samples)))}
    processes.decided(lambda: require_space(directory, 4 * 2 * len(samples) * math.prod(samples.shape)))
    begin = time.perf_counter()
    predictors: Predictors = [
        (load_network(_untrained_moments(recipe, record, samples), directory / MOMENTS, name).train(not recipe.moments.folds), inside)
        for name, (_, inside) in folds_by_name.items()
    ]
    stamp = make_stamp(recipe, directory, PREDICTIONS)
    with processes.completed_by_first(directory / PREDICTIONS, stamp, True, "train") as unfinished:
        write_predictions(unfinished, predictors, samples, stamp)
    seconds = time.perf_counter() - begin
    visits_per_sample = recipe.generator.steps * recipe.generator.batch / len(samples)
    by_whom = "each by the network that has not seen it, " if recipe.moments.folds else ""
    summary.written[str(directory / PREDICTIONS)] = f"moments of the training samples, {by_whom}predicted once in {seconds:.1f} s"
    if visits_per_sample > 1:
        summary.facts["predictions save"] = (
            f"about {seconds * (visits_per_sample - 1):.0f} s, because training visits a sample {visits_per_sample:.0f} times"
        )


def _folds(recipe: Recipe, samples: Samples) -> dict[str, tuple[Tensor, Tensor]]:
    """The indices of the samples outside and inside each fold, by the name of the weights of the fold's network."""
    return {f"fold-{number}": fold for number, fold in enumerate(folds(len(samples), recipe.moments.folds))}


def _untrained_moments(recipe: Recipe, record: Analysis, samples: Samples) -> MomentsModel:
    return to_device(moments_model(recipe.moments, record.grid.includes_poles, samples.forcings.channels, len(record.variables)))


def _fitted(
    recipe: Recipe,
    network: Network,
    training: Training[Model],
    batch_of: BatchOf[Batch],
    loss_of: Callable[[Model, Batch], Tensor],
    samples: int,
    directory: Path,
    label: str,
    validate: Callable[[nn.Module], dict[str, float]] | None,
    summary: Summary,
) -> Fitted[Model]:
    """Train one network, and add its loss and duration to the summary."""
    name = label.replace(", ", "-")
    result = fitted(training, batch_of, loss_of, samples, network, recipe.training, directory, name, seed=recipe.seed, validate=validate)
    summary.facts |= result.facts(label)
    return result


def _seed(recipe: Recipe, network: int) -> None:
    """Seed torch for a network (0: moments network, 1: generator). Initial weights and dropout then depend on the recipe's seed alone."""
    torch.manual_seed(2 * recipe.seed + network)
