"""Training of a network of few evaluations from the flow."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from wsdcast.nets.unet import UNet
from wsdcast.nets.weights import to_device
from wsdcast.runs import devices
from wsdcast.runs.devices import compiled
from wsdcast.runs.names import FEW_STEPS
from wsdcast.training.batches import FlowBatch, flow_batches_of, pairs_of
from wsdcast.training.state import Training
from wsdcast.training.validation import ensemble_scores
from wsdcast.warmstart.evaluations import steps_for
from wsdcast.warmstart.few_steps import StepDraws, distillation_loss, draw_any_steps, draw_halved_steps, mean_flow_loss, shortcut_loss
from wsdcast.warmstart.solvers import midpoint
from wsdcast.warmstart.times import uniform
from wsdcast.weather.forcings import area_weights
from wsdcast.weather.networks import generator_model
from wsdcast.weather.samplers import few_sampler
from wsdcast.weather.trained import Trained, trained
from wsdcast.weather.training.job import Priors, TrainingJob, random_of, seed_torch
from wsdcast.weather.weights import generator_weights


def train_few_steps(job: TrainingJob, priors: Priors | None) -> None:
    """Train the network of few evaluations from the flow, and write ``RUN/few-steps``, unless it is current.

    Without ``priors`` the moments network was trained with the generator, and predicts the moments of each batch.
    """
    recipe, settings, objective = job.recipe, job.recipe.few_steps, job.recipe.generator.objective
    if job.is_current(FEW_STEPS):
        return
    flow = trained(recipe, job.directory, job.record, job.given, after=())
    # Frozen networks are evaluated in each step too: four evaluations of the teacher take longer than the training of the student.
    for frozen, is_used in ((flow.generator, objective == "distil"), (flow.moments, priors is None)):
        if settings.compile and is_used and isinstance(frozen, nn.Module):
            compiled(frozen)
    seed_torch(recipe, FEW_STEPS)
    of_network = recipe.generator
    if objective == "distil":
        # Every noise gives the student another sample, so it does not overfit as a flow does. Dropout would only add to its error: on GFS
        # wind the loss is 0.0056 with the flow's dropout of 0.1, and 0.0033 without.
        of_network = of_network.model_copy(update={"dropout": 0.0})
    network, random = generator_model(of_network, job.sizes, few_steps=True), random_of(recipe, FEW_STEPS)
    if settings.begin == "flow":
        network.load_state_dict(network.state_dict() | flow.generator.state_dict())
    # torch's derivative of GroupNorm in forward mode does not take channels last.
    training = Training.of(to_device(network, settings.channels_last and objective != "mean-flow"), random)
    prior_of = priors.of_samples if priors else lambda _, context: flow.prior_of(context)
    flow_batches = flow_batches_of(pairs_of(job.samples), job.samples.shape, random, prior_of, recipe.generator.times)

    def scores(network: UNet) -> dict[str, float]:
        sampler = few_sampler(flow, network, recipe.few_numbers[0])
        return ensemble_scores(sampler, job.validation_samples, area_weights(job.record))

    if objective == "distil":
        loss_of = _distillation(job, flow)
        job.train_and_report(FEW_STEPS, training, job.plan(flow_batches, loss_of, len(job.samples), settings, scores))
        return

    draw_steps = draw_halved_steps if objective == "shortcut" else draw_any_steps

    def batch_of(indices: Tensor, local: slice) -> tuple[FlowBatch, StepDraws]:
        return flow_batches(indices, local), draw_steps(indices.numel(), random).of(local)

    def loss_of_steps(network: UNet, batch_and_steps: tuple[FlowBatch, StepDraws]) -> Tensor:
        (context, target, draws, prior), steps = batch_and_steps
        assert prior is not None
        flow_samples = settings.flow_samples(len(target))
        if objective == "shortcut":
            return shortcut_loss(network, training.averaged, prior, context, target, draws, steps, flow_samples)
        return mean_flow_loss(network, prior, context, target, draws, steps, flow_samples)

    job.train_and_report(FEW_STEPS, training, job.plan(batch_of, loss_of_steps, len(job.samples), settings, scores))


def _distillation(job: TrainingJob, flow: Trained) -> Callable[[UNet, FlowBatch], Tensor]:
    """The loss of distillation with the settings of the recipe."""
    settings = job.recipe.few_steps
    weights, teacher_times = area_weights(job.record).to(devices.device()), uniform(steps_for("midpoint", settings.teacher_nfe))
    if (of_channels := generator_weights(job.recipe, job.record)) is not None:
        weights = weights * of_channels

    def loss_of(network: UNet, batch: FlowBatch) -> Tensor:
        context, _, draws, prior = batch
        assert prior is not None
        return distillation_loss(
            network, flow.generator, prior, context, draws.noise, settings.nfe, teacher_times, midpoint, weights, flow.path
        )

    return loss_of
