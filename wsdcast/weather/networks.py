"""The two networks of the weather model, untrained, with the channels that they read and the sizes that a recipe gives."""

from __future__ import annotations

from wsdcast.data.store.zarr_store import VARIABLES
from wsdcast.nets.unet import UNet, unet_of
from wsdcast.warmstart.moments import MomentsModel
from wsdcast.weather.recipe import Generator, Moments

CHANNELS = len(VARIABLES)
"""Channels of a state."""
CONTEXT = 2 * CHANNELS
"""Channels of wind in a context: the state now and the state 6 h before."""


def moments_model(network: Moments, includes_poles: bool, forcings: int = 0) -> MomentsModel:
    """An untrained h_phi that reads two states and ``forcings`` channels of forcings. Its mean is persistence of the state now."""
    body = unet_of(network, CONTEXT + forcings, network.fields * CHANNELS, 0, includes_poles)
    return MomentsModel(body, CHANNELS, maximum_std=network.highest_std, std=network.std)


def generator_model(network: Generator, includes_poles: bool, forcings: int = 0) -> UNet:
    """An untrained p'_theta, conditioned on flow time and warmth.

    It reads the noisy state, two states of context, ``forcings`` channels of forcings, mean and std.
    """
    channels = CHANNELS + CONTEXT + forcings + 2 * CHANNELS
    return unet_of(network, channels, network.heads * CHANNELS, 2, includes_poles)
