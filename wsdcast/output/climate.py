"""Wind speeds at quantiles of a climatology, at each grid point or place: what is rare there."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.steps import time_text
from wsdcast.data.store.analysis import open_analysis
from wsdcast.output.ensemble import Field, speed_of
from wsdcast.output.fields import Fields
from wsdcast.runs.errors import UserError
from wsdcast.runs.progress import track
from wsdcast.verification.truth import Truth, open_truth, truth_of, truth_on_grid

STATES_AT_ONCE = 64
"""Number of states that are read together."""
BYTES = 1e9
"""Most wind speeds that are in memory at the same time, in bytes. If the climatology has more, it is read several times."""


def open_climatology(source: str, first: np.datetime64, scratch: Path) -> Truth:
    """Open the states of a climatology: the training split of a prepared store, or the times before ``first`` of any other source.

    ``first`` is the first initial time of the forecasts.

    Raises:
        UserError: if the source cannot be read, or has no such states.
    """
    climatology = truth_of(open_analysis(Path(source), whole=False)) if _is_prepared(Path(source)) else open_truth(source, scratch, first)
    if not climatology.past.size:
        raise UserError(f"--climatology {source}: has no state before the first initial time, {time_text(first)}")
    return climatology


def _is_prepared(path: Path) -> bool:
    try:
        return "validation_from" in json.loads((path / "zarr.json").read_text())["attributes"]
    except (OSError, ValueError, KeyError):
        return False


def thresholds_on_grid(climatology: Truth, quantiles: tuple[float, ...], fields: Fields) -> NDArray[np.float32]:
    """Return wind speeds at quantiles of a climatology at the grid points of forecasts, (quantile, latitude, longitude), m s-1.

    Raises:
        UserError: if the grid of the climatology is another, and not finer.
    """
    grid = climatology.grid
    if grid.region_of(*fields.points_of_store) is None:
        with suppress(UserError):
            climatology = truth_on_grid(climatology, Grid.around(*fields.points_of_store))
    if climatology.grid.region_of(*fields.points_of_store) is None:
        other = "another that is not a coarser one of equal steps; bring one to the other's"
        raise UserError(f"--climatology: is on a grid of {grid.name}, and {fields.name} on {other}")
    rows, columns = climatology.grid.nearest(fields.latitude, fields.longitude)
    rows_at_once = max(1, int(BYTES / (4 * climatology.past.size * columns.size)))
    parts = []
    for first in range(0, rows.size, rows_at_once):
        index = (..., rows[first : first + rows_at_once, None], columns)
        parts.append(quantiles_over_time(climatology, quantiles, itemgetter(index)))
    return np.concatenate(parts, axis=1)


def quantiles_over_time(climatology: Truth, quantiles: tuple[float, ...], pick: Callable[[Field], Field]) -> NDArray[np.float32]:
    """Return the quantiles of wind speed over all states of a climatology, (quantile, *space), m s-1.

    States without any value are left out. A point that misses a value in another state has NaN.

    Args:
        climatology: states.
        quantiles: in [0, 1].
        pick: from wind (state, channel, latitude, longitude) on the grid of the climatology to (state, channel, *space).

    Raises:
        UserError: if no state has a value.
    """
    past = climatology.past
    parts = []
    for first in track(range(0, past.size, STATES_AT_ONCE), "climatology", -(-past.size // STATES_AT_ONCE)):
        speed = speed_of(pick(climatology.read(past[first : first + STATES_AT_ONCE])))
        parts.append(speed[np.isfinite(speed).any(axis=tuple(range(1, speed.ndim)))])
    speeds = np.concatenate(parts)
    if not len(speeds):
        raise UserError("--climatology: has no wind at the points of the forecasts")
    return np.quantile(speeds, quantiles, axis=0).astype(np.float32)
