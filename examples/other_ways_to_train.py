"""Experiments: three published changes to the training of the generator, each compared with the generator as it is, all else equal.

    python examples/other_ways_to_train.py OUT

- ``immiscible noise`` (Li et al. 2024): within a batch the noise is assigned to the data so that the sum of squared distances is smallest.
  *The Curse of Conditions* (arXiv 2503.10636) warns that this biases conditional models: the noise of a sample then depends on its context,
  and in sampling it does not. A spread/skill that falls is this bias. The last lines print how far noise and data are correlated.
- ``easy to hard`` (Kim et al. 2024, arXiv 2403.10348): training begins with the noisiest fifth of flow times and adds a fifth after each
  tenth of the steps. The paper adds them when the loss no longer falls.
- ``shortest path`` (Das et al. 2023): every degree of the sphere has its own schedule, such that the covariance of the state moves from
  that of the noise to that of the data on the shortest path (of the Fisher metric) between the two Gaussians. Seen from the data it
  sharpens while it adds noise whose small scales are weak, the opposite of the path blur-noise.

It uses the planet of ``where_the_warm_start_pays.py`` with the recipe's stirring, the warm and the standard prior, three seeds, the same
numbers of steps, order of samples, noise and dates, the midpoint rule, and one step ahead. Prints fair CRPS and the deviation of the
spectrum with the gain over the generator as it is, as mean over the seeds and from lowest to highest. Continues where it was stopped.

The generalised heavy ball (GHVB) needs no script: it is ``wsdcast study nfe --solvers ab2,ab3 -o rollout.momentum=0.8``.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from where_the_warm_start_pays import EVALUATIONS, recipe_of

import wsdcast
from wsdcast.data.store.analysis import Analysis, open_analysis
from wsdcast.nets.weights import WEIGHTS, load_network, save_networks, to_device
from wsdcast.runs import devices
from wsdcast.runs.names import ANALYSIS, MOMENTS, PREDICTIONS, PathName
from wsdcast.runs.progress import track
from wsdcast.sampling.samplers import generator_sampler
from wsdcast.study.evaluation import evaluate
from wsdcast.study.sharing import variant_directory
from wsdcast.training.batches import FlowBatch, flow_batches_of, pairs_of
from wsdcast.training.loop import BatchOf, Plan, fit, read
from wsdcast.training.predictions import read_predictions
from wsdcast.training.state import Training
from wsdcast.verification.metrics import metrics
from wsdcast.warmstart import paths
from wsdcast.warmstart.evaluations import steps_for
from wsdcast.warmstart.flow import training_loss
from wsdcast.warmstart.paths import STRAIGHT, Multiply
from wsdcast.warmstart.prior import PRIOR_MAKERS
from wsdcast.warmstart.times import uniform
from wsdcast.weather.harmonic_transform import spherical_transform
from wsdcast.weather.networks import generator_model, sizes_of
from wsdcast.weather.recipe import Recipe
from wsdcast.weather.samples import samples_of
from wsdcast.weather.trained import Trained, trained

WAYS = ("as it is", "immiscible noise", "easy to hard", "shortest path")
PRIORS, SEEDS, STARTS, MEMBERS = ("warm", "standard"), (0, 1, 2), 48, 8
FIFTHS = 5
SPECTRUM_SAMPLES, CORRELATED_BATCHES = 256, 32


def assigned(data: Tensor, noise: Tensor) -> Tensor:
    """Return the noise (batch, ...) in the order in which its squared distances to the data (batch, ...) have the smallest sum."""
    distances = torch.cdist(data.flatten(1).double(), noise.flatten(1).double()).square()
    return noise[torch.from_numpy(linear_sum_assignment(distances.cpu().numpy())[1]).to(noise.device)]


def normalised(batch: FlowBatch) -> Tensor:
    """Return the targets of a batch in the normalised space of the prior at the warmth of each sample."""
    assert batch.prior is not None
    return batch.prior.blended(batch.draws.warmth).normalise(batch.target)


def immiscible(batches: BatchOf[FlowBatch]) -> BatchOf[FlowBatch]:
    """Return the function that makes the same batches with assigned noise."""

    def batch_of(indices: Tensor, local: slice) -> FlowBatch:
        batch = batches(indices, local)
        return batch._replace(draws=batch.draws._replace(noise=assigned(normalised(batch), batch.draws.noise)))

    return batch_of


def easier(t: Tensor, share: float) -> Tensor:
    """Return logit-normal times moved to the noisiest ``share`` of their distribution: quantile q of all is quantile q of that part."""
    return t if share >= 1 else torch.special.ndtri(share * torch.special.ndtr(t.double().logit())).sigmoid().to(t)


def easy_to_hard(batches: BatchOf[FlowBatch], steps: int) -> BatchOf[FlowBatch]:
    """Return the function that makes the same batches, with flow times of the noisiest fifths that this step has reached."""
    step = 0

    def batch_of(indices: Tensor, local: slice) -> FlowBatch:
        nonlocal step
        batch, share = batches(indices, local), (1 + 2 * FIFTHS * step // steps) / FIFTHS
        step += 1
        return batch._replace(draws=batch.draws._replace(t=easier(batch.draws.t, share)))

    return batch_of


@dataclass(frozen=True)
class ShortestPath:
    """A path x_t = V a V' y + V b V' z on which a wave whose variance in the data is S, in units of that in the noise, has S^p.

    a^2 = (S^p - 1) / (S - 1) and b^2 = 1 - a^2. The p = sin(pi t / 2)^2 keeps the velocity, which is what the generator predicts, finite
    at both ends; for S = 1 it makes the path a quarter of a circle.

    Attributes:
        spectrum: S of each eigenvalue of the transform.
        multiply: the spectral transform of the grid.
    """

    spectrum: Tensor
    multiply: Multiply
    name: PathName = "straight"
    heads: int = 1

    def shares(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return a, b and their derivatives by t, each (batch, wave), for times (batch,) between 0 and 1."""
        t = t.double().clamp(1e-4, 1 - 1e-4)[:, None]
        log = self.spectrum.double().log()
        log = torch.where(log.abs() < 1e-6, 1e-6, log)
        p, rate = (math.pi * t / 2).sin().square(), math.pi / 2 * (math.pi * t).sin()
        of_data = torch.expm1(p * log) / torch.expm1(log)
        a, b = of_data.sqrt(), (1 - of_data).sqrt()
        growth = (p * log).exp() * log / torch.expm1(log) * rate
        return a, b, growth / (2 * a), -growth / (2 * b)

    def point(self, noise: Tensor, data: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """As in :class:`wsdcast.warmstart.paths.Path`."""
        a, b, of_a, of_b = (share.to(data) for share in self.shares(t))

        def mixed(data_share: Tensor, noise_share: Tensor) -> Tensor:
            return self.multiply(data, lambda _: data_share) + self.multiply(noise, lambda _: noise_share)

        return mixed(a, b), mixed(of_a, of_b)

    def velocity(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """As in :class:`wsdcast.warmstart.paths.Path`: the output itself."""
        return output

    def start(self, noise: Tensor) -> Tensor:
        """As in :class:`wsdcast.warmstart.paths.Path`: the noise itself."""
        return noise


def spectrum_of(multiply: Multiply, data: Tensor) -> Tensor:
    """Return the variance of each wave in the data (batch, channel, ...) over that in standard normal noise, (wave,)."""
    waves: list[Tensor] = []

    def ones_of(eigenvalues: Tensor) -> Tensor:
        waves.append(eigenvalues)
        return torch.ones_like(eigenvalues)[None]

    multiply(data[:1], ones_of)  # shows how many waves there are
    noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(0)).to(data)

    def power(x: Tensor, wave: Tensor) -> Tensor:
        return multiply(x, lambda _: wave[None]).square().mean()

    of_data, of_noise = (torch.stack([power(x, wave) for wave in torch.eye(len(waves[0])).to(data)]) for x in (data, noise))
    return of_data / of_noise


class Experiment:
    """One prior and seed: the trained run, and the batches that its generator was trained on."""

    def __init__(self, recipe: Recipe, place: Path, record: Analysis) -> None:
        self.recipe, self.place, self.record = recipe, place, record
        self.networks: Trained = trained(recipe, place, record)
        (self.samples,) = samples_of(record, self.networks.forcings, "train")

    def batches(self) -> BatchOf[FlowBatch]:
        """The batches of ``wsdcast train``, from the beginning."""
        settings = self.recipe.generator
        random = torch.Generator(devices.device()).manual_seed(int(np.random.SeedSequence([self.recipe.seed, 1]).generate_state(1)[0]))
        if settings.reads_frozen_moments:
            predicted, make = read_predictions(self.place / PREDICTIONS, devices.device()), PRIOR_MAKERS[settings.prior]
            return flow_batches_of(
                pairs_of(self.samples), self.samples.shape, random, lambda chosen, _: make(*predicted(chosen)), settings.times
            )
        of_context = self.networks.prior_of
        return flow_batches_of(pairs_of(self.samples), self.samples.shape, random, lambda _, context: of_context(context), settings.times)

    def untrained(self) -> nn.Module:
        """The generator with its first weights."""
        torch.manual_seed(2 * self.recipe.seed + 1)
        return generator_model(self.recipe.generator, sizes_of(self.record, self.networks.forcings))

    def path(self, way: str) -> paths.Path:
        """The path of a way to train."""
        if way != "shortest path":
            return STRAIGHT
        multiply = spherical_transform(self.record.grid, devices.device(), torch.float32)
        batch = self.batches()(torch.arange(len(self.samples))[:: -(-len(self.samples) // SPECTRUM_SAMPLES)], slice(None))
        return ShortestPath(spectrum_of(multiply, normalised(batch)).to(devices.device()), multiply)

    def generator(self, way: str) -> nn.Module:
        """The generator trained in this way, or what is stored of it."""
        settings, place = self.recipe.generator, self.place / way.replace(" ", "-")
        if not (place / f"{WEIGHTS}.safetensors").exists():
            changed: dict[str, Callable[[BatchOf[FlowBatch]], BatchOf[FlowBatch]]] = {
                "immiscible noise": immiscible,
                "easy to hard": partial(easy_to_hard, steps=settings.steps * settings.accumulate),
            }
            batches, path = changed.get(way, lambda batches: batches)(self.batches()), self.path(way)
            training = Training.of(to_device(self.untrained(), settings.channels_last), torch.Generator(devices.device()))

            def loss_of(network: nn.Module, batch: FlowBatch) -> Tensor:
                assert batch.prior is not None
                return training_loss(network, batch.prior, batch.context, batch.target, batch.draws, path)

            steps = fit(training, Plan(batches, loss_of, len(self.samples), settings, self.recipe.seed))
            for step in track(steps, f"{self.place.name}, {way}", settings.steps):
                read([step])
            place.mkdir(exist_ok=True)
            save_networks({WEIGHTS: training.averaged}, place, {})
        return load_network(self.untrained(), place)

    def scores(self, way: str) -> dict[int, tuple[float, float, float]]:
        """Fair CRPS, deviation of the spectrum and spread/skill one step ahead, by number of evaluations."""
        generator, path, result = self.generator(way), self.path(way), {}
        for nfe in EVALUATIONS:
            sampler = generator_sampler(generator, self.networks.prior_of, nfe, 1.0, uniform(steps_for("midpoint", nfe)), path=path)
            sums = evaluate(
                self.record, self.networks, sampler, self.record.starts(STARTS, 1), (6,), members=MEMBERS, seed=0, label=f"{way}, {nfe}"
            )
            scores = metrics(sums.mean(["time", "variable", "prediction_timedelta"]))
            result[nfe] = tuple(scores[name].item() for name in ("crps_fair", "power_deviation_mean", "spread_skill"))
        return result

    def correlation(self, change: Callable[[BatchOf[FlowBatch]], BatchOf[FlowBatch]]) -> float:
        """The correlation of noise and normalised data in batches, mean over samples."""
        batches, order = change(self.batches()), torch.randperm(len(self.samples), generator=torch.Generator().manual_seed(0))
        found = []
        for indices in order.split(self.recipe.generator.batch)[:CORRELATED_BATCHES]:
            batch = batches(indices, slice(None))
            found.append(nn.functional.cosine_similarity(normalised(batch).flatten(1), batch.draws.noise.flatten(1)))
        return torch.cat(found).mean().item()


def main(out: Path) -> None:
    """Train what is missing, and print the table."""
    recipe = recipe_of(0.35)
    wsdcast.prepare(recipe, out)
    record = open_analysis(out / ANALYSIS)
    print(
        "| prior | way | evaluations | CRPS 6 h, m/s | CRPS gain, % | spectrum's deviation | spectrum gain, % | spread/skill |\n"
        + "|---" * 8
        + "|"
    )
    correlations = {}
    for prior in PRIORS:
        experiments = []
        for seed in SEEDS:
            variant = recipe.changed(seed=seed, generator__prior=prior)
            place = variant_directory(variant, out, f"{prior}-{seed}", (MOMENTS, PREDICTIONS))
            wsdcast.train(variant, place)
            experiments.append(Experiment(variant, place, record))
        correlations[prior] = [experiments[0].correlation(change) for change in (lambda batches: batches, immiscible)]
        scores = {way: [experiment.scores(way) for experiment in experiments] for way in WAYS}
        for way, nfe in product(WAYS, EVALUATIONS):
            values, reference = (np.array([of_seed[nfe] for of_seed in scores[name]]) for name in (way, WAYS[0]))
            gains = 100 * (1 - values / reference)
            cells = []
            for mean, low, gain, high in zip(values.mean(axis=0), gains.min(axis=0), gains.mean(axis=0), gains.max(axis=0), strict=True):
                cells.append(f"{mean:.4f} | {gain:+.1f} ({low:+.1f} to {high:+.1f})")
            print(f"| {prior} | {way} | {nfe} | {cells[0]} | {cells[1]} | {values[:, 2].mean():.3f} |", flush=True)
    for prior, (before, after) in correlations.items():
        print(f"Prior {prior}: correlation of noise and data {before:.4f} as it is, {after:.4f} with immiscible noise.")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
