"""Products of one forecast, a few lead times at a time, so that memory depends neither on the number of lead nor of initial times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.store.forecasts import LEADS_PER_CHUNK
from wsdcast.data.winds import array_attributes
from wsdcast.output.ensemble import CALM, SECTORS, Choice, Field, exceeding, products_of, speed_of, wind_in
from wsdcast.output.quantities import quantities_of, split_product
from wsdcast.verification.members import remaining

LEAD = "prediction_timedelta"
LEVELS = {"quantile": "quantile", "probability": "threshold", "climate_probability": "climate_quantile"}
"""The further dimension of a product whose name ends like this."""
COUNTS = ("members", "window_members")
"""Numbers of members, which have only the dimension of lead times."""


def blocks_of(
    read: Callable[[slice], Field], leads: NDArray[np.timedelta64], choice: Choice, space: tuple[str, ...]
) -> Iterator[tuple[int, xr.Dataset]]:
    """Yield the index of the first lead time and the products of :data:`LEADS_PER_CHUNK` lead times, of one initial time.

    The dimensions are (prediction_timedelta, level, *space); see :func:`wsdcast.output.ensemble.products_of`. With a window there are also
    probabilities of the maximum over the window that ends at a lead time (``window_probability``, ``window_climate_probability``), and the
    number of members that have values at all its lead times (``window_members``). They are NaN at lead times shorter than the window.

    Args:
        read: returns the members at some lead times, (member, lead, channel, *space), with the channels of ``choice.variables``.
    """
    recent: list[tuple[np.timedelta64, Field]] = []
    for first in range(0, leads.size, LEADS_PER_CHUNK):
        chunk = slice(first, min(first + LEADS_PER_CHUNK, leads.size))
        fields = read(chunk)
        parts = []
        for number, lead in enumerate(leads[chunk]):
            products = products_of(fields[:, number], choice)
            if choice.window is not None:
                # The memory of lead times that have left the window is freed before the next is added.
                recent = [(earlier, speed) for earlier, speed in recent if earlier > lead - choice.window]
                speed = speed_of(wind_in(fields[:, number], choice))
                speed[~remaining(fields[:, number])] = np.nan  # a member that lacks any variable is left out as a whole
                recent.append((lead, speed))
                products |= _of_window([speed for _, speed in recent], choice, ends=lead >= choice.window)
            parts.append(products)
        names = {name: (LEAD, *_level_of(name), *(() if name in COUNTS else space)) for name in parts[0]}
        yield first, xr.Dataset({name: (dimensions, np.stack([part[name] for part in parts])) for name, dimensions in names.items()})


def _level_of(name: str) -> tuple[str, ...]:
    product = split_product(name)[1]
    return (LEVELS[product],) if product in LEVELS else ()


def _of_window(speeds: list[Field], choice: Choice, ends: bool) -> dict[str, Field]:
    """Return the products of the maximum over a window, whose speeds are each (member, *space). NaN if no window ``ends`` here."""
    highest = np.maximum.reduce(speeds)  # NaN where a member lacks any of them
    kept = remaining(highest)
    count = int(kept.sum()) if ends else 0
    shares = exceeding(highest[kept] if count else np.full_like(highest[:1], np.nan), choice, "window")
    return {"window_members": np.asarray(count if ends else np.nan, dtype=np.float32), **shares}


def coordinates_of(choice: Choice) -> dict[str, Any]:
    """Return the coordinates of the levels, with their attributes."""
    begin = "Beaufort 6, 8 and 10 begin at 10.8, 17.2 and 24.5 m s-1 (WMO-No. 306, vol. I.1, part A, section E)"
    threshold = {"standard_name": "wind_speed", "long_name": "threshold of 10 m wind speed", "units": "m s-1", "comment": begin}
    levels = {"threshold": (choice.thresholds, threshold)} if choice.has_wind else {}
    levels["quantile"] = (choice.quantiles, {"long_name": "quantile of the members", "units": "1"})
    if choice.climate_quantiles:
        levels["climate_quantile"] = (choice.climate_quantiles, {"long_name": "quantile of the climatology", "units": "1"})
    return {name: (name, np.array(values, dtype=np.float64), attributes) for name, (values, attributes) in levels.items()}


def attributes_of(name: str, choice: Choice) -> dict[str, Any]:
    """Return the CF attributes of a product."""
    hours = 0 if choice.window is None else choice.window / np.timedelta64(1, "h")
    if name in COUNTS:
        span = f" at all lead times of the {hours:g} h that end here" if name == "window_members" else ""
        return {"long_name": f"number of members with values{span}", "units": "1"}
    if name == "climate_threshold":
        return {"standard_name": "wind_speed", "long_name": "10 m wind speed at quantiles of a climatology", "units": "m s-1"}
    if name == "direction":
        text = f"direction from which the 10 m wind of most members comes, centre of one of {SECTORS} sectors; calm below {CALM} m s-1"
        return {"standard_name": "wind_from_direction", "long_name": text, "units": "degree", "cell_methods": "realization: mode"}
    if name == "direction_mean":
        text = f"direction from which the mean 10 m wind of the members comes; calm below {CALM} m s-1"
        return {"standard_name": "wind_from_direction", "long_name": text, "units": "degree"}
    if name == "direction_share":
        text = "share of all members whose wind comes from the sector of direction"
        return {"long_name": text, "units": "1", "cell_methods": "realization: mean"}
    subject, product = split_product(name)
    if product in ("probability", "climate_probability"):
        level = "threshold" if product == "probability" else "a quantile of the climatology"
        maximum = f"the maximum of 10 m wind speed over the {hours:g} h that end here" if subject == "window" else "10 m wind speed"
        over = "time: maximum (comment: of the stored lead times) " if subject == "window" else ""
        text = f"probability that {maximum} exceeds {level}"
        return {"long_name": text, "units": "1", "cell_methods": f"{over}realization: mean (comment: share of the members)"}
    own = array_attributes(quantities_of(choice.variables)[subject].speed)
    methods = {"mean": "realization: mean", "spread": "realization: standard_deviation"}
    words = {"mean": "mean", "spread": "standard deviation", "quantile": "quantiles"}[product]
    attributes = own | {"long_name": f"{words} of {own['long_name']} over the members"}
    return attributes | ({"cell_methods": methods[product]} if product in methods else {})
