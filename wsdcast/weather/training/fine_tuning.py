"""Fine-tuning of the last network on the CRPS of short rollouts."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from wsdcast.nets.unet import UNet
from wsdcast.nets.weights import to_device
from wsdcast.runs.devices import compiled
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import FEW_STEPS, FINE_TUNED
from wsdcast.sampling.samplers import Sampler
from wsdcast.training.state import Training
from wsdcast.training.validation import ensemble_scores
from wsdcast.warmstart.prior import PRIOR_MAKERS
from wsdcast.weather.forcings import area_weights
from wsdcast.weather.samplers import few_sampler
from wsdcast.weather.samples import Samples
from wsdcast.weather.trained import trained
from wsdcast.weather.training.job import TrainingJob, random_of
from wsdcast.weather.training.rollouts import RolloutBatch, rollout_batches_of, rollout_loss
from wsdcast.weather.weights import loss_of_ensembles


def samples_of_rollouts(job: TrainingJob) -> Samples:
    """The training samples from which the longest rollout of the recipe can begin.

    Raises:
        UserError: if there are none.
    """
    longest = max(job.recipe.fine_tune.rollout)
    samples = job.samples.longer(longest)
    if not len(samples):
        raise UserError(f"fine_tune.rollout: the training split has no {longest} steps of 6 h without a gap")
    return samples


def fine_tune(job: TrainingJob) -> None:
    """Train the last network on the CRPS of short rollouts, and write ``RUN/fine-tuned``, unless it is current."""
    recipe, settings = job.recipe, job.recipe.fine_tune
    if job.is_current(FINE_TUNED):
        return
    samples = samples_of_rollouts(job)
    networks = trained(recipe, job.directory, job.record, job.given, after=[FEW_STEPS])
    last = networks.few.get(settings.nfe, networks.generator)
    make_prior, moments = PRIOR_MAKERS[recipe.generator.prior], networks.moments
    # The prior of a later step depends on the states before it, so that gradients go through the moments too. Their network stays frozen.
    networks = replace(networks, prior_of=lambda context: make_prior(*moments(context)))
    if settings.compile and isinstance(moments, nn.Module):
        compiled(moments)  # it is evaluated in each step of a rollout, as the network in training is
    network, random = last.requires_grad_(True), random_of(recipe, FINE_TUNED)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # each member has its own mask, so members would differ more in training than in a forecast
    training = Training.of(to_device(network, settings.channels_last), random)
    batches = rollout_batches_of(samples, lambda: settings.rollout[training.step * len(settings.rollout) // settings.steps], random)
    loss = loss_of_ensembles(recipe, job.record)

    def sampler_of(network: UNet) -> Sampler:
        return few_sampler(networks, network, settings.nfe)

    def loss_of(network: UNet, batch: RolloutBatch) -> Tensor:
        return rollout_loss(sampler_of(network), batch, loss, settings.gradients)

    def scores(network: UNet) -> dict[str, float]:
        return ensemble_scores(sampler_of(network), job.validation_samples, area_weights(job.record))

    job.train_and_report(FINE_TUNED, training, job.plan(batches, loss_of, len(samples), settings, scores))
