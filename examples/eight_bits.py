"""Measure what a generator in eight bits could gain in speed, and what it would lose in scores.

    python examples/eight_bits.py [RUN]

On a GPU it times the largest convolution of pipelines/era5.yaml in bfloat16, and matrix products with as many operations in fp8 and int8.
torch has no convolution in eight bits, so the input must be unfolded first; the time of that is printed too.

With the run directory of a trained model, on any machine, it prints CRPS and spectrum of forecasts in float32, and of forecasts for which
the weights and inputs of the generator's convolutions are rounded to eight bits.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wsdcast.bench.measure import paired
from wsdcast.data.store.analysis import open_analysis
from wsdcast.runs import devices
from wsdcast.runs.artefact import resolve
from wsdcast.runs.errors import first_line
from wsdcast.runs.names import GENERATOR
from wsdcast.study.evaluation import evaluate
from wsdcast.weather.recipe import Recipe
from wsdcast.weather.samplers import sampler_of
from wsdcast.weather.trained import trained

BATCH, CHANNELS, ROWS, COLUMNS = 50, 256, 124, 240
LEADS = (6, 24, 72)


def to_int8(x: Tensor, scale: Tensor) -> Tensor:
    """Round ``x`` to int8 values, up to 127, and convert it back; ``scale`` is the largest magnitude."""
    step = scale / 127
    return (x / step).round().clamp(-127, 127) * step


def to_fp8(x: Tensor, scale: Tensor) -> Tensor:
    """Round ``x`` to fp8 with four bits of exponent and three of mantissa (largest number 448) and convert it back."""
    step = scale / 448
    return (x / step).to(torch.float8_e4m3fn).to(x.dtype) * step


def round_convolutions(network: nn.Module, rounded: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Round the weights once, with a scale for each output channel, and the inputs at every call, with one scale."""

    def round_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (rounded(inputs[0], inputs[0].abs().max().clamp(min=1e-12)), *inputs[1:])

    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            largest = part.weight.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
            part.weight.copy_(rounded(part.weight, largest))
            part.register_forward_pre_hook(round_input)


@torch.inference_mode()
def scores(run: Path) -> None:
    """Print CRPS and the deviation of the spectrum for each kind of rounding."""
    for name, rounded in {"float32": None, "int8": to_int8, "fp8": to_fp8}.items():
        recipe, directory = resolve(None, run, Recipe, GENERATOR)
        record = open_analysis(directory / "analysis.zarr", past_states=recipe.forcings.past_states)
        networks = trained(recipe, directory, record)
        sampler = sampler_of(networks, recipe.rollout, deterministic=True)  # not compiled and no CUDA graph, so that the hooks are called
        if rounded:
            round_convolutions(networks.few.get(recipe.rollout.nfe, networks.generator), rounded)
        initial_times = record.starts(12, LEADS[-1] // 6)
        statistics = evaluate(record, networks, sampler, initial_times, LEADS, members=20, seed=0, label=name).mean(["time", "variable"])
        ratio = statistics["power"].isel(wavenumber=slice(1, None)) / statistics["power_truth"].isel(wavenumber=slice(1, None))
        deviation = np.abs(np.log(ratio)).mean("wavenumber")
        for hours, crps, spectrum in zip(LEADS, statistics["crps_fair"].values, deviation.values, strict=True):
            print(f"{name:8} {hours:3} h  CRPS {crps:.4f} m/s  mean |log spectrum ratio| {spectrum:.4f}", flush=True)


@torch.inference_mode()
def speed() -> None:
    """Print the time of one convolution, and of matrix products with as many operations."""
    operations = 2 * BATCH * ROWS * COLUMNS * CHANNELS * CHANNELS * 9
    torch.backends.cudnn.benchmark = True
    x = torch.randn(BATCH, CHANNELS, ROWS + 2, COLUMNS + 2, device="cuda", dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    weight = torch.randn(CHANNELS, CHANNELS, 3, 3, device="cuda", dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    by_point = x.permute(0, 2, 3, 1)  # (batch, row, column, channel), the order in memory
    points, one = BATCH * ROWS * COLUMNS, torch.ones((), device="cuda")
    eight = torch.randint(-8, 8, (points, 9 * CHANNELS), device="cuda", dtype=torch.int8)
    narrow = torch.randint(-8, 8, (CHANNELS, 9 * CHANNELS), device="cuda", dtype=torch.int8)
    eight_fp, narrow_fp = eight.to(torch.float8_e4m3fn), narrow.to(torch.float8_e4m3fn)
    bytes_of = by_point.to(torch.float8_e4m3fn).view(torch.uint8)

    def unfolded() -> Tensor:
        return bytes_of.unfold(1, 3, 1).unfold(2, 3, 1).permute(0, 1, 2, 4, 5, 3).reshape(points, 9 * CHANNELS)

    ways: dict[str, Callable[[], Tensor]] = {
        "convolution, bfloat16": lambda: nn.functional.conv2d(x, weight),
        "product, fp8": lambda: torch._scaled_mm(eight_fp, narrow_fp.t(), one, one, out_dtype=torch.bfloat16),
        "product, int8": lambda: torch._int_mm(eight, narrow.t()),
        "rounding the input to fp8": lambda: by_point.to(torch.float8_e4m3fn),
        "unfolding it": unfolded,
    }
    for name, way in ways.items():
        try:
            way(), way()
            torch.cuda.synchronize()
            (seconds,) = paired(lambda way=way: (way(), torch.cuda.synchronize()), rounds=10)
        except RuntimeError as error:
            print(f"{name}: not in this torch ({first_line(error)})")
            continue
        print(f"{name}: {1e3 * seconds:.2f} ms, {1e-12 * operations / seconds:.0f} TFLOP/s if all operations were in it", flush=True)


if __name__ == "__main__":
    if devices.device().type == "cuda":
        speed()
    for run in sys.argv[1:]:
        scores(Path(run))
