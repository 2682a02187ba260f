"""What the trainings of all networks share: recipe and data, random seeds, and a network that is fitted and written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wsdcast.data.store.analysis import Analysis
from wsdcast.nets.weights import Model, size_in_words
from wsdcast.runs import devices, processes
from wsdcast.runs.artefact import is_current
from wsdcast.runs.names import FEW_STEPS, FINE_TUNED, GENERATOR, MOMENTS
from wsdcast.runs.recipes import Optimisation
from wsdcast.runs.summary import Summary
from wsdcast.training.fitting import fit_and_write
from wsdcast.training.loop import Batch, BatchOf, Plan
from wsdcast.training.state import Training
from wsdcast.warmstart.prior import InformedPrior, Moments, PriorOf
from wsdcast.weather.networks import Sizes, sizes_of
from wsdcast.weather.recipe import Recipe
from wsdcast.weather.samples import Samples

NETWORKS = (MOMENTS, GENERATOR, FEW_STEPS, FINE_TUNED)
"""The trained networks. The place of each is part of its random seeds."""


class Priors(NamedTuple):
    """The priors of a generator whose moments are not trained with it. A context is (batch, channel, latitude, longitude).

    Attributes:
        of_samples: ``of_samples(indices, context)`` returns the prior of training samples (batch,), which may be stored.
        of_context: returns the prior of any context.
    """

    of_samples: Callable[[Tensor, Tensor], InformedPrior]
    of_context: PriorOf


@dataclass(frozen=True)
class TrainingJob:
    """What the trainings of one ``wsdcast train`` share.

    Attributes:
        recipe: the recipe in force.
        directory: the run directory.
        record: the prepared data.
        samples, validation_samples: of the training split and the validation split.
        given: the user's model for the prior ``given``.
        overwrite: replace networks made from another recipe.
        summary: loss, duration and file of each network are added here.
    """

    recipe: Recipe
    directory: Path
    record: Analysis
    samples: Samples
    validation_samples: Samples
    given: Moments | None = None
    overwrite: bool = False
    summary: Summary = field(default_factory=lambda: Summary("train"))

    @property
    def sizes(self) -> Sizes:
        """What networks are made for (:func:`wsdcast.weather.networks.sizes_of`)."""
        return sizes_of(self.record, self.samples.forcings)

    def is_current(self, artefact: str) -> bool:
        """Whether a network is stored already. If so, the summary says it.

        Raises:
            UserError: if the stored one was made from another recipe.
        """
        current = processes.decided(lambda: is_current(self.recipe, self.directory, artefact, self.overwrite))
        if current:
            self.summary.facts[f"current: {artefact}"] = str(self.directory / artefact)
        return current

    def plan(
        self,
        batch_of: BatchOf[Batch],
        loss_of: Callable[[Model, Batch], Tensor],
        samples: int,
        settings: Optimisation,
        scores: Callable[[Model], dict[str, float]],
    ) -> Plan[Model, Batch]:
        """The plan of a training with the recipe's seed. It has ``scores`` if the record has a validation split."""
        return Plan(batch_of, loss_of, samples, settings, self.recipe.seed, scores if len(self.validation_samples) else None)

    def train_and_report(self, artefact: str, training: Training[Model], plan: Plan[Model, Batch]) -> None:
        """Train a network, write it as an artefact of the run directory, and add its loss and duration to the summary.

        For the networks after the generator the summary also says which share of the time of all training they took.
        """
        path = self.directory / artefact
        result = fit_and_write(self.recipe, path, training, plan, self.recipe.training, self.overwrite)
        self.summary.facts |= result.facts(artefact)
        self.summary.written[str(path)] = size_in_words(result.network)
        if artefact in (FEW_STEPS, FINE_TUNED):
            earlier = self.recipe.networks[: self.recipe.networks.index(artefact)]
            stamps = [json.loads((self.directory / name / "stamp.json").read_text()) for name in earlier]
            total = result.history.seconds + sum(stamp.get("seconds", 0.0) for stamp in stamps)
            self.summary.facts[f"{artefact} share"] = f"{result.history.seconds / total:.0%} of the time of training so far"


def seed_torch(recipe: Recipe, network: str) -> None:
    """Seed torch for one of :data:`NETWORKS`. Initial weights and dropout then depend on the recipe's seed alone."""
    number = NETWORKS.index(network)
    # The seeds of the first two networks are those of version 0.1.0.
    torch.manual_seed(2 * recipe.seed + number if number < 2 else _number(recipe, number, 1))


def random_of(recipe: Recipe, network: str) -> torch.Generator:
    """The random generator for what the loss of one of :data:`NETWORKS` draws, on the device.

    It must not have the seed of the generator that orders the samples.
    """
    return torch.Generator(devices.device()).manual_seed(_number(recipe, NETWORKS.index(network)))


def _number(recipe: Recipe, *keys: int) -> int:
    """A random seed made of the recipe's seed and further numbers."""
    return int(np.random.SeedSequence([recipe.seed, *keys]).generate_state(1)[0])
