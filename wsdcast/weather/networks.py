"""The two networks of the weather model: how a recipe shapes them, what they read, how they are kept."""

from __future__ import annotations

from torch import nn

from wsdcast.data.store.zarr_store import VARIABLES
from wsdcast.nets.unet import UNet, unet_of
from wsdcast.warmstart.moments import MomentsModel
from wsdcast.weather.recipe import Generator, Moments

CHANNELS = len(VARIABLES)
CONTEXT = 2 * CHANNELS


def moments_model(network: Moments, includes_poles: bool, beside: int = 0) -> MomentsModel:
    """An untrained h_phi, with ``beside`` channels beside the wind; its mean is persistence of the state now."""
    outputs = (2 + network.rank) * CHANNELS
    body = unet_of(network, CONTEXT + beside, outputs, 0, includes_poles)
    if network.rank:
        # The likelihood is stationary where all patterns of correlation are zero.
        nn.init.normal_(body.last.weight[2 * CHANNELS :], std=0.05)
    return MomentsModel(body, CHANNELS, rank=network.rank, maximum_std=network.highest_std)


def generator_model(network: Generator, includes_poles: bool, beside: int = 0, rank: int = 0) -> UNet:
    """An untrained p'_theta, with ``beside`` channels beside the wind, conditioned on flow time and warmth.

    ``rank`` is how many patterns of correlation it is told of.
    """
    channels = CHANNELS + CONTEXT + beside + (2 + rank) * CHANNELS
    return unet_of(network, channels, CHANNELS, 2, includes_poles)
