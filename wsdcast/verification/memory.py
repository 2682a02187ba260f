"""How much memory scoring and its report take at their peaks, from sizes alone; the factors were measured, and tests/test_scoring_memory.py
holds them against what is really taken.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.sources.ensembles import StoredForecast
from wsdcast.data.store.zarr_store import VARIABLES
from wsdcast.verification.bootstrap import DRAWS
from wsdcast.verification.kinetic_energy import truncation
from wsdcast.verification.regions import REGIONS
from wsdcast.verification.scoring import LEADS_AT_ONCE, Sources, climate_of, opened

CHUNKS_AT_ONCE = 10
"""That zarr unpacks side by side."""


def needs(
    sources: Sources, times: NDArray[np.datetime64], leads: NDArray[np.timedelta64], streamed: int, members: int, workers: int | None
) -> list[tuple[float, str]]:
    """Bytes that scores and report need at their peaks, and what needs them.

    Args:
        sources: of what is scored here.
        times, leads: of all of them.
        streamed: how many forecasts have statistics already.
        members: of each forecast.
        workers: processes of this machine that score side by side; None for one.
    """
    forecasts, truth = opened(sources)
    ensemble = f"{members} members at {truth.grid.name}"
    side_by_side = f", {workers} starts side by side," if workers else ""
    together = f"scoring {ensemble}, {min(LEADS_AT_ONCE, leads.size)} lead times at a time{side_by_side}"
    statistics = summing(len(forecasts) + streamed + 3, members, times.size, leads.size, truth.grid)  # three baselines
    return [
        (scoring(sources, times, leads) * (workers or 1), together),
        (statistics, f"summing up the statistics of {times.size} starts and {leads.size} lead times"),
        *((reporting(forecast), f"the report of {ensemble} and {leads.size} lead times") for forecast in list(forecasts.values())[:1]),
    ]


def reading(forecast: StoredForecast, leads: int) -> float:
    """Bytes at the peak of reading so many lead times of one start: the components and both together, or the chunks that they are in."""
    wanted = {"time": 1, "prediction_timedelta": leads}
    needed = 0.0
    for name in VARIABLES:
        array = forecast.wind[name]
        sizes = {str(dimension): wanted.get(str(dimension), size) for dimension, size in array.sizes.items()}
        chunks = {dimension: array.encoding.get("preferred_chunks", sizes).get(dimension, size) for dimension, size in sizes.items()}
        values, stored = math.prod(sizes.values()), np.dtype(array.encoding.get("dtype", array.dtype)).itemsize
        touched = math.prod(math.ceil(sizes[dimension] / chunk) for dimension, chunk in chunks.items())
        unpacked = 3.1 * min(touched, CHUNKS_AT_ONCE) * stored * math.prod(chunks.values())  # packed, unpacked and on the way between
        raw = 0 if array.encoding.get("dtype", array.dtype) == array.dtype else values * stored
        each = values * array.dtype.itemsize
        placed = 8 * (values + math.prod(sizes[name] for name in list(sizes)[:3]) * math.prod(forecast.grid.shape))
        needed = max(needed, 4 * each, 2 * each + raw + unpacked, placed if forecast.place else 0)
    return 1.03 * needed


def scoring(sources: Sources, times: NDArray[np.datetime64], leads: NDArray[np.timedelta64]) -> float:
    """Bytes at the peak of scoring one start (:func:`wsdcast.verification.scoring.score_start`)."""
    forecasts, truth = opened(sources)
    points, together = math.prod(truth.grid.shape), min(LEADS_AT_ONCE, leads.size)
    states = climate_of(truth, times[:1, None] + leads[:together])[1]
    field = 8 * points  # u and v
    climate, past = field * together * states.shape[-1], field * np.unique(states).size
    held, most = 0.0, 0.0
    for forecast in forecasts.values():
        most = max(most, held + past + reading(forecast, together))
        held += field * together * forecast.members
    members = max([states.shape[-1], *(forecast.members for forecast in forecasts.values())])
    masked = field * together * members if sources.domain else 0
    most = max(most, held + 3 * past, held + past + climate + masked + _statistics(members, truth.grid))
    return most + held + 6 * field * together  # what was read before may not be freed yet


def _statistics(members: int, grid: Grid) -> float:
    """Bytes that the statistics of some lead times take beside the fields; most are for one lead time after another."""
    tables = 8 * grid.latitude.size * (truncation(grid) + 2) ** 2  # of Legendre functions: six to make what half a one is left of
    of_points = 4 * math.prod(grid.shape) * max(15.5 * members + 110, 5.5 * members + 160)
    return max(6.2 * tables, 0.6 * tables + of_points)


def summing(forecasts: int, members: int, starts: int, leads: int, grid: Grid) -> float:
    """Bytes that the statistics of all starts take, and the bootstrap samples of all lead times at the end."""
    waves = 18 * (grid.longitude.size // 2 + 1) // 3 + 6 * (truncation(grid) + 1)
    each = 8 * (18 * (members + 1) + 18 * 8 + waves + 18 * 33 + 24)
    return 3.2 * each * forecasts * starts * leads + 18 * 8 * DRAWS * forecasts * leads * 5 * len(REGIONS)


def reporting(forecast: StoredForecast) -> float:
    """Bytes at the peak of making the report's maps: all lead times of one start, and of the one before, which may not be freed yet."""
    of_one, leads = 8 * math.prod(forecast.grid.shape), forecast.leads.size
    return reading(forecast, leads) + of_one * leads * (forecast.members + 4) + 5 * of_one * forecast.members
