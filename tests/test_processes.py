"""Several processes on one job: two with gloo on this machine do what one does, and none goes its own way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_no_waiting import CHANNELS, GRID, both_losses, generator_network, moments_network
from test_training import How, X, regression
from torch import nn

from wsdcast.training.batches import FlowBatch
from wsdcast.warmstart.flow import Draws
from wsdcast.warmstart.training import Training, fit

TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def two(place: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Run a script in two processes that have joined, in the directory ``place``, with what these tests define."""
    script = place / "script.py"
    head = f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom test_processes import *\nfrom wsdcast import processes\n"
    script.write_text(f"{head}processes.join()\nrank = processes.number()\n{body}\n")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *TORCHRUN, str(script)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=place, env=environment)


def joint_batch(chosen: torch.Tensor, mine: slice) -> FlowBatch:
    """Drawn for all processes alike, by the samples alone."""
    random, shape = torch.Generator().manual_seed(int(chosen[0])), (chosen.numel(), CHANNELS, *GRID)
    context = torch.randn(shape[0], 2 * CHANNELS, *GRID, generator=random, dtype=torch.float64)
    target, noise = (torch.randn(shape, generator=random, dtype=torch.float64) for _ in range(2))
    warmth, t = (torch.rand(shape[0], generator=random, dtype=torch.float64) for _ in range(2))
    return FlowBatch(context[mine], target[mine], Draws(warmth, t, noise).of(mine), None)


def gradients(name: str, how: How) -> dict[str, torch.Tensor]:
    """Of the first step, in double precision, with the loss."""
    torch.manual_seed(0)
    if name == "joint":
        model: nn.Module = nn.ModuleDict({"moments": moments_network(0, 0.0), "generator": generator_network(0, dropout=0.0)})
        for network in (model["moments"].network, model["generator"]):
            nn.init.normal_(network.last.weight, std=0.1)
    else:
        model = nn.Sequential(nn.Linear(1, 5), nn.SiLU(), nn.Linear(5, 1))
    training = Training.of(model.double(), torch.Generator())
    loss_of, batch_of = (both_losses, joint_batch) if name == "joint" else (regression, lambda chosen, mine: X.double()[chosen[mine]])
    (step,) = fit(training, batch_of, loss_of, 14, how, 0)
    return {"norm": step.gradient} | {key: value.grad.contiguous() for key, value in training.model.named_parameters()}


@pytest.mark.parametrize(
    ("name", "batch", "accumulate", "alone"),
    [
        ("plain", 7, 1, How(steps=1, batch=14, clip=1e9)),
        ("plain", 3, 3, How(steps=1, batch=14, clip=1e9)),  # three, three and one sample of each process
        ("joint", 2, 1, How(steps=1, batch=4, clip=1e9)),
        ("joint", 3, 2, How(steps=1, batch=6, accumulate=2, clip=1e9)),
    ],
)
def test_gradients_of_two_are_those_of_one_with_the_whole_batch(tmp_path, name, batch, accumulate, alone):
    how = How(steps=1, batch=batch, accumulate=accumulate, clip=1e9)
    done = two(tmp_path, f"from safetensors.torch import save_file\nsave_file(gradients({name!r}, {how}), f'{{rank}}.safetensors')")
    assert done.returncode == 0, done.stderr
    expected = gradients(name, alone)
    assert expected["norm"] > 0.01
    for rank in (0, 1):
        found = load_file(tmp_path / f"{rank}.safetensors")
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-11, atol=1e-13)
