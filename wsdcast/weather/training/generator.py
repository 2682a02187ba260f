"""Training of the generator: by flow matching, alone or with the moments network, or on the CRPS."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wsdcast.nets.unet import UNet
from wsdcast.nets.weights import to_device
from wsdcast.runs.names import GENERATOR
from wsdcast.sampling.samplers import direct_sampler
from wsdcast.training.batches import EnsembleBatch, FlowBatch, ensemble_batches_of, flow_batches_of, pairs_of
from wsdcast.training.loop import Plan
from wsdcast.training.state import Training
from wsdcast.training.validation import ensemble_scores, flow_scores, moments_scores
from wsdcast.warmstart.crps import direct_sample
from wsdcast.warmstart.flow import LOSS_WEIGHTS, joint_loss, training_loss
from wsdcast.warmstart.prior import PRIOR_MAKERS, frozen_prior
from wsdcast.weather.forcings import area_weights
from wsdcast.weather.harmonic_transform import weather_path
from wsdcast.weather.networks import generator_model, moments_model
from wsdcast.weather.noise_fields import noise_fields_of
from wsdcast.weather.training.job import Priors, TrainingJob, random_of, seed_torch
from wsdcast.weather.weights import generator_weights, loss_of_ensembles, moments_weights


def train_generator(job: TrainingJob, priors: Priors | None) -> None:
    """Train p'_theta as the recipe's objective says, unless it is current. Without ``priors`` the moments network is trained with it."""
    if job.is_current(GENERATOR):
        return
    recipe = job.recipe
    seed_torch(recipe, GENERATOR)
    network: nn.Module = generator_model(recipe.generator, job.sizes, noise=recipe.crps.noise)
    random = random_of(recipe, GENERATOR)
    if priors is None:
        network = nn.ModuleDict({"moments": moments_model(recipe.moments, job.sizes), "generator": network})
        plan = _plan_of_both(job, random)
    elif recipe.generator.objective == "crps":
        plan = _plan_of_crps(job, priors, random)
    else:
        plan = _plan_of_flow(job, priors, random)
    job.train_and_report(GENERATOR, Training.of(to_device(network, recipe.generator.channels_last), random), plan)


def _plan_of_flow(job: TrainingJob, priors: Priors, random: torch.Generator) -> Plan[Any, Any]:
    """The generator by flow matching (Algorithm 1)."""
    settings, samples = job.recipe.generator, job.samples
    path, weight = weather_path(settings, job.record.grid), LOSS_WEIGHTS[settings.loss_weight]
    of_channels = generator_weights(job.recipe, job.record)

    def loss_of(network: UNet, batch: FlowBatch) -> Tensor:
        assert batch.prior is not None
        return training_loss(network, batch.prior, batch.context, batch.target, batch.draws, path, weight, of_channels)

    def scores(network: UNet) -> dict[str, float]:
        return flow_scores(network, priors.of_context, job.validation_samples, path)

    batches = flow_batches_of(pairs_of(samples), samples.shape, random, priors.of_samples, settings.times)
    return job.plan(batches, loss_of, len(samples), settings, scores)


def _plan_of_both(job: TrainingJob, random: torch.Generator) -> Plan[Any, Any]:
    """The generator and the moments network at the same time (section 2.4, appendix E)."""
    recipe, settings, samples = job.recipe, job.recipe.generator, job.samples
    path, weight = weather_path(settings, job.record.grid), LOSS_WEIGHTS[settings.loss_weight]
    make_prior = PRIOR_MAKERS[settings.prior]
    channel_weights, moments_channel_weights = generator_weights(recipe, job.record), moments_weights(recipe, job.record)

    def loss_of(networks: nn.ModuleDict, batch: FlowBatch) -> Tensor:
        return joint_loss(
            networks["generator"],
            networks["moments"],
            make_prior,
            batch.context,
            batch.target,
            batch.draws,
            end_to_end=settings.moments == "end-to-end",
            moments_weight=settings.moments_weight,
            path=path,
            weight=weight,
            channel_weights=channel_weights,
            moments_channel_weights=moments_channel_weights,
        )

    def scores(networks: nn.ModuleDict) -> dict[str, float]:
        flow = flow_scores(networks["generator"], frozen_prior(networks["moments"], make_prior), job.validation_samples, path)
        return flow | moments_scores(networks["moments"], job.validation_samples, area_weights(job.record))

    batches = flow_batches_of(pairs_of(samples), samples.shape, random, None, settings.times)
    return job.plan(batches, loss_of, len(samples), settings, scores)


def _plan_of_crps(job: TrainingJob, priors: Priors, random: torch.Generator) -> Plan[Any, Any]:
    """The generator on the CRPS of two members, without a flow (:mod:`wsdcast.warmstart.crps`)."""
    samples, loss = job.samples, loss_of_ensembles(job.recipe, job.record)
    noise_fields = noise_fields_of(job.recipe, job.record)

    def loss_of(network: UNet, batch: EnsembleBatch) -> Tensor:
        # All members in one evaluation.
        repeated = torch.arange(len(batch.target), device=batch.target.device).repeat(len(batch.noise))
        members = direct_sample(network, batch.prior.of(repeated), batch.context[repeated], batch.noise.flatten(0, 1), noise_fields)
        return loss(members.unflatten(0, batch.noise.shape[:2]), batch.target)

    def scores(network: UNet) -> dict[str, float]:
        sampler = direct_sampler(network, priors.of_context, noise_fields)
        return ensemble_scores(sampler, job.validation_samples, area_weights(job.record))

    batches = ensemble_batches_of(pairs_of(samples), samples.shape, random, priors.of_samples)
    return job.plan(batches, loss_of, len(samples), job.recipe.generator, scores)
