"""The units in which pictures, and tables of places, show values. Stored data and scores keep the units of the data."""

from __future__ import annotations

from typing import Any, NamedTuple

from wsdcast.data.sources.units import Conversion, conversion

DISPLAYED = {"K": "degC", "Pa": "hPa", "m2 s-2": "gpm", "m": "mm", "kg kg-1": "g kg-1", "1": "%"}
"""For units of the data, those that forecasters read. Other units are shown as they are. A geopotential becomes a height."""


class Display(NamedTuple):
    """How values in some units of the data are shown.

    Attributes:
        units: of values that are shown, as UDUNITS spells them.
        difference_units: of differences and standard deviations. Those of temperatures are in K.
        stored: how shown values become stored ones.
    """

    units: str
    difference_units: str
    stored: Conversion

    def of(self, values: Any) -> Any:
        """Return values, an array or a column, in :attr:`units`."""
        return (values - self.stored.shift) / self.stored.factor

    def of_differences(self, values: Any) -> Any:
        """Return differences of values in :attr:`difference_units`."""
        return values / self.stored.factor


def display_of(units: str) -> Display:
    """Return how values are shown that have these units in the data."""
    if (shown := DISPLAYED.get(units)) is None:
        return Display(units, units, Conversion())
    return Display(shown, "K" if units == "K" else shown, conversion(shown, units, "a shown value"))
