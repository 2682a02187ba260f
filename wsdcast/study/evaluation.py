"""Statistics of ensembles from many initial times at once. The members are not stored."""

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
from wsdcast.verification.metrics import GLOBE, statistics
from wsdcast.weather.forecast.running import ensembles
from wsdcast.weather.priors import Trained

STUDIED = ("crps_fair", "crps_standard", "squared_error", "squared_error_debiased", "variance", "power", "power_truth")
"""The statistics that the scores of a study are computed from."""


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
    """Run ensembles and return their statistics, (time, prediction_timedelta, variable[, wavenumber]).

    ``runaway`` is the share of members that left the physical range at this lead time or before: their wind was not finite, or stronger
    than any real wind. Once a member has left it, the statistics of its initial time are NaN.

    Args:
        record: holds the truth and the states at the initial times.
        networks: provide the forcings.
        sampler: makes the next state.
        starts: indices of the initial times in the record.
        leads: lead times that are scored, hours.
        members: members of each ensemble.
        seed: seed of the members' noise.
        label: label of the progress bar.
        batch: samples per call of the sampler; default: the size that suits the device.
        draws: noise fields of a sample.
    """
    points, steps = record.grid.latitude.size * record.grid.longitude.size, max(leads) // 6
    sampler = in_batches(sampler, batch or batch_size(points, devices.device()))
    states = ensembles(record, networks.forcings, sampler, starts, members, steps, seed, draws)
    parts: list[list[xr.Dataset]] = [[] for _ in starts]
    runaway = np.zeros((starts.size, members), dtype=bool)
    for lead, winds in enumerate(track(states, label, steps), start=1):
        # The comparison is negated because NaN compares false: a member with NaN is a runaway too.
        runaway |= ~(np.abs(winds).max(axis=(2, 3, 4)) <= STRONGEST_WIND)
        if 6 * lead not in leads:
            continue
        for datasets, start, wind, away in zip(parts, starts, winds, runaway, strict=True):
            # Statistics of infinite wind cannot be computed. Those of zeros have the right shape, and NaN replaces them below.
            scored = np.zeros_like(wind) if away.any() else wind
            scores = statistics(scored[:, None], record.states[start + lead][None], record.grid)[list(STUDIED)]
            scores = scores.sel(region=GLOBE, variable=list(VARIABLES), drop=True)
            if away.any():
                scores = xr.full_like(scores, np.nan)
            datasets.append(scores.assign(runaway=(("prediction_timedelta", "variable"), np.full((1, len(VARIABLES)), away.mean()))))
    hours = (np.array(leads) * np.timedelta64(1, "h")).astype("timedelta64[ns]")
    ensembles_statistics = [xr.concat(datasets, dim="prediction_timedelta") for datasets in parts]
    return xr.concat(ensembles_statistics, dim="time").assign_coords(time=record.times[starts], prediction_timedelta=hours)
