"""Reads blocks of wind from files and stores, and refuses values that cannot be wind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.sources.file_lock import file_lock
from wsdcast.data.sources.layout import values_of, wind_of
from wsdcast.data.sources.opening import Address, first_line, open_dataset
from wsdcast.runs.errors import UserError
from wsdcast.runs.progress import note

STRONGEST_WIND = 120.0
"""In m/s. The strongest gust ever measured was 113 m/s, so stronger wind is an error of units or of packing."""


@dataclass(frozen=True)
class Reading:
    """The part of a block that one piece has of one component.

    Attributes:
        component: u or v.
        address: of the piece.
        state: of the piece when the record was opened, as for :func:`cached_wind`.
        indices: positions in the piece of the times that are read, increasing, (time,).
        places: position of each of these times in the block, counted from its first time, (time,).
    """

    component: str
    address: Address
    state: str
    indices: NDArray[np.intp]
    places: NDArray[np.intp]


@dataclass(frozen=True)
class Block:
    """Consecutive times of the record, ``first`` to ``last`` exclusive, that are read together."""

    first: int
    last: int
    readings: tuple[Reading, ...]


def read_block(block: Block) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield each component (u or v) and its values (time, latitude, longitude) in m/s, from north to south and from 0 eastward.

    Raises:
        UserError: if values cannot be read, are missing, or cannot be wind. The message names the file, the component and the time.
    """
    for component in sorted({reading.component for reading in block.readings}):
        readings = [reading for reading in block.readings if reading.component == component]
        parts = [_read(reading) for reading in readings]
        if len(parts) == 1 and np.all(np.diff(readings[0].places) == 1):
            yield component, parts[0]
            continue
        values = np.empty((block.last - block.first, *parts[0].shape[1:]), dtype=np.float32)
        for reading, part in zip(readings, parts, strict=True):
            values[reading.places] = part
        yield component, values


def _read(reading: Reading) -> NDArray[np.float32]:
    with file_lock(reading.address):
        wind = cached_wind(reading.address, reading.state)[reading.component]
        try:
            values = values_of(wind, reading.indices)
        except MemoryError:
            raise
        except Exception as error:  # formats and servers cause errors of many types
            first = label(wind["time"].values[reading.indices[0]])
            where = f"{reading.address}: 10 m wind {reading.component} from {first} on"
            raise UserError(f"{where} cannot be read ({first_line(error)})") from None
    _check(values, reading, wind)
    return values


def _check(values: NDArray[np.float32], reading: Reading, wind: xr.DataArray) -> None:
    least, most = values.min(axis=(1, 2)), values.max(axis=(1, 2))
    for bad, problem in (
        (~np.isfinite(least) | ~np.isfinite(most), "missing or infinite values"),
        (np.maximum(-least, most) > STRONGEST_WIND, "absurd values"),
        (least == most, "the same value everywhere"),  # a store returns its fill value for an absent chunk
    ):
        if bad.any():
            step = int(np.argmax(bad))
            time = wind["time"].values[reading.indices][step]
            raise UserError(
                f"{reading.address}: {problem} ({least[step]:g} to {most[step]:g} m/s) in 10 m wind {reading.component} at {label(time)}"
                + (f" and {bad.sum() - 1} more of the {bad.size} steps read with it" if bad.sum() > 1 else "")
                + f"; --skip {label(time)} leaves that time out"
            )
    if odd := repeated_extreme(values):
        _note_once(reading.address, reading.component, *odd)


DISTANCE_OF_FILL_VALUES = 0.2
"""An extreme is noted if it is farther from all other values than this share of their range. Extremes of real wind are closer."""


def repeated_extreme(values: NDArray[np.float32]) -> tuple[float, int] | None:
    """Return an extreme that occurs more than once, far from all other values, and how often; None if there is none.

    Such a value may be a fill value that the file does not declare.
    """
    for extreme in (values.min(), values.max()):
        others = values != extreme
        count = values.size - int(np.count_nonzero(others))
        if 1 < count < values.size / 2:
            least, most = (float(reduced(where=others, initial=start)) for reduced, start in ((values.min, np.inf), (values.max, -np.inf)))
            if max(least - extreme, extreme - most) > DISTANCE_OF_FILL_VALUES * (most - least):
                return float(extreme), count
    return None


@lru_cache(maxsize=1024)
def _note_once(address: Address, component: str, value: float, count: int) -> None:
    where = f"{address}: {count} points of 10 m wind {component}, read together, have {value:g} m/s, far from all others"
    note(f"{where}: perhaps a fill value that is not declared")


def close_all() -> None:
    """Close the files that :func:`read_block` keeps open. Otherwise a file that is changed in place would not be noticed."""
    cached_wind.cache_clear()


@lru_cache(maxsize=64)
def cached_wind(address: Address, state: str) -> xr.Dataset:
    """Return the lazy wind of one piece (:func:`wind_of`). It stays open, because a store is read in many blocks.

    Args:
        address: of the piece.
        state: of the file when the record was opened (:func:`wsdcast.data.sources.opening.state_of`). A file that changed is opened anew.
    """
    return wind_of(open_dataset(address))


def label(time: np.datetime64) -> str:
    """Return a time as text, to the minute."""
    return str(time.astype("datetime64[m]"))
