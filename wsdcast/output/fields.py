"""The members of a forecast of any origin, on the whole grid of its store or in a region of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.grid import circles_the_globe
from wsdcast.data.sources.conventions import as_slice
from wsdcast.data.sources.foreign_forecasts import Members, open_channels
from wsdcast.data.store.forecasts import LEADS_PER_CHUNK
from wsdcast.data.variables import DEFAULT
from wsdcast.runs.errors import UserError
from wsdcast.runs.resources import require_memory

Box = tuple[float, float, float, float]
"""West, south, east and north bound of a region, degrees."""

TOLERANCE = 1e-4
"""Degrees by which a grid point may lie outside the bounds of a region, because files round coordinates."""
COPIES = 4
"""About how many times the fields of one block are in memory: as read, as speed, sorted for quantiles."""


@dataclass(frozen=True)
class Fields(Members):
    """Forecasts on the grid of their store.

    Latitudes fall. Longitudes rise without a jump, so those of a region across Greenwich or the date line may be below 0 or above 180.

    Attributes:
        points_of_store: latitudes and longitudes of all points of the store.
    """

    points_of_store: tuple[NDArray[np.float64], NDArray[np.float64]]

    @property
    def numbers(self) -> NDArray[np.integer]:
        """Number of each member, (member,): that of the store if it is a whole number, else its position."""
        labels = self.channels["number"].values  # xarray counts positions if there is no coordinate
        return labels if np.issubdtype(labels.dtype, np.integer) else np.arange(labels.size)

    def require_memory(self, window: np.timedelta64 | None = None) -> None:
        """Raise a UserError unless memory can hold the lead times that are read together, and the speeds of a window."""
        speeds = 4 * self.members * self.latitude.size * self.longitude.size
        ends = np.arange(1, self.leads.size + 1)
        in_window = 0 if window is None else int((ends - np.searchsorted(self.leads, self.leads - window, side="right")).max())
        needed = (COPIES * len(self.variables) * min(LEADS_PER_CHUNK, self.leads.size) + in_window) * speeds
        require_memory(needed, f"{self.name}: {LEADS_PER_CHUNK} lead times of all members")


def open_fields(address: str, region: Box | None = None, variables: Sequence[str] = DEFAULT) -> Fields:
    """Open channels of a store of forecasts in any layout that ``wsdcast score`` reads, in a region or in all that the store covers.

    Raises:
        UserError: if the store cannot be read, or if no grid point lies in the region.
    """
    channels = open_channels(address, part=True, variables=variables)
    latitude, longitude = (channels[name].values for name in ("latitude", "longitude"))
    rows, columns, degrees = np.arange(latitude.size), *_without_jump(longitude)
    if region is not None:
        west, south, east, north = _checked(region)
        rows = rows[(latitude >= south - TOLERANCE) & (latitude <= north + TOLERANCE)]
        width = 360.0 if east - west >= 360 else (east - west) % 360
        first = west - 360 if west > 180 else west
        distance = (longitude - first + TOLERANCE) % 360 - TOLERANCE
        columns = np.argsort(distance, kind="stable")
        columns = columns[distance[columns] <= (width + TOLERANCE if width < 360 else 360 - 2 * TOLERANCE)]
        degrees = first + distance[columns]
        if not rows.size or not columns.size:
            raise UserError(
                f"--region {_in_words((west, south, east, north))}: no grid point of {address} lies in it; the store covers "
                f"latitudes {latitude[-1]:g} to {latitude[0]:g} and has {longitude.size} longitudes"
            )
    channels = channels.isel(latitude=as_slice(rows), longitude=as_slice(columns)).assign_coords(longitude=degrees.round(9))
    return Fields(str(address), channels, (latitude, longitude))


def _without_jump(longitude: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the order of rising longitudes in [0, 360) in which those of a region are neighbours, and the longitudes in this order.

    Those of a region begin in [-180, 180).
    """
    columns = np.arange(longitude.size)
    if circles_the_globe(longitude):
        return columns, longitude
    gaps = np.diff(longitude, append=longitude[0] + 360)
    columns = np.roll(columns, -int(gaps.argmax()) - 1)
    first = longitude[columns[0]]
    return columns, (longitude[columns] - first) % 360 + (first - 360 if first >= 180 else first)


def _checked(region: Box) -> Box:
    expected = "expected W,S,E,N in degrees, with latitudes from south to north within -90 and 90 and longitudes within -180 and 360"
    try:
        west, south, east, north = map(float, region)
    except (TypeError, ValueError):
        raise UserError(f"--region {region!r}: {expected}") from None
    inside = -180 <= west <= 360 and -180 <= east <= 360 and -90 <= south <= north <= 90
    if not inside:  # also if one is NaN
        raise UserError(f"--region {_in_words((west, south, east, north))}: {expected}")
    if east - west in (-360, 0):  # who means all longitudes would get one
        all_of_them = f"all longitudes are -180,{south:g},180,{north:g}"
        raise UserError(f"--region {_in_words((west, south, east, north))}: its west and east are one meridian; {all_of_them}")
    return west, south, east, north


def _in_words(region: Box) -> str:
    return ",".join(f"{bound:g}" for bound in region)
