"""The design of a study: settings that can be sampled, and generators trained at equal cost, for weather and for images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from wsdcast.nets.unet import UNet
from wsdcast.nets.weights import operations
from wsdcast.runs.artefact import is_current
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import PREDICTIONS, PathName
from wsdcast.runs.recipes import Experiment, Network
from wsdcast.runs.summary import Summary
from wsdcast.study.sharing import training_seconds, variant_directory
from wsdcast.training.loop import samples_per_step
from wsdcast.warmstart.evaluations import require_possible

Kind = TypeVar("Kind", bound=Experiment)
Prior = TypeVar("Prior", bound=str)

Combination = tuple[str, str, int]
"""Solver, grid of flow times and number of evaluations."""


def combinations(
    solvers: Iterable[str],
    grids: Iterable[str],
    evaluations: Iterable[int],
    summary: Summary,
    path: PathName,
) -> list[Combination]:
    """Return the combinations that can be sampled. The others are named in the summary.

    Raises:
        UserError: if a solver can make none of the numbers of evaluations on any of the grids, or no solver can on another path.
    """
    possible, refused = list[Combination](), dict[Combination, str]()
    for combination in product(solvers, grids, evaluations):
        try:
            require_possible(*combination, path)
            possible.append(combination)
        except UserError as error:
            refused[combination] = str(error)
    for (solver, _, _), reason in refused.items():
        # Some solvers work on the straight path only. On another path the others are enough.
        if solver not in {combination[0] for combination in possible} and (path == "straight" or not possible):
            raise UserError(f"nothing to study: {reason}")
    numbers: dict[str, list[str]] = {}
    for (solver, grid, nfe), reason in refused.items():
        name = f"left out: {solver}" + f", {grid}" * (grid != "uniform")
        if reason.startswith("nfe"):
            numbers.setdefault(name, []).append(str(nfe))
        else:  # the whole solver, on this path or grid
            summary.facts[name + f", {path}" * (path != "straight")] = reason
    summary.facts |= {name: f"{', '.join(nfe)} evaluations, which it cannot make exactly" for name, nfe in numbers.items()}
    return possible


def cost_of_moments(
    moments: nn.Module,
    generator: UNet,
    context: tuple[int, ...],
    generator_settings: Network,
    samples: int,
    visits: float,
) -> tuple[float, int]:
    """The cost of the moments network, relative to the generator, in floating-point operations.

    Args:
        moments, generator: the networks, on the device ``meta``.
        context: shape of one context, (1, channels, row, column).
        generator_settings: how the generator is trained.
        samples: number of all training samples.
        visits: the number of samples in the forward and backward passes of the moments network, counted in training visits. A training
            visit costs three evaluations (one forward, two backward), so a prediction counts as a third.

    Returns:
        The cost of one evaluation in evaluations of the generator, and the cost of all visits in training steps of the generator.
    """
    ratio = operations(moments, torch.empty(context, device="meta")) / _operations_of_one(generator, context[2:])
    return ratio, round(ratio * visits / samples_per_step(generator_settings, samples))


def equal_cost_steps(total: float, relative: float, once: float, share: float, whose: str) -> int:
    """The steps of a generator with which its whole training costs as much as that of the recipe.

    Args:
        total: cost of the recipe's training, in steps of its generator.
        relative: cost of a step of this generator, in steps of the recipe's.
        once: cost of what its moments network does once, in steps of this generator.
        share: cost of what its moments network does in each step, in steps of this generator.
        whose: begins the message of an error.

    Raises:
        UserError: if the other networks alone cost as much.
    """
    steps = round((total / relative - once) / (1 + share))
    if steps < 1:
        raise UserError(f"{whose} its networks other than the generator cost more than the training of the recipe; give them fewer steps")
    return steps


def step_operations(generator: UNet, grid: Sequence[int], settings: Network, samples: int) -> int:
    """Floating-point operations of one evaluation of the generator (on the device ``meta``) for each sample of an optimiser step.

    ``samples`` is the number of all training samples.
    """
    return samples_per_step(settings, samples) * _operations_of_one(generator, grid)


def _operations_of_one(generator: UNet, grid: Sequence[int]) -> int:
    """Floating-point operations of one evaluation for one sample."""
    return operations(generator, *(torch.empty(shape, device="meta") for shape in generator.input_shapes(grid[0], grid[1])))


def trained_variants(
    variants: Mapping[Prior, Kind],
    seeds: Iterable[int],
    directory: Path,
    networks_of: Callable[[Kind], Collection[str]],
    train: Callable[[Kind, Path], object],
    overwrite: bool,
) -> Iterator[tuple[int, Prior, Kind, Path, float]]:
    """Train every prior with every seed, unless it is current, and yield seed, prior, recipe, run directory and seconds of the training.

    Variants share the prepared data, and those of the same seed may share the artefacts that ``networks_of`` names.
    """
    for seed, prior in product(seeds, variants):
        variant = variants[prior].changed(seed=seed)
        place = variant_directory(variant, directory, f"{prior}-{seed}", networks_of(variant))
        networks = [name for name in networks_of(variant) if name != PREDICTIONS]
        if not all(is_current(variant, place, name, overwrite) for name in networks):
            train(variant, place)
        yield seed, prior, variant, place, training_seconds(place, networks)
