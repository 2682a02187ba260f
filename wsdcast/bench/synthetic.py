"""Inputs of the benchmarks that need no data: a record of random wind, untrained networks of a recipe, and random inputs for them."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from wsdcast.data.grid import Grid
from wsdcast.data.steps import STEP
from wsdcast.data.store.analysis import Analysis
from wsdcast.data.store.states import PackedStates
from wsdcast.data.store.zarr_store import wind_packing
from wsdcast.nets.unet import UNet
from wsdcast.nets.weights import to_device
from wsdcast.runs import devices
from wsdcast.runs.errors import UserError
from wsdcast.warmstart.moments import MomentsModel
from wsdcast.weather.recipe import Recipe
from wsdcast.weather.trained import Trained, assembled


def record_of(recipe: Recipe, steps: int) -> Analysis:
    """Return a record of smooth random states on a recipe's grid. Eight states repeat. The last tenth is the test split.

    Static fields are zeros. All channels are packed as wind of 8 m/s, whatever the recipe's variables are.
    """
    grid, random = Grid.regular(recipe.data.grid), np.random.default_rng(0)
    channels = recipe.data.channels
    smooth = gaussian_filter(random.standard_normal((8, len(channels.all), *grid.shape)), (0, 0, 2, 2), mode="wrap")
    packing = wind_packing(len(channels.all))
    wind = packing.pack((8 * smooth / smooth.std()).astype(np.float32))[np.arange(steps) % 8]
    times = np.datetime64("2020-01-01", "ns") + STEP * np.arange(steps)
    zero, eight = np.zeros(len(channels.all), np.float32), np.full(len(channels.all), 8, np.float32)
    return Analysis(
        states=PackedStates(wind, packing),
        times=times,
        grid=grid,
        mean=zero,
        std=eight,
        difference_std=np.sqrt(2, dtype=np.float32) * eight,  # successive states are independent
        validation_from=times[-steps // 5],
        test_from=times[-steps // 10],
        static={str(name): np.zeros(grid.shape, np.float32) for name in recipe.forcings.static},
        variables=channels.state,
        forcing_variables=channels.forcings,
        past_states=recipe.forcings.past_states,
    )


def networks_of(recipe: Recipe, record: Analysis) -> Trained:
    """Return the networks of a recipe on the device, untrained. They take as long as trained ones.

    Raises:
        UserError: if the prior is a user's model, or there is no generator.
    """
    if recipe.generator.objective == "none":
        raise UserError("generator.objective none: the benchmarks are of a generator, and this recipe has none")
    return assembled(recipe, record, lambda network, _: to_device(network).eval())


def inputs_of(network: MomentsModel | UNet, batch: int, grid: Grid) -> tuple[Tensor, ...]:
    """Return random inputs of a network, on the device.

    The moments network takes a context. The generator takes the state with its context and moments, and its conditions. They have the
    layout in memory that they have in a rollout, because a compiler makes other kernels for another layout.
    """
    unet = network.network if isinstance(network, MomentsModel) else network
    assert isinstance(unet, UNet)
    (_, *of_sample), *conditions = unet.input_shapes(*grid.shape)
    x = torch.randn(batch, *of_sample, device=devices.device())
    noise = torch.randn(batch, unet.last.out_channels * grid.size, device=x.device)
    return x, *(x.new_full(shape, 0.5) if len(shape) == 1 else noise[:, : shape[1]] for shape in conditions)
