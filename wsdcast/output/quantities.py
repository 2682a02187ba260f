"""What products are computed of: the variables of a forecast and the speeds of its winds, under the short names that products have."""

from __future__ import annotations

from collections.abc import Sequence

from wsdcast.data.variables import short_name
from wsdcast.report.subjects import WIND, Subject, subjects_of

PRODUCTS = ("climate_probability", "probability", "mean", "spread", "quantile", "share")
"""Ends of the names of products. What stands before is the quantity."""


def quantities_of(names: Sequence[str]) -> dict[str, Subject]:
    """Return the quantities of channels with these names: u, v and speed of each wind, that at 10 m first, then the other variables.

    Their short names, with which the names of their products begin, are ``u``, ``v`` and ``speed`` of the 10 m wind; those of others are as
    in NetCDF, such as ``t2m``, ``z_500``, ``u_250`` and ``speed_250``.
    """
    quantities: dict[str, Subject] = {}
    for subject in subjects_of(names):
        if subject.is_wind:
            u, v = map(short_name, subject.channels)
            short = ("u", "v", "speed") if subject == WIND else (u, v, u.replace("u", "speed", 1))
            components = (subjects_of([channel])[0] for channel in subject.channels)
            quantities |= dict(zip(short, (*components, subject), strict=True))
        else:
            quantities[short_name(subject.name)] = subject
    return quantities


def split_product(name: str) -> tuple[str, str]:
    """Return the quantity and the product in the name of an array of products, as ``("z_500", "mean")``; the latter may be empty."""
    for product in PRODUCTS:
        if name.endswith(f"_{product}"):
            return name.removesuffix(f"_{product}"), product
    return name, ""
