"""What maps, plumes and animations show of the variables: the speed of a wind, or a variable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.variables import DEFAULT, long_name, units_in_words
from wsdcast.data.winds import name_in_words, winds_of
from wsdcast.report.style import COMPONENTS, Look

Field = NDArray[np.floating]


class Subject(NamedTuple):
    """One of the things that are shown.

    Attributes:
        name: its name in scores: ``both`` of a wind, or the variable.
        channels: the variable, or both components of the wind.
        label: what is shown, in words.
        units: as they are shown.
        speed: name of the array of the wind speed in stores that have it; the name of the variable if it is no wind.
        vector: name of the wind vector in scores; the name of the variable if it is no wind.
    """

    name: str
    channels: tuple[str, ...]
    label: str
    units: str
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
    def short_label(self) -> str:
        """The label without the height or level of a wind, for axes."""
        return "wind speed" if self.is_wind else self.label

    def digits_of(self, unit: float) -> int:
        """Return the digits after the decimal point with which values that are multiples of a unit are shown."""
        return 1 if self.is_wind else int(np.clip(np.ceil(-np.log10(unit)), 0, 8))

    def of(self, fields: Field, names: Sequence[str]) -> Field:
        """Return what is shown, (..., latitude, longitude), of fields (..., channel, latitude, longitude) of channels with these names."""
        chosen = [fields[..., names.index(name), :, :] for name in self.channels]
        return np.hypot(*chosen) if self.is_wind else chosen[0]

    def in_dataset(self, dataset: xr.Dataset) -> Any:
        """Return what is shown of a data set with an array for each channel."""
        chosen = [dataset[name].values for name in self.channels]
        return np.hypot(*chosen) if self.is_wind else chosen[0]


def subjects_of(names: Sequence[str]) -> list[Subject]:
    """Return what can be shown of channels with these names: winds, that at 10 m first, then the other variables in order."""
    winds = winds_of(names)
    words = [name_in_words(wind.speed).replace("10 metre", "10 m") for wind in winds]
    of_winds = [
        Subject(wind.both, (wind.u, wind.v), label, "m/s", wind.speed, wind.vector) for wind, label in zip(winds, words, strict=True)
    ]
    components = {name for wind in winds for name in (wind.u, wind.v)}
    others = [name for name in names if name not in components]
    return of_winds + [Subject(name, (name,), long_name(name), units_in_words(name), name, name) for name in others]


def subject(names: Sequence[str], headline: str | None) -> Subject:
    """Return the subject that is the headline of a recipe, or has it as a component; the first one if there is none."""
    subjects = subjects_of(names)
    return next((each for each in subjects if headline in (each.name, each.speed, *each.channels)), subjects[0])


def components_of(of: Subject) -> dict[str, tuple[str, Look]]:
    """Return label and look of what is scored of a subject, by its name in scores: u, v and speed of a wind, or the variable."""
    if not of.is_wind:
        return {of.name: (of.label, COMPONENTS[0])}
    labels = zip((*of.channels, of.speed), ("u", "v", "wind speed"), COMPONENTS, strict=True)
    return {name: (label, look) for name, label, look in labels}


WIND = subject(DEFAULT, None)
"""The subject of a forecast of 10 m wind alone."""
