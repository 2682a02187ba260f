"""The two networks of the weather model, untrained, with the channels that they read and the sizes that a recipe gives."""

from __future__ import annotations

from wsdcast.data.store.zarr_store import VARIABLES
from wsdcast.nets.unet import UNet, unet_of
from wsdcast.warmstart.crps import NOISE_NUMBERS
from wsdcast.warmstart.moments import MomentsModel
from wsdcast.weather.network_sections import Generator, Moments
from wsdcast.weather.objective_sections import KNOW_STEP

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

    It reads the noisy state, two states of context, ``forcings`` channels of forcings, mean and std. With the objective ``crps`` it is
    conditioned on random numbers, and reads no noisy state.
    """
    features = CONTEXT + forcings + 2 * CHANNELS
    if network.objective == "crps":
        return unet_of(network, features, CHANNELS, 0, includes_poles, noise=NOISE_NUMBERS)
    return unet_of(network, CHANNELS + features, network.heads * CHANNELS, 2, includes_poles)


def few_steps_model(network: Generator, includes_poles: bool, forcings: int = 0) -> UNet:
    """An untrained network of few evaluations: p'_theta, conditioned on the length of the step too if the objective needs it."""
    knows_step = network.objective in KNOW_STEP
    inputs = CHANNELS + CONTEXT + forcings + 2 * CHANNELS
    return unet_of(network, inputs, network.heads * CHANNELS, 2 + knows_step, includes_poles, silent=int(knows_step))
