"""What products are computed of: the variables of a forecast and the speeds of its winds, under the short names that products have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.variables import DEFAULT, short_name
from wsdcast.data.winds import array_attributes, winds_of

Field = NDArray[np.floating]

PRODUCTS = ("climate_probability", "probability", "mean", "spread", "quantile", "share")
"""Ends of the names of products. What stands before is the quantity."""


class Quantity(NamedTuple):
    """A variable or a wind speed.

    Attributes:
        name: its short name, with which the names of its products begin: ``u``, ``v`` and ``speed`` of the 10 m wind; of others as in
            NetCDF, such as ``t2m``, ``z_500``, ``u_250`` and ``speed_250``.
        variable: the channel, or the speed, such as ``wind_speed@250``.
        channels: the channel, or both components of the wind.
    """

    name: str
    variable: str
    channels: tuple[str, ...]

    def of(self, fields: Field, names: Sequence[str]) -> Field:
        """Return the values (member, *space) in fields (member, channel, *space) of channels with these names."""
        chosen = [fields[:, names.index(name)] for name in self.channels]
        return np.hypot(*chosen) if len(chosen) > 1 else chosen[0]

    @property
    def attributes(self) -> dict[str, Any]:
        """The CF attributes of its values."""
        return array_attributes(self.variable)


def quantities_of(names: Sequence[str]) -> list[Quantity]:
    """Return the quantities of channels with these names: u, v and speed of each wind, that at 10 m first, then the other variables."""
    quantities = []
    for wind in winds_of(names):
        u, v = short_name(wind.u), short_name(wind.v)
        short = ("u", "v", "speed") if (wind.u, wind.v) == DEFAULT else (u, v, u.replace("u", "speed", 1))
        channels = ((wind.u,), (wind.v,), (wind.u, wind.v))
        quantities += [Quantity(*each) for each in zip(short, (wind.u, wind.v, wind.speed), channels, strict=True)]
    components = {channel for quantity in quantities for channel in quantity.channels}
    return quantities + [Quantity(short_name(name), name, (name,)) for name in names if name not in components]


def split_product(name: str) -> tuple[str, str]:
    """Return the quantity and the product in the name of an array of products, as ``("z_500", "mean")``; the latter may be empty."""
    for product in PRODUCTS:
        if name.endswith(f"_{product}"):
            return name.removesuffix(f"_{product}"), product
    return name, ""
