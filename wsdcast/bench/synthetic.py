"""Inputs of the benchmarks that need no data: a record of random wind, untrained networks of a recipe, and random inputs for them."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from wsdcast.data.grid import Grid
from wsdcast.data.steps import STEP
from wsdcast.data.store.analysis import Analysis
from wsdcast.data.store.zarr_store import PackedStates, pack
from wsdcast.nets.unet import UNet
from wsdcast.nets.weights import to_device
from wsdcast.runs import devices
from wsdcast.warmstart.moments import MomentsModel
from wsdcast.weather.forcings import Surroundings
from wsdcast.weather.networks import generator_model, moments_model
from wsdcast.weather.recipe import Recipe


def record_of(recipe: Recipe, steps: int) -> Analysis:
    """Return a record of smooth random wind of 8 m/s on a recipe's grid. Eight states repeat. The last tenth is the test split."""
    grid, random = Grid.regular(recipe.data.grid), np.random.default_rng(0)
    smooth = gaussian_filter(random.standard_normal((8, 2, *grid.shape)), (0, 0, 2, 2), mode="wrap")
    wind = pack((8 * smooth / smooth.std()).astype(np.float32))[np.arange(steps) % 8]
    times = np.datetime64("2020-01-01", "ns") + STEP * np.arange(steps)
    zero, eight = np.zeros(2, np.float32), np.full(2, 8, np.float32)
    return Analysis(PackedStates(wind), times, grid, zero, eight, times[-steps // 5], times[-steps // 10])


def networks_of(recipe: Recipe, grid: Grid) -> tuple[MomentsModel, UNet, Surroundings]:
    """Return the moments network, the generator and their forcings, whose static fields are zeros.

    The networks are untrained. They take as long as trained ones.
    """
    static = torch.zeros(len(recipe.forcings.static), *grid.shape, device=devices.device())
    forcings = Surroundings(static, torch.tensor(grid.longitude, device=static.device) if recipe.forcings.solar_time else None)
    moments = moments_model(recipe.moments, grid.includes_poles, forcings.channels)
    generator = generator_model(recipe.generator, grid.includes_poles, forcings.channels)
    return to_device(moments), to_device(generator), forcings


def inputs_of(network: MomentsModel | UNet, batch: int, grid: Grid) -> tuple[Tensor, ...]:
    """Return random inputs of a network, on the device.

    The moments network takes a context. The generator takes the state with its context and moments, and its conditions.
    """
    unet = network.network if isinstance(network, MomentsModel) else network
    assert isinstance(unet, UNet)
    shapes = unet.input_shapes(*grid.shape)
    x = torch.randn(batch, *shapes[0][1:], device=devices.device())
    scalars = (x.new_full(shape, 0.5) if len(shape) == 1 else torch.randn(batch, *shape[1:], device=x.device) for shape in shapes[1:])
    return x, *scalars
