"""The two networks of the weather model, untrained, with the channels that they read and the sizes that a recipe gives."""

from __future__ import annotations

from typing import NamedTuple

from wsdcast.data.store.analysis import Analysis
from wsdcast.nets.unet import UNet, unet_of
from wsdcast.warmstart.crps import NOISE_NUMBERS
from wsdcast.warmstart.moments import MINIMUM_STD, MomentsModel
from wsdcast.weather.climate import minimum_std
from wsdcast.weather.forcings import ForcingFields
from wsdcast.weather.network_sections import Generator, Moments
from wsdcast.weather.noise_fields import FIELDS
from wsdcast.weather.objective_sections import KNOW_STEP, NoiseInput


class Sizes(NamedTuple):
    """What both networks are made for.

    Attributes:
        includes_poles: whether the grid has rows at the poles.
        forcings: channels of forcings.
        channels: channels of a state.
        past_states: number of states that the networks read in addition to the state now.
        minimum_std: lower bound of the predicted standard deviation of each channel, or of all, in normalised units.
    """

    includes_poles: bool
    forcings: int
    channels: int
    past_states: int
    minimum_std: tuple[float, ...] | float = MINIMUM_STD

    @property
    def context(self) -> int:
        """Channels of a context: the state now, the past states, and the forcings."""
        return (1 + self.past_states) * self.channels + self.forcings


def sizes_of(record: Analysis, forcings: ForcingFields) -> Sizes:
    """The sizes of the networks for a record and its forcings."""
    return Sizes(record.grid.includes_poles, forcings.channels, len(record.variables), record.past_states, minimum_std(record))


def moments_model(settings: Moments, sizes: Sizes) -> MomentsModel:
    """An untrained h_phi. Its mean is persistence of the state now."""
    body = unet_of(settings, sizes.context, settings.fields * sizes.channels, includes_poles=sizes.includes_poles)
    return MomentsModel(body, sizes.channels, settings.highest_std, settings.std, sizes.minimum_std)


def generator_model(settings: Generator, sizes: Sizes, *, few_steps: bool = False, noise: NoiseInput = "numbers") -> UNet:
    """An untrained p'_theta, conditioned on flow time and warmth.

    It reads the noisy state, the context, mean and std. With the objective ``crps`` it is conditioned on random numbers or reads random
    fields, as ``noise`` says, and reads no noisy state. If ``few_steps``, it is the second network of the objective, conditioned on the
    length of the step too if it must know it.
    """
    channels = sizes.channels
    features = sizes.context + 2 * channels
    if settings.objective == "crps":
        numbers, fields = (NOISE_NUMBERS, 0) if noise == "numbers" else (0, FIELDS)
        return unet_of(settings, features + fields, channels, includes_poles=sizes.includes_poles, noise=numbers)
    silent = int(few_steps and settings.objective in KNOW_STEP)
    outputs = settings.heads * channels
    return unet_of(settings, channels + features, outputs, scalars=2 + silent, silent=silent, includes_poles=sizes.includes_poles)
