"""Test that no training step makes the host wait for the device. The test inspects torch's operations, so it needs no GPU."""

from __future__ import annotations

import copy
from itertools import islice
from typing import Any

import pytest
import torch
from small_training import Settings
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wsdcast.nets.unet import UNet
from wsdcast.training.batches import EnsembleBatch, FlowBatch, Pairs
from wsdcast.training.loop import fit, read
from wsdcast.training.state import Training
from wsdcast.warmstart.crps import NOISE_NUMBERS, direct_sample, ensemble_loss
from wsdcast.warmstart.few_steps import StepDraws, distillation_loss, shortcut_loss
from wsdcast.warmstart.flow import Draws, joint_loss, training_loss
from wsdcast.warmstart.moments import MomentsModel, negative_log_likelihood
from wsdcast.warmstart.prior import InformedPrior
from wsdcast.warmstart.solvers import midpoint
from wsdcast.warmstart.times import uniform

SAMPLES, CHANNELS, GRID = 4, 2, (8, 16)
DEPENDS_ON_DATA = ("nonzero", "masked_select", "unique", "_unique2", "unique_consecutive", "_local_scalar_dense", "equal")


class NoWaiting(TorchDispatchMode):
    """Refuse every operation for which the host waits: values or shapes that depend on device data, and copies from or to the device."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        devices = {leaf.device.type for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        name = function.overloadpacket.__name__
        if self.device in devices and (name in DEPENDS_ON_DATA or (function.overloadpacket is torch.ops.aten.index and _masked(args))):
            raise AssertionError(f"{name} waits for the device")
        result = function(*args, **(kwargs or {}))
        after = devices | {leaf.device.type for leaf in tree_leaves(result) if isinstance(leaf, Tensor)}
        # A single number of the host is passed with the call. Any other tensor of the host would be copied.
        numbers = all(leaf.dim() == 0 for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.device.type == "cpu")
        if len(after) > 1 and (name in ("copy_", "_to_copy", "_copy_from", "_foreach_copy_", "to") or not numbers):
            raise AssertionError(f"{name} between {' and '.join(sorted(after))}")
        return result


def _masked(args: Any) -> bool:
    return any(isinstance(index, Tensor) and index.dtype == torch.bool for index in args[1])


def moments_network(dropout: float = 0.1) -> MomentsModel:
    return MomentsModel(UNet(2 * CHANNELS, 2 * CHANNELS, (8, 8), dropout=dropout), CHANNELS)


def generator_network(recompute: bool = False, dropout: float = 0.1) -> UNet:
    return UNet(5 * CHANNELS, CHANNELS, (8, 8), scalars=2, dropout=dropout, activation_checkpointing=recompute)


def moments_loss(model: MomentsModel, batch: Pairs) -> Tensor:
    return negative_log_likelihood(model, *batch)


def flow_loss(model: nn.Module, batch: FlowBatch) -> Tensor:
    assert batch.prior is not None
    return training_loss(model, batch.prior, batch.context, batch.target, batch.draws)


def both_losses(model: nn.ModuleDict, batch: FlowBatch) -> Tensor:
    return joint_loss(model["generator"], model["moments"], InformedPrior, batch.context, batch.target, batch.draws, True, 0.5)


def distil_loss(model: nn.Module, batch: FlowBatch) -> Tensor:
    assert batch.prior is not None
    teacher = copy.deepcopy(model).requires_grad_(False)
    return distillation_loss(model, teacher, batch.prior, batch.context, batch.draws.noise, 1, uniform(2), midpoint)


def shortcut(model: nn.Module, batch: FlowBatch) -> Tensor:
    assert batch.prior is not None
    steps = StepDraws(batch.draws.t / 2, torch.full_like(batch.draws.t, 0.5))
    return shortcut_loss(model, model, batch.prior, batch.context, batch.target, batch.draws, steps, 3)


def crps_loss(model: nn.Module, batch: EnsembleBatch) -> Tensor:
    members = torch.stack([direct_sample(model, batch.prior, batch.context, noise) for noise in batch.noise])
    weights, scale = batch.target.new_ones(GRID[0], 1), batch.target.new_ones(CHANNELS, 1, 1)
    return ensemble_loss(weights, scale, batch.target.new_ones(CHANNELS, GRID[1] // 2 + 1), 0.95, 0.1)(members, batch.target)


def case(name: str) -> tuple[Any, Any, Any]:
    """Return network, loss and a batch."""
    torch.manual_seed(0)
    context, target = torch.randn(SAMPLES, 2 * CHANNELS, *GRID), torch.randn(SAMPLES, CHANNELS, *GRID)
    draws = Draws(torch.rand(SAMPLES), torch.rand(SAMPLES), torch.randn_like(target))
    prior = InformedPrior(torch.randn_like(target), torch.rand_like(target) + 0.1)
    if name.startswith("moments"):
        return moments_network(), moments_loss, Pairs(context, target)
    if name.startswith("flow"):
        return generator_network("recompute" in name), flow_loss, FlowBatch(context, target, draws, prior)
    if name == "distil":
        return generator_network(), distil_loss, FlowBatch(context, target, draws, prior)
    if name == "shortcut":
        knows_step = UNet(5 * CHANNELS, CHANNELS, (8, 8), scalars=3, silent=1)
        return knows_step, shortcut, FlowBatch(context, target, draws, prior)
    if name == "crps":
        noise = torch.randn(2, *target.shape)
        return UNet(4 * CHANNELS, CHANNELS, (8, 8), noise=NOISE_NUMBERS), crps_loss, EnsembleBatch(context, target, noise, prior)
    both = nn.ModuleDict({"moments": moments_network(), "generator": generator_network()})
    return both, both_losses, FlowBatch(context, target, draws, None)


CASES = ["moments", "flow", "flow, recompute", "joint", "distil", "shortcut", "crps"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
# Distillation reads the flow times of its teacher, which are on the host.
@pytest.mark.parametrize("name", [name for name in CASES if name != "distil"])
def test_steps_leave_their_numbers_on_the_device(name, precision):
    model, loss_of, batch = case(name)
    before = [parameter.clone() for parameter in model.parameters()]
    training = Training.of(model, torch.Generator())
    steps = fit(training, lambda chosen, part: batch, loss_of, 4 * SAMPLES, Settings(batch=SAMPLES, accumulate=2, precision=precision), 0)
    with NoWaiting("cpu"):
        taken = list(islice(steps, 4))
    assert [step.number for step in read(taken)] == [0, 1, 2, 3]
    assert any(not torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_steps_copy_nothing_from_or_to_the_device(name):
    model, loss_of, batch = case(name)
    context, target, *others = batch
    if others:
        draws, prior = others
        prior_on_meta = InformedPrior(prior.mean.to("meta"), prior.std.to("meta")) if prior else None
        on_meta = draws.to("meta") if isinstance(draws, Tensor) else Draws(*(drawn.to("meta") for drawn in draws))
        others = [on_meta, prior_on_meta]
    batch = type(batch)(context.to("meta"), target.to("meta"), *others)
    training = Training.of(model.to("meta"), torch.Generator())
    training.optimiser = torch.optim.AdamW(training.model.parameters(), foreach=True)  # the fused one does not support meta
    steps = fit(training, lambda chosen, part: batch, loss_of, 4 * SAMPLES, Settings(batch=SAMPLES, accumulate=2), 0)
    with NoWaiting("meta"):
        taken = list(islice(steps, 4))
    assert all(step.loss.device.type == step.gradient.device.type == "meta" for step in taken)


@pytest.mark.parametrize("wait", [Tensor.item, bool, Tensor.tolist, torch.nonzero, lambda x: x[x > 0], lambda x: x.to("cpu")])
def test_the_watch_sees_all_ways_to_wait(wait):
    x = torch.ones((), device="meta")
    with NoWaiting("meta"), pytest.raises((AssertionError, NotImplementedError)):
        wait(x)
    with NoWaiting("meta"), pytest.raises(AssertionError, match="between cpu and meta"):
        torch.ones(3).to("meta")
