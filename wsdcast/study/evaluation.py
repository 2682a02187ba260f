"""Ensembles from many start dates at once, reduced to statistics as they are made."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.sources.blocks import STRONGEST_WIND
from wsdcast.data.store.analysis import Analysis
from wsdcast.data.store.zarr_store import VARIABLES
from wsdcast.runs import devices
from wsdcast.runs.progress import track
from wsdcast.sampling.batches import batch_size, in_batches
from wsdcast.sampling.samplers import Sampler
from wsdcast.verification.statistics import GLOBE, statistics
from wsdcast.weather.forecast.running import ensembles
from wsdcast.weather.priors import Trained

STUDIED = ("crps_fair", "crps_standard", "squared_error", "squared_error_debiased", "variance", "power", "power_truth")
"""Statistics that a study is made of."""


def evaluate(
    record: Analysis,
    networks: Trained,
    sampler: Sampler,
    starts: NDArray[np.intp],
    leads: tuple[int, ...],
    members: int,
    seed: int,
    label: str = "forecasting",
    batch: int | None = None,
    draws: int = 1,
) -> xr.Dataset:
    """Statistics of ensembles, (time, prediction_timedelta, variable[, wavenumber]).

    ``runaway`` is the share of members that have left the physical range by then: their wind was not finite, or stronger than any wind.
    From then on the statistics of that start are NaN.

    Args:
        record: truth and first states.
        networks: for what contexts have beside the wind.
        sampler: makes the next state.
        starts: indices of the record.
        leads: hours that are scored.
        members: of each ensemble.
        seed: of their noise.
        label: for the progress bar.
        batch: samples per call of the sampler; default: what suits the device.
        draws: noise fields of a sample.
    """
    points, steps = record.grid.latitude.size * record.grid.longitude.size, max(leads) // 6
    sampler = in_batches(sampler, batch or batch_size(points, devices.device()))
    states = ensembles(record, networks.forcings, sampler, starts, members, steps, seed, draws)
    parts: list[list[xr.Dataset]] = [[] for _ in starts]
    runaway = np.zeros((starts.size, members), dtype=bool)
    for lead, winds in enumerate(track(states, label, steps), start=1):
        # Written so that NaN counts: it is not below the bound.
        runaway |= ~(np.abs(winds).max(axis=(2, 3, 4)) <= STRONGEST_WIND)
        if 6 * lead not in leads:
            continue
        for part, start, wind, away in zip(parts, starts, winds, runaway, strict=True):
            # Infinite wind has no statistics; zeros give the shape.
            scored = np.zeros_like(wind) if away.any() else wind
            scores = statistics(scored[:, None], record.wind[start + lead][None], record.grid)[list(STUDIED)]
            scores = scores.sel(region=GLOBE, variable=list(VARIABLES), drop=True)
            if away.any():
                scores = xr.full_like(scores, np.nan)
            part.append(scores.assign(runaway=(("prediction_timedelta", "variable"), np.full((1, len(VARIABLES)), away.mean()))))
    hours = (np.array(leads) * np.timedelta64(1, "h")).astype("timedelta64[ns]")
    by_start = [xr.concat(part, dim="prediction_timedelta") for part in parts]
    return xr.concat(by_start, dim="time").assign_coords(time=record.times[starts], prediction_timedelta=hours)
