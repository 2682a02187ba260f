"""The two networks of the weather model, untrained, with the channels that they read and the sizes that a recipe gives."""

from __future__ import annotations

from wsdcast.data.store.analysis import Analysis
from wsdcast.data.variables import DEFAULT
from wsdcast.nets.unet import UNet, unet_of
from wsdcast.warmstart.crps import NOISE_NUMBERS
from wsdcast.warmstart.moments import MomentsModel
from wsdcast.weather.forcings import Surroundings
from wsdcast.weather.network_sections import Generator, Moments
from wsdcast.weather.noise_fields import FIELDS
from wsdcast.weather.objective_sections import KNOW_STEP, NoiseInput


def sizes_of(record: Analysis, forcings: Surroundings) -> tuple[bool, int, int, int]:
    """What both networks are made for: whether the grid has rows at the poles, channels of forcings and of a state, and past states."""
    return record.grid.includes_poles, forcings.channels, len(record.variables), record.past_states


def context_channels(forcings: int, channels: int = len(DEFAULT), past_states: int = 1) -> int:
    """Channels of a context: the state now, the past states, and the forcings."""
    return (1 + past_states) * channels + forcings


def moments_model(
    network: Moments, includes_poles: bool, forcings: int = 0, channels: int = len(DEFAULT), past_states: int = 1
) -> MomentsModel:
    """An untrained h_phi. Its mean is persistence of the state now.

    Args:
        network: its size.
        includes_poles: whether the grid has rows at the poles.
        forcings: channels of forcings that it reads in addition to states.
        channels: channels of a state.
        past_states: number of states that it reads in addition to the state now.
    """
    body = unet_of(network, context_channels(forcings, channels, past_states), network.fields * channels, 0, includes_poles)
    return MomentsModel(body, channels, maximum_std=network.highest_std, std=network.std)


def generator_model(
    network: Generator,
    includes_poles: bool,
    forcings: int = 0,
    channels: int = len(DEFAULT),
    past_states: int = 1,
    *,
    few_steps: bool = False,
    noise: NoiseInput = "numbers",
) -> UNet:
    """An untrained p'_theta, conditioned on flow time and warmth. The first arguments are those of :func:`moments_model`.

    It reads the noisy state, the context, mean and std. With the objective ``crps`` it is conditioned on random numbers or reads random
    fields, as ``noise`` says, and reads no noisy state. If ``few_steps``, it is the second network of the objective, conditioned on the
    length of the step too if it must know it.
    """
    features = context_channels(forcings, channels, past_states) + 2 * channels
    if network.objective == "crps":
        numbers, fields = (NOISE_NUMBERS, 0) if noise == "numbers" else (0, FIELDS)
        return unet_of(network, features + fields, channels, 0, includes_poles, noise=numbers)
    knows_step = few_steps and network.objective in KNOW_STEP
    return unet_of(network, channels + features, network.heads * channels, 2 + knows_step, includes_poles, silent=int(knows_step))
