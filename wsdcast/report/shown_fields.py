"""The fields that the report shows, one byte per value.

The page has a fixed size, so only as many initial times, lead times and points are chosen as fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.store.forecasts import QUANTILES
from wsdcast.report.maps import columns_of_map
from wsdcast.report.subjects import Subject
from wsdcast.runs.positions import evenly_spread
from wsdcast.runs.progress import track

Field = NDArray[np.floating]
ReadFields = Callable[[int], tuple[Field, Field]]

MAP_BYTES, PLUME_BYTES = 1_900_000, 450_000
"""Largest sizes of all maps and of all plumes in bytes. Written as text they take a third more. The plotting library takes 1.65 MB."""
MAP_OVERHEAD = 80
"""Bytes that a map takes in addition to its values."""
MAP_POINTS = 8192
"""Largest number of points of a map. More could not be seen on the page."""
MEMBERS = 3
"""Number of members that have a map of their own."""
PLUME = ("truth", *(f"q{100 * share:.0f}" for share in QUANTILES))
"""Names of the lines of a plume."""
NONE = 255
"""The byte that stands for a missing value. The others are multiples of a unit above a base, the smallest value; of speeds it is 0."""
MOST_SHARES = 4
"""Maps of several subjects together may take so many times the size of those of one, and no more."""


@dataclass(frozen=True)
class Chosen:
    """Positions of the initial times and lead times that are shown, of the rows and columns of maps, and of those of plumes."""

    starts: NDArray[np.intp]
    leads: NDArray[np.intp]
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    plume_rows: NDArray[np.intp]
    plume_columns: NDArray[np.intp]


@dataclass(frozen=True)
class Shown:
    """The values of a subject that are shown, NaN where they are not known.

    Attributes:
        maps: by name, (initial time and lead time, row, column): truth and mean; with several members also spread and member1 to member3.
        plumes: truth and quantiles of the members at each point, (time, row, column, series, lead), with the series of :data:`PLUME`.
    """

    maps: dict[str, Field]
    plumes: Field


def choose(starts: int, leads: int, grid: Grid, subjects: int, inside: NDArray[np.bool_] | None = None) -> Chosen:
    """Return the positions that fit in the page. All points lie within the bounds of those ``inside`` (latitude, longitude), if given.

    A map has a regular subset of at most about :data:`MAP_POINTS` points. If not all maps fit, initial times and lead times are left out
    such that there remain about four times as many lead times as initial times, if there are that many. Plumes are at a regular subset of
    points, as many as fit.
    """
    share = min(subjects, MOST_SHARES) / subjects
    all_rows, all_columns = _bounds(grid, inside)
    shape = all_rows.size, all_columns.size
    rows, columns = every(int(np.ceil(np.sqrt(shape[0] * shape[1] / MAP_POINTS))), shape)
    pairs = max(1, int(share * MAP_BYTES) // ((3 + MEMBERS) * (rows.size * columns.size + MAP_OVERHEAD)))
    kept_starts, kept_leads = starts, leads
    while kept_starts * kept_leads > pairs:
        if kept_leads > 4 * kept_starts or kept_starts == 1:
            kept_leads -= 1
        else:
            kept_starts -= 1
    chosen_leads = np.arange(leads)[::-1][:: -(-leads // kept_leads)][::-1]  # equally spaced, and the last one is among them
    chosen_starts = evenly_spread(starts, pairs // chosen_leads.size)
    points = int(share * PLUME_BYTES) // (len(PLUME) * chosen_starts.size * chosen_leads.size)
    stride = 1
    while np.prod([axis.size for axis in every(stride, shape)]) > points:
        stride += 1
    plume_rows, plume_columns = every(stride, shape)
    return Chosen(
        starts=chosen_starts,
        leads=chosen_leads,
        rows=all_rows[rows],
        columns=all_columns[columns],
        plume_rows=all_rows[plume_rows],
        plume_columns=all_columns[plume_columns],
    )


def _bounds(grid: Grid, inside: NDArray[np.bool_] | None) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows and columns, from west to east as maps show them, between which all points lie that are inside; default: all."""
    columns = columns_of_map(grid.longitude)
    if inside is None:
        return np.arange(grid.latitude.size), columns
    rows, used, number = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0)), columns.size
    gaps = np.diff(used, append=used[0] + number)
    if gaps.max() > 1:  # the region begins after the widest gap
        columns = (used[(gaps.argmax() + 1) % used.size] + np.arange(number - gaps.max() + 1)) % number
    return np.arange(rows[0], rows[-1] + 1), columns


def every(stride: int, shape: tuple[int, int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return every ``stride``-th row and column of a grid of this shape. The first and the last row are about equally far from its ends."""
    rows, columns = shape
    return np.arange((rows - 1) % stride // 2, rows, stride), np.arange(0, columns, stride)


def on_map(stride: int, shape: tuple[int, int], longitude: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return every ``stride``-th row and column of a grid with these longitudes, the columns from west to east as maps show them."""
    rows, columns = every(stride, shape)
    return rows, columns_of_map(longitude)[columns]


def read_shown(fields: ReadFields, chosen: Chosen, subjects: Sequence[Subject], names: Sequence[str]) -> list[Shown]:
    """Return the chosen values of each subject. One initial time is in memory at a time. Members that were stopped are left out.

    Args:
        fields: function from the position of an initial time to members (member, lead, channel, latitude, longitude) and truth (lead,
            channel, latitude, longitude); NaN where a member was stopped and where there is no truth.
        chosen: positions that are shown.
        subjects: what is shown.
        names: names of the channels of the fields.
    """
    maps: list[dict[str, list[Field]]] = [{} for _ in subjects]
    plumes = np.full((len(subjects), chosen.starts.size, *_plume_shape(chosen)), np.nan, dtype=np.float32)
    for number, start in enumerate(track(chosen.starts, "drawing maps", chosen.starts.size)):
        members, truth = fields(int(start))
        for subject, of_subject, plume in zip(subjects, maps, plumes[:, number], strict=True):
            for name, field in _of_start(members, truth, chosen, plume, partial(subject.of, names=names)):
                of_subject.setdefault(name, []).append(field.astype(np.float32))
        del members, truth  # frees their memory before the next initial time is read
    stacked = ({name: np.stack(field) for name, field in of_subject.items()} for of_subject in maps)
    return [Shown(*shown) for shown in zip(stacked, plumes, strict=True)]


def _plume_shape(chosen: Chosen) -> tuple[int, ...]:
    return chosen.plume_rows.size, chosen.plume_columns.size, len(PLUME), chosen.leads.size


def _of_start(members: Field, truth: Field, chosen: Chosen, plume: Field, shown_of: Callable[[Field], Field]) -> list[tuple[str, Field]]:
    """Return name and map of each field of one initial time, by lead time, and write its plumes into ``plume``."""
    complete = np.flatnonzero(without_gaps(members))
    map_points, plume_points = np.ix_(chosen.rows, chosen.columns), np.ix_(chosen.plume_rows, chosen.plume_columns)
    missing = np.full(truth.shape[-2:], np.nan)
    maps = []
    for number, lead in enumerate(chosen.leads):
        true, shown = shown_of(truth[lead]), shown_of(members[complete, lead])
        by_name = {"truth": true, "mean": shown.mean(axis=0) if complete.size else missing}
        if len(members) > 1:
            by_name["spread"] = shown.std(axis=0, ddof=1) if complete.size > 1 else missing
            by_name |= {
                f"member{member + 1}": shown[member] if member < complete.size else missing for member in range(min(MEMBERS, len(members)))
            }
        maps += [(name, field[map_points]) for name, field in by_name.items()]
        plume[..., 0, number] = true[plume_points]
        if complete.size:
            plume[..., 1:, number] = np.moveaxis(np.quantile(shown[:, plume_points[0], plume_points[1]], QUANTILES, axis=0), 0, -1)
    return maps


def without_gaps(members: Field) -> NDArray[np.bool_]:
    """Return which members (member, lead, channel, row, column) have no gap, (member,).

    Points at which no member ever has a value, as outside a region, are no gaps.
    """
    present = np.isfinite(members).all(axis=2)
    nowhere = ~np.any(present, axis=(0, 1))
    return np.asarray(np.all(present | nowhere, axis=(1, 2, 3)) & (not nowhere.all()))


def base_of(values: Field) -> float:
    """Return the smallest value, for values that do not begin at zero as speeds do; 0 if none is known."""
    finite = values[np.isfinite(values)]
    return float(finite.min()) if finite.size else 0.0


def byte_unit(values: Field, base: float = 0.0) -> float:
    """Return what one step of a byte stands for, such that the largest value is the largest byte below :data:`NONE`."""
    finite = values[np.isfinite(values)]
    return (float(finite.max(initial=base)) - base) / (NONE - 1) or 1.0


def byte_units(maps: dict[str, Field], base: float) -> dict[str, float]:
    """Return the unit of each map: one for all values, which begin at ``base``, another for the spread, which begins at 0."""
    unit = byte_unit(np.stack([field for name, field in maps.items() if name != "spread"]), base)
    return {name: byte_unit(field) if name == "spread" else unit for name, field in maps.items()}


def as_bytes(values: Field, unit: float, base: float) -> NDArray[np.uint8]:
    """Return values as multiples of a unit above a base, and :data:`NONE` where they are not known."""
    return np.where(np.isfinite(values), np.rint((np.nan_to_num(values, posinf=base, neginf=base) - base) / unit), NONE).astype(np.uint8)
