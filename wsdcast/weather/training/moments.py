"""Training of the moments network, and its predictions for the training samples."""

from __future__ import annotations

import math
import time
from functools import partial

import torch
from torch import Tensor

from wsdcast.nets.weights import WEIGHTS, load_network, save_networks, size_in_words, to_device
from wsdcast.runs import processes
from wsdcast.runs.artefact import is_current, make_stamp
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import MOMENTS, PREDICTIONS
from wsdcast.training.batches import Pairs, pairs_of
from wsdcast.training.fitting import fitted
from wsdcast.training.loop import require_samples, samples_per_step
from wsdcast.training.predictions import Predictors, errors, folds, write_predictions
from wsdcast.training.state import Training
from wsdcast.training.validation import moments_scores
from wsdcast.warmstart.moments import MomentsModel, negative_log_likelihood
from wsdcast.weather.forcings import area_weights
from wsdcast.weather.networks import moments_model
from wsdcast.weather.recipe import Recipe
from wsdcast.weather.samples import Samples
from wsdcast.weather.training.job import TrainingJob, seed_torch
from wsdcast.weather.weights import moments_weights


def train_moments(job: TrainingJob) -> None:
    """Train h_phi, and for each fold a network that does not see the fold's samples, unless current networks are stored.

    Raises:
        UserError: if there are more folds than samples, or a fold leaves none to train on.
    """
    recipe, directory, record, samples = job.recipe, job.directory, job.record, job.samples
    if job.is_current(MOMENTS):
        return

    of_channels = moments_weights(recipe, record)

    def loss_of(network: MomentsModel, batch: Pairs) -> Tensor:
        return negative_log_likelihood(network, *batch, of_channels)

    if recipe.moments.folds > len(samples):
        raise UserError(f"moments.folds {recipe.moments.folds}: there are only {len(samples)} training samples")
    folds_by_name = _folds(recipe, samples)
    samples_by_name = {WEIGHTS: samples, **{name: samples.subset(outside) for name, (outside, _) in folds_by_name.items()}}
    for network_samples in samples_by_name.values():
        require_samples(len(network_samples), f"moments.folds {recipe.moments.folds}: a network would have ")
    scores = partial(moments_scores, samples=job.validation_samples, weights=area_weights(record))
    stamp, seconds = make_stamp(recipe, directory, MOMENTS), 0.0
    with processes.completed_by_first(directory / MOMENTS, stamp, job.overwrite) as unfinished:
        networks: dict[str, MomentsModel] = {}
        for name, network_samples in samples_by_name.items():
            seed_torch(recipe, MOMENTS)
            network = untrained_moments(job)
            training = Training.of(to_device(network, recipe.moments.channels_last), torch.Generator())
            plan = job.plan(pairs_of(network_samples), loss_of, len(network_samples), recipe.moments, scores)
            label = MOMENTS if name == WEIGHTS else f"{MOMENTS}, {name}"
            result = fitted(training, plan, recipe.training, unfinished, label.replace(", ", "-"))
            job.summary.facts |= result.facts(label)
            networks[name] = result.network
            seconds += result.history.seconds
        if folds_by_name:
            # On samples that a network has not seen, its errors are larger than its std says. The folds measure by which factor.
            predictors: Predictors = [(networks[name], inside) for name, (_, inside) in folds_by_name.items()]
            _, ratio = errors(predictors, samples, area_weights(record))
            # A std that the recipe gives as a number stays as it is.
            is_fixed = isinstance(recipe.moments.std, float)
            outcome = "std is fixed by the recipe" if is_fixed else "std scaled by it"
            job.summary.facts["moments, out of fold"] = f"(x - mean) / std has std {ratio.square().mean().sqrt():.2f}; {outcome}"
            for network in () if is_fixed else networks.values():
                network.calibration.copy_(ratio)
        processes.decided(lambda: save_networks(dict(networks), unfinished, stamp | {"seconds": seconds}))
    job.summary.written[str(directory / MOMENTS)] = size_in_words(networks[WEIGHTS])


def bytes_of_predictions(samples: Samples) -> int:
    """Bytes of the predictions of training samples: two float32 fields for each channel of each sample."""
    return 4 * 2 * len(samples) * math.prod(samples.shape)


def predict_moments(job: TrainingJob) -> None:
    """Predict the moments of the training samples, unless current predictions are stored.

    A network's errors are smaller on samples that it has seen, and a generator that is trained on such moments trusts them too much.
    Therefore, with folds, each sample is predicted by the network that has not seen it. Without folds, dropout stays on: the errors are
    then about as large as on new samples, at no cost (docs/results/gfs.md).
    """
    recipe, directory, samples, summary = job.recipe, job.directory, job.samples, job.summary
    if processes.decided(lambda: is_current(recipe, directory, PREDICTIONS, True)):  # others are replaced: they can be made again
        return
    seed_torch(recipe, MOMENTS)
    folds_by_name = _folds(recipe, samples) or {WEIGHTS: (torch.arange(0), torch.arange(len(samples)))}
    begin = time.perf_counter()
    predictors: Predictors = [
        (load_network(untrained_moments(job), directory / MOMENTS, name).train(not recipe.moments.folds), inside)
        for name, (_, inside) in folds_by_name.items()
    ]
    stamp = make_stamp(recipe, directory, PREDICTIONS)
    with processes.completed_by_first(directory / PREDICTIONS, stamp, True, bytes_of_predictions(samples)) as unfinished:
        write_predictions(unfinished, predictors, samples, stamp)
    seconds = time.perf_counter() - begin
    visits_per_sample = recipe.generator.steps * samples_per_step(recipe.generator, len(samples)) / len(samples)
    by_whom = "each by the network that has not seen it, " if recipe.moments.folds else ""
    summary.written[str(directory / PREDICTIONS)] = f"moments of the training samples, {by_whom}predicted once in {seconds:.1f} s"
    if visits_per_sample > 1:
        summary.facts["predictions save"] = (
            f"about {seconds * (visits_per_sample - 1):.0f} s, because training visits a sample {visits_per_sample:.0f} times"
        )


def untrained_moments(job: TrainingJob) -> MomentsModel:
    """An untrained h_phi on the device."""
    return to_device(moments_model(job.recipe.moments, job.sizes))


def _folds(recipe: Recipe, samples: Samples) -> dict[str, tuple[Tensor, Tensor]]:
    """The indices of the samples outside and inside each fold, by the name of the weights of the fold's network."""
    border = 1 + samples.past_states  # the target of a sample is a past state of the next ones
    return {f"fold-{number}": fold for number, fold in enumerate(folds(len(samples), recipe.moments.folds, border))}
