"""What maps, plumes and animations show of the variables: the speed of a wind, or a variable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.variables import DEFAULT, channel_units_in_words, long_name, units_in_words, variable
from wsdcast.data.winds import name_in_words, winds_of
from wsdcast.report.display_units import Display, display_of

Field = NDArray[np.floating]


class Subject(NamedTuple):
    """One of the things that are shown.

    Attributes:
        name: its name in scores: ``both`` of a wind, or the variable.
        channels: the variable, or both components of the wind.
        label: its name in words.
        score_units: units of the data, which its scores have, in words.
        speed: name of the array of the wind speed in stores that have it; the name of the variable if it is no wind.
        vector: name of the wind vector in scores; the name of the variable if it is no wind.
    """

    name: str
    channels: tuple[str, ...]
    label: str
    score_units: str
    speed: str
    vector: str

    @property
    def digits(self) -> str:
        """Format of its scores: three digits after the point for wind, four significant digits for others, whose sizes differ."""
        return ".3f" if self.is_wind else ".4g"

    @property
    def is_wind(self) -> bool:
        """Whether it is a wind, of which the speed is shown."""
        return len(self.channels) == 2

    @property
    def from_zero(self) -> bool:
        """Whether axes of its values begin at zero: of a wind speed, and of what cannot be negative, such as precipitation."""
        return self.is_wind or variable(self.channels[0]).non_negative

    @property
    def display(self) -> Display:
        """How its values are shown."""
        return display_of(variable(self.channels[0]).units)

    @property
    def units(self) -> str:
        """Units of the values that are shown, in words."""
        return units_in_words(self.display.units)

    @property
    def spread_units(self) -> str:
        """Units of their standard deviation, in words."""
        return units_in_words(self.display.difference_units)

    @property
    def value_label(self) -> str:
        """The name in words of the values that are shown. Those of a geopotential are heights."""
        return self.label.replace("geopotential", "geopotential height")

    @property
    def short_label(self) -> str:
        """The same without the height or level of a wind, for axes."""
        return "wind speed" if self.is_wind else self.value_label

    def digits_of(self, unit: float) -> int:
        """Return the digits after the decimal point with which values that are multiples of a unit are shown."""
        return 1 if self.is_wind else int(np.clip(np.ceil(-np.log10(unit)), 0, 8))

    def value(self, channels: Sequence[Field]) -> Field:
        """Return the speed of both components of a wind, or the variable, in the units of the data."""
        return np.hypot(*channels) if self.is_wind else channels[0]

    def of(self, fields: Field, names: Sequence[str]) -> Field:
        """Return what is shown of fields (..., channel, latitude, longitude) of channels with these names.

        Returns:
            (..., latitude, longitude), in :attr:`units`.
        """
        return self.display.of(self.value([fields[..., names.index(name), :, :] for name in self.channels]))

    def in_dataset(self, dataset: xr.Dataset) -> Any:
        """Return what is shown of a data set with an array for each channel, in :attr:`units`."""
        return self.display.of(self.value([dataset[name].values for name in self.channels]))


def subjects_of(names: Sequence[str]) -> list[Subject]:
    """Return what can be shown of channels with these names: winds, that at 10 m first, then the other variables in order."""
    winds = winds_of(names)
    of_winds = [Subject(wind.both, (wind.u, wind.v), name_in_words(wind.speed), "m/s", wind.speed, wind.vector) for wind in winds]
    components = {name for wind in winds for name in (wind.u, wind.v)}
    others = [name for name in names if name not in components]
    return of_winds + [Subject(name, (name,), long_name(name), channel_units_in_words(name), name, name) for name in others]


def subject(names: Sequence[str], headline: str | None) -> Subject:
    """Return the subject that is the headline of a recipe, or has it as a component; the first one if there is none."""
    subjects = subjects_of(names)
    return next((each for each in subjects if headline in (each.name, each.speed, *each.channels)), subjects[0])


WIND = subject(DEFAULT, None)
"""The subject of a forecast of 10 m wind alone."""
