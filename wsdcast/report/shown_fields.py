"""What of the forecasts goes into the report: as many starts, lead times and points as a fixed number of bytes holds, one byte a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.store.forecasts import QUANTILES
from wsdcast.report.maps import wind_speed
from wsdcast.runs.progress import track

Field = NDArray[np.floating]
Fields = Callable[[int], tuple[Field, Field]]

MAP_BYTES, PLUME_BYTES = 1_900_000, 450_000
"""What maps and plumes may take, before a third is added by writing bytes as text; the plotting library takes 1.65 MB of the page."""
EACH = 80
"""Bytes that a map costs beside its values."""
MAP_POINTS = 8192
"""That a map has at most; more are not seen on a page."""
MEMBERS = 3
"""With a map of their own."""
PLUME = ("truth", *(f"q{100 * share:.0f}" for share in QUANTILES))
NONE = 255
"""The byte of what is not known; others are multiples of a unit of speed."""


@dataclass(frozen=True)
class Chosen:
    """Positions of what is shown, of starts, of lead times, of rows and columns of maps and of the points with a plume."""

    starts: NDArray[np.intp]
    leads: NDArray[np.intp]
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    plume_rows: NDArray[np.intp]
    plume_columns: NDArray[np.intp]


@dataclass(frozen=True)
class Speeds:
    """Wind speed of what is shown, m s-1, NaN where not known.

    Attributes:
        maps: (start and lead, row, column) by name: truth, mean, and with several members spread and member1 to member3.
        plumes: the truth and the quantiles over members at each point, (start, row, column, series, lead), series as in :data:`PLUME`.
    """

    maps: dict[str, Field]
    plumes: Field


def choose(starts: int, leads: int, grid: Grid) -> Chosen:
    """What fits. A map has every so many points that there are no more of them than are seen. If not all starts and lead times fit, there
    are four lead times to a start, as far as there are. Plumes are at as many points as there is room for.

    Args:
        starts, leads: how many there are.
        grid: of the fields.
    """
    rows, columns = _every(int(np.ceil(np.sqrt(grid.latitude.size * grid.longitude.size / MAP_POINTS))), grid)
    pairs = MAP_BYTES // ((3 + MEMBERS) * (rows.size * columns.size + EACH))
    kept_starts, kept_leads = starts, leads
    while kept_starts * kept_leads > pairs:
        if kept_leads > 4 * kept_starts or kept_starts == 1:
            kept_leads -= 1
        else:
            kept_starts -= 1
    chosen_leads = np.arange(leads)[::-1][:: -(-leads // kept_leads)][::-1]  # equally far apart, to the last
    chosen_starts = np.linspace(0, starts - 1, min(starts, pairs // chosen_leads.size)).round().astype(int)
    points = PLUME_BYTES // (len(PLUME) * chosen_starts.size * chosen_leads.size)
    apart = 1
    while np.prod([axis.size for axis in _every(apart, grid)]) > points:
        apart += 1
    return Chosen(chosen_starts, chosen_leads, rows, columns, *_every(apart, grid))


def _every(stride: int, grid: Grid) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions of rows and columns so many apart, as far from the one pole as from the other."""
    rows, columns = grid.shape
    return np.arange((rows - 1) % stride // 2, rows, stride), np.arange(0, columns, stride)


def read_speeds(fields: Fields, chosen: Chosen) -> Speeds:
    """The chosen speeds, one start in memory at a time. Members that were stopped do not count.

    Args:
        fields: for each number of a start the members (member, lead, channel, latitude, longitude) and the truth (lead, channel, latitude,
            longitude), m s-1; NaN where a member was stopped and where there is no truth.
        chosen: which.
    """
    maps: dict[str, list[Field]] = {}
    plumes = np.full((chosen.starts.size, *_plume_shape(chosen)), np.nan, dtype=np.float32)
    for start, plume in zip(track(chosen.starts, "drawing maps", chosen.starts.size), plumes, strict=True):
        for name, field in _of_start(*fields(int(start)), chosen, plume):
            maps.setdefault(name, []).append(field.astype(np.float32))
    return Speeds({name: np.stack(field) for name, field in maps.items()}, plumes)


def _plume_shape(chosen: Chosen) -> tuple[int, ...]:
    return chosen.plume_rows.size, chosen.plume_columns.size, len(PLUME), chosen.leads.size


def _of_start(members: Field, truth: Field, chosen: Chosen, plume: Field) -> list[tuple[str, Field]]:
    """Names and maps of each lead time; fills the plumes."""
    alive = np.flatnonzero(_without_gaps(members))
    here, there = np.ix_(chosen.rows, chosen.columns), np.ix_(chosen.plume_rows, chosen.plume_columns)
    none = np.full(truth.shape[-2:], np.nan)
    maps = []
    for number, lead in enumerate(chosen.leads):
        true, speeds = wind_speed(truth[lead]), wind_speed(members[alive, lead])
        whole = {"truth": true, "mean": speeds.mean(axis=0) if alive.size else none}
        if len(members) > 1:
            whole["spread"] = speeds.std(axis=0, ddof=1) if alive.size > 1 else none
            whole |= {
                f"member{member + 1}": speeds[member] if member < alive.size else none for member in range(min(MEMBERS, len(members)))
            }
        maps += [(name, field[here]) for name, field in whole.items()]
        plume[..., 0, number] = true[there]
        if alive.size:
            plume[..., 1:, number] = np.moveaxis(np.quantile(speeds[:, there[0], there[1]], QUANTILES, axis=0), 0, -1)
    return maps


def _without_gaps(members: Field) -> NDArray[np.bool_]:
    """Which members have values at all points and lead times at which any of the points' values is there: outside of a region, none is."""
    there = np.isfinite(members).all(axis=2)
    nowhere = ~np.any(there, axis=(0, 1))
    return np.asarray(np.all(there | nowhere, axis=(1, 2, 3)) & (not nowhere.all()))


def unit_of(speeds: Field) -> float:
    """The speed of one step, so that the largest is the last that a byte holds."""
    finite = speeds[np.isfinite(speeds)]
    return float(finite.max(initial=0)) / (NONE - 1) or 1.0


def units_of(maps: dict[str, Field]) -> dict[str, float]:
    """The unit of each map: one for all speeds, another for the spread."""
    of_speed = unit_of(np.stack([field for name, field in maps.items() if name != "spread"]))
    return {name: unit_of(field) if name == "spread" else of_speed for name, field in maps.items()}


def as_bytes(speeds: Field, unit: float) -> NDArray[np.uint8]:
    """Speeds as multiples of a unit, :data:`NONE` where not known."""
    return np.where(np.isfinite(speeds), np.rint(np.nan_to_num(speeds, posinf=0, neginf=0) / unit), NONE).astype(np.uint8)
