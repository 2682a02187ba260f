"""Estimates of the peak memory of scoring and of its report, from the sizes of grids and ensembles.

The factors were measured. tests/test_scoring_memory.py compares the estimates with the memory that is really used.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.sources.foreign_forecasts import StoredForecast
from wsdcast.data.variables import DEFAULT
from wsdcast.data.winds import winds_of
from wsdcast.runs.resources import require_memory
from wsdcast.verification.baselines import climate_of
from wsdcast.verification.bootstrap import DRAWS
from wsdcast.verification.kinetic_energy import truncation
from wsdcast.verification.metrics import scored_names
from wsdcast.verification.regions import REGIONS
from wsdcast.verification.scoring import LEADS_AT_ONCE, Sources, opened

CHUNKS_AT_ONCE = 10
"""Number of chunks that zarr decompresses at the same time."""


def require_memory_to_score(
    sources: Sources, times: NDArray[np.datetime64], leads: NDArray[np.timedelta64], streamed: int, members: int, workers: int | None
) -> None:
    """Check before anything is read that the scores and the report fit in memory.

    ``streamed`` is the number of forecasts that have been scored already, ``workers`` that of the processes of this machine that score in
    parallel.

    Raises:
        UserError: if they do not fit; the message says which step needs how much memory.
    """
    forecasts, truth = opened(sources)
    ensemble = f"{members} members at {truth.grid.name}"
    side_by_side = f", {workers} starts side by side," if workers else ""
    one_start = f"scoring {ensemble}, {min(LEADS_AT_ONCE, leads.size)} lead times at a time{side_by_side}"
    require_memory(scoring(sources, times, leads) * (workers or 1), one_start)
    count = len(forecasts) + streamed + 3  # three baselines
    statistics = f"the statistics of {times.size} initial times and {leads.size} lead times"
    require_memory(summing(count, members, times.size, leads.size, truth.grid, sources.variables), f"summing up {statistics}")
    if forecasts:
        require_memory(reporting(next(iter(forecasts.values()))), f"the report of {ensemble} and {leads.size} lead times")


def reading(forecast: StoredForecast, leads: int) -> float:
    """Return the peak bytes of reading a number of lead times of one initial time: the channels, all together, and chunks."""
    read_sizes = {"time": 1, "prediction_timedelta": leads}
    needed = 0.0
    count = len(forecast.variables)
    for array in forecast.channels.values():
        sizes = {str(dimension): read_sizes.get(str(dimension), size) for dimension, size in array.sizes.items()}
        chunks = {dimension: array.encoding.get("preferred_chunks", sizes).get(dimension, size) for dimension, size in sizes.items()}
        values, stored = math.prod(sizes.values()), np.dtype(array.encoding.get("dtype", array.dtype)).itemsize
        touched = math.prod(math.ceil(sizes[dimension] / chunk) for dimension, chunk in chunks.items())
        # Compressed and decompressed bytes. Those of the previous channel may not be freed yet.
        unpacked = min(count, 2) * 2.05 * min(touched, CHUNKS_AT_ONCE) * stored * math.prod(chunks.values())
        raw = 0 if array.encoding.get("dtype", array.dtype) == array.dtype else values * stored
        each = values * array.dtype.itemsize
        placed = 4 * count * (values + values // math.prod(array.shape[-2:]) * forecast.grid.size)
        needed = max(needed, 2 * count * each, count * each + raw + unpacked, placed if forecast.region else 0)
    return 1.03 * needed


def scoring(sources: Sources, times: NDArray[np.datetime64], leads: NDArray[np.timedelta64]) -> float:
    """Return the peak bytes of a process that runs both tasks of scoring (``score_start`` and ``score_climate``)."""
    forecasts, truth = opened(sources)
    points, together = truth.grid.size, min(LEADS_AT_ONCE, leads.size)
    valid = np.unique(times[:, None] + leads)
    states = climate_of(truth, valid)[1]
    field = 4 * len(sources.variables) * points
    past = field * max(np.unique(states[first : first + together]).size for first in range(0, valid.size, together))
    held, peak = 0.0, 3.0 * past
    for forecast in forecasts.values():
        peak = max(peak, held + past + reading(forecast, together))
        held += field * together * forecast.members
    climate, most = states.shape[-1], max((forecast.members for forecast in forecasts.values()), default=1)
    for members, fields in ((climate, field * together * climate), (most, held)):
        masked = field * together * members if sources.domain else 0
        peak = max(peak, past + fields + masked + _bytes_of_computing(members, truth.grid, sources.variables))
    return peak + held + 6 * field * together  # the previous lead times may not be freed yet


def _bytes_of_computing(members: int, grid: Grid, variables: tuple[str, ...]) -> float:
    """Return the bytes that computing statistics takes in addition to the fields. Most are needed for a single lead time at a time."""
    tables = 8 * grid.latitude.size * (truncation(grid) + 2) ** 2  # of Legendre functions: 6.2 while they are made, 0.6 afterwards
    names = len(scored_names(variables)) / 3  # the factors were measured for u, v and speed
    of_points = 4 * names * grid.size * max(8.1 * members + 95, 3.1 * members + 165)
    return max(6.2 * tables, 0.6 * tables + of_points)


def summing(forecasts: int, members: int, starts: int, leads: int, grid: Grid, variables: tuple[str, ...] = DEFAULT) -> float:
    """Return the bytes that the statistics of all initial times and the bootstrap samples of all lead times take."""
    names, winds = len(scored_names(variables)), len(winds_of(variables))
    of_regions = len(REGIONS) * names
    waves = of_regions * (grid.longitude.size // 2 + 1) // 3 + 6 * winds * (truncation(grid) + 1)
    each = 8 * (of_regions * (members + 1) + of_regions * 8 + waves + 18 * 33 + 24)
    return 3.2 * each * forecasts * starts * leads + 18 * 8 * DRAWS * forecasts * leads * (names + 2 * winds) * len(REGIONS)


def reporting(forecast: StoredForecast) -> float:
    """Return the peak bytes of making the report's maps. All lead times of one initial time are in memory.

    The previous initial time may not be freed yet, and counts too.
    """
    of_one, leads = 4 * len(forecast.variables) * forecast.grid.size, forecast.leads.size
    return reading(forecast, leads) + of_one * leads * (forecast.members + 4) + 5 * of_one * forecast.members
