"""Helpers of the tests: a linear regression that is trained in milliseconds, and small networks with the joint loss."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from wsdcast.nets.unet import UNet
from wsdcast.runs.recipes import Optimisation
from wsdcast.training.batches import FlowBatch
from wsdcast.training.loop import PendingStep, Step, read
from wsdcast.training.state import Training
from wsdcast.warmstart.flow import joint_loss
from wsdcast.warmstart.moments import MomentsModel
from wsdcast.warmstart.prior import InformedPrior
from wsdcast.weather.networks import Sizes

X = torch.linspace(-1, 1, 64)[:, None]

CHANNELS, GRID = 2, (8, 16)

WIND = Sizes(includes_poles=False, forcings=0, channels=2, past_states=1)
"""Of networks for wind alone, on a grid without rows at the poles."""


class Settings(Optimisation):
    """Settings of a small training."""

    steps: int = 5
    batch: int = 2
    learning_rate: float = 0.1
    gradient_clip: float = 10.0
    ema_decay: float = 0.9


def begun(model: nn.Module | None = None) -> Training:
    torch.manual_seed(0)
    return Training.of(model or nn.Linear(1, 1), torch.Generator().manual_seed(1))


def points(chosen: torch.Tensor, part: slice) -> torch.Tensor:
    return X[chosen[part]]


def regression(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return ((model(x) - 3 * x + 1) ** 2).mean()


def each(steps: Iterable[PendingStep]) -> list[Step]:
    """Return all steps, each read by itself."""
    return [result for step in steps for result in read([step])]


def by_gradient(training: Training, rate: float = 0.1) -> Training:
    """Return the training with plain gradient descent. (AdamW's steps would not depend on the scale of the gradient.)"""
    training.optimiser = torch.optim.SGD(training.model.parameters(), lr=rate)
    return training


def moments_network() -> MomentsModel:
    return MomentsModel(UNet(2 * CHANNELS, 2 * CHANNELS, (8, 8)), CHANNELS)


def generator_network() -> UNet:
    return UNet(5 * CHANNELS, CHANNELS, (8, 8), scalars=2)


def both_losses(model: nn.ModuleDict, batch: FlowBatch) -> torch.Tensor:
    return joint_loss(model["generator"], model["moments"], InformedPrior, batch.context, batch.target, batch.draws, True, 0.5)
