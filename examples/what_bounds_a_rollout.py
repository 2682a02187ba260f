"""Measure how the time of one evaluation of the generator divides, and how much could be saved; by default for the planet's network.

    python examples/what_bounds_a_rollout.py [RECIPE]

Each line is the time of one evaluation of a batch with something left out or changed, as a ratio to the unchanged evaluation in the same
run. What is left out would have to be computed in some other way, so each figure is a bound on the possible gain.
"""

from __future__ import annotations

import sys
from types import MethodType

import torch
from torch import nn

from wsdcast.bench.measure import paired
from wsdcast.bench.synthetic import record_of
from wsdcast.nets.sphere import pad
from wsdcast.nets.unet import Convolution, UNet
from wsdcast.nets.weights import to_device
from wsdcast.runs import devices
from wsdcast.sampling.batches import batch_size
from wsdcast.weather.recipe import load_recipe

CHANNELS, CONSTANT = 10, 8
"""Channels of the generator's input, and how many of them stay the same in all evaluations of a step."""


def main(recipe: str = "planet", rounds: int = 20) -> dict[str, float]:
    """Print the ratios and return them."""
    resolved = load_recipe(recipe)
    settings, grid = resolved.generator, record_of(resolved, 100).grid
    devices.keep_freed_memory()
    batch = batch_size(grid.size, devices.device())

    def network(channels: int = CHANNELS) -> UNet:
        unet = UNet(channels, 2, settings.widths, settings.blocks, 2, 0.0, grid.includes_poles).eval().requires_grad_(False)
        return to_device(unet)

    x, scalar = torch.randn(batch, CHANNELS, *grid.shape), torch.full((1,), 0.5)
    whole, unpadded, unnormalised = network(), network(), network()
    for module in unpadded.modules():
        if isinstance(module, Convolution):
            module.padding = (1, 1)
            module.forward = MethodType(nn.Conv2d.forward, module)
    for module in unnormalised.modules():
        if isinstance(module, nn.GroupNorm):
            module.forward = lambda features: features
    contiguous = UNet(CHANNELS, 2, settings.widths, settings.blocks, 2, 0.0, grid.includes_poles).eval().requires_grad_(False)
    varying = network(CHANNELS - CONSTANT)

    def in_bfloat16() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            whole(x, scalar, scalar)

    ways = {
        "as it is": lambda: whole(x, scalar, scalar),
        "constant channels shared by all evaluations of a step": lambda: varying(x[:, CONSTANT:], scalar, scalar),
        "no normalisation": lambda: unnormalised(x, scalar, scalar),
        "zeros inside the convolution for the sphere's neighbours": lambda: unpadded(x, scalar, scalar),
        "channels first instead of last": lambda: contiguous(x, scalar, scalar),
        "bfloat16": in_bfloat16,
        "padding of the input alone": lambda: pad(x),
    }
    with torch.inference_mode():
        for way in ways.values():
            way()
        times = dict(zip(ways, paired(*ways.values(), rounds=rounds), strict=True))
    print(f"{batch} samples, {grid.name}, as it is: {1e3 * times['as it is']:.1f} ms")
    ratios = {name: time / times["as it is"] for name, time in times.items()}
    for name, ratio in ratios.items():
        print(f"{ratio:5.2f}  {name}")
    return ratios


if __name__ == "__main__":
    main(*sys.argv[1:])
