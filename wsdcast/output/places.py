"""Places: read from a CSV file, and the forecast there, interpolated bilinearly from the grid."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsdcast.data.grid import bounds_in_words, circles_the_globe
from wsdcast.output.ensemble import Field
from wsdcast.runs.errors import UserError
from wsdcast.runs.inputs import file_given

Interpolation = Callable[[Field], Field]
"""From fields (..., latitude, longitude) to their values at places, (..., place), NaN next to a missing value."""

COLUMNS = ("name", "latitude", "longitude")
INTERPOLATION = "bilinear in u and v from the four grid points around each place; speed and direction from these"
OF_ANY = "bilinear from the four grid points around each place; wind speed and direction from u and v there"
"""The same for other variables, with or without wind."""
NEAR = 1e-6
"""Degrees by which a place may lie beyond the edge of a grid, because of rounding."""


@dataclass(frozen=True)
class Places:
    """Places on the globe.

    Attributes:
        name: (place,).
        latitude: degrees north, (place,).
        longitude: degrees east as the file has them, (place,).
    """

    name: tuple[str, ...]
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]


def read_places(path: str | Path) -> Places:
    """Read places from a CSV file with the columns name, latitude and longitude (degrees). Other columns are ignored.

    Raises:
        UserError: if the file cannot be read, lacks a column or a value, has no place or one name twice, or if a place is not on the globe.
    """
    path = file_given(path, "--at")
    try:
        table = read_cells(path)
    except (OSError, ValueError) as error:  # pandas' errors of parsing are ValueErrors too
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(f"--at {path}: cannot be read as CSV ({reason})") from None
    table.columns = [str(name).strip().lower() for name in table.columns]
    for column in COLUMNS:
        if (count := int((table.columns == column).sum())) != 1:
            number = f"{count} columns" if count else "no column"
            raise UserError(f"--at {path}: has {number} '{column}'; expected {', '.join(COLUMNS)}")
    if table.empty:
        raise UserError(f"--at {path}: has no place")
    names = table["name"].str.strip()
    latitude, longitude = (pd.to_numeric(table[name].str.strip(), errors="coerce").to_numpy(np.float64) for name in COLUMNS[1:])
    on_globe = (np.abs(latitude) <= 90) & (longitude >= -180) & (longitude <= 360)
    for wrong, reason in (
        (names == "", "has no name"),
        (~on_globe, "expected a latitude from -90 to 90 and a longitude from -180 to 360"),
        (names.duplicated(), "occurs twice"),
    ):
        if np.any(wrong):
            row = int(np.argmax(wrong))
            raise UserError(f"--at {path}: place {row + 1}, '{names[row]}' {table['latitude'][row]},{table['longitude'][row]}: {reason}")
    return Places(tuple(names), latitude, longitude)


def read_cells(path: Path) -> pd.DataFrame:
    """Return the cells of a CSV file as text. Commas at the ends of all rows do not matter. Columns keep their names, also equal ones.

    Raises:
        OSError, ValueError: if it cannot be read, if its cells are not separated by commas, or if rows have more cells than there are
            columns, as with decimal commas. By default pandas makes the first cells an index, so that the others are in the wrong columns.
    """
    how: Any = {"dtype": object, "encoding": "utf-8-sig", "skipinitialspace": True, "keep_default_na": False, "index_col": False}
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            with pd.read_csv(path, iterator=True, **how) as reader:  # a pipe can be read only once
                header = reader.read(0)
                if header.columns.size == 1 and re.search("[;\t]", str(header.columns[0])):
                    raise ValueError(f"expected commas between cells, and points in numbers, not '{header.columns[0]}'")
                table, names = next(reader, header), set(header.columns)
        except pd.errors.ParserWarning:
            raise ValueError("rows have more cells than there are columns") from None
        except UnicodeDecodeError:
            raise ValueError("its text is not UTF-8") from None
    # pandas calls the second column of a name NAME.1.
    return table.rename(columns=lambda name: stem if (stem := re.sub(r"\.\d+$", "", name)) in names else name)


def outside(latitude: NDArray[np.float64], longitude: NDArray[np.float64], places: Places) -> NDArray[np.bool_]:
    """Return which places lie outside a grid, (place,). Latitudes fall and longitudes rise.

    A grid round the whole circle reaches to a pole that is no more than a row away.
    """
    north, south = places.latitude > latitude[0] + NEAR, places.latitude < latitude[-1] - NEAR
    if not circles_the_globe(longitude):
        return north | south | (_eastward(longitude, places) > longitude[-1] - longitude[0] + NEAR)
    step = np.abs(np.diff(latitude)).max() if latitude.size > 1 else 0.0
    to_poles = 90 - np.abs(latitude[[0, -1]]) <= 1.01 * step
    return (north & ~to_poles[0]) | (south & ~to_poles[1])


def require_inside(latitude: NDArray[np.float64], longitude: NDArray[np.float64], places: Places, name: str) -> None:
    """Raise a UserError that names the first place outside a grid, if there is one. ``name`` is that of the forecasts."""
    beyond = outside(latitude, longitude, places)
    if beyond.any():
        first = int(np.argmax(beyond))
        where = f"{places.name[first]} ({places.latitude[first]:g},{places.longitude[first]:g})"
        raise UserError(f"--at: {where} lies outside {name}, which covers {bounds_in_words(latitude, longitude)}")


def interpolation(latitude: NDArray[np.float64], longitude: NDArray[np.float64], places: Places) -> Interpolation:
    """Return the bilinear interpolation from a grid to places. Values at places outside it are NaN.

    On a grid round the whole circle the last and the first column are neighbours. Between its last row and a pole the wind is that of this
    row. Latitudes fall and longitudes rise.
    """
    beyond = outside(latitude, longitude, places)
    offsets = longitude - longitude[0]
    rows, of_rows = _neighbours(-latitude, -places.latitude)
    columns, of_columns = _neighbours(np.append(offsets, 360.0) if circles_the_globe(longitude) else offsets, _eastward(longitude, places))
    columns = columns % longitude.size

    def at_places(fields: Field) -> Field:
        total = np.zeros((*fields.shape[:-2], len(places.name)))
        for row, row_weight in zip(rows, of_rows, strict=True):
            for column, column_weight in zip(columns, of_columns, strict=True):
                total += fields[..., row, column] * (row_weight * column_weight)
        return np.where(beyond, np.nan, total).astype(np.float32)

    return at_places


def _eastward(longitude: NDArray[np.float64], places: Places) -> NDArray[np.float64]:
    """Return how far east of the first longitude each place is, degrees, (place,)."""
    return (places.longitude - longitude[0] + NEAR) % 360 - NEAR


def _neighbours(axis: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the indices of the two points of a rising axis around each value, (2, value), and their weights. Beyond an end, the end.

    An index with weight 0 repeats the other, so that a missing value of weight 0 does not count.
    """
    if axis.size == 1:
        return np.zeros((2, values.size), dtype=np.intp), np.stack([np.ones(values.size), np.zeros(values.size)])
    right = np.clip(np.searchsorted(axis, values), 1, axis.size - 1)
    share = np.clip((values - axis[right - 1]) / (axis[right] - axis[right - 1]), 0, 1)
    left = np.where(share == 1, right, right - 1)
    return np.stack([left, np.where(share == 0, left, right)]), np.stack([1 - share, share])
