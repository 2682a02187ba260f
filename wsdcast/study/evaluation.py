"""Statistics of ensembles from many initial times at once. The members are not stored."""

from __future__ import annotations

from functools import partial

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.store.analysis import Analysis
from wsdcast.data.winds import winds_of
from wsdcast.runs import devices
from wsdcast.runs.errors import UserError
from wsdcast.runs.progress import track
from wsdcast.sampling.batches import batch_size, in_batches
from wsdcast.sampling.samplers import Sampler
from wsdcast.verification.metrics import GLOBE
from wsdcast.verification.scoring import statistics_of
from wsdcast.weather.forecast.running import ensembles, groups
from wsdcast.weather.forecast.writing import allowed_ranges, clip, left_range
from wsdcast.weather.trained import Trained

OF_POINTS = ("crps_fair", "crps_standard", "squared_error", "squared_error_debiased", "variance", "rank_histogram", "variogram_score")
SPECTRA = ("power", "power_truth")
OF_WIND = ("energy_score", "kinetic_energy", "kinetic_energy_truth")
STUDIED = (*OF_POINTS, *SPECTRA, *OF_WIND)
"""The statistics that the scores of a study are computed from; the last ones are there only if the headline is a wind."""


def evaluate(
    record: Analysis,
    networks: Trained,
    sampler: Sampler,
    starts: NDArray[np.intp],
    leads: tuple[int, ...],
    *,
    members: int,
    seed: int,
    label: str = "forecasting",
    batch: int | None = None,
    noise_count: int = 1,
    prescribed: bool = False,
    headline: str | None = None,
) -> xr.Dataset:
    """Run ensembles and return their statistics (:data:`STUDIED`) over the globe, by time, prediction_timedelta and variable.

    The initial times are run in groups (:func:`wsdcast.weather.forecast.running.groups`), so memory does not grow with their number. On a
    CPU the bits do not depend on the groups.

    Spectra have the further dimension ``wavenumber`` or ``degree``, rank histograms ``rank``, variogram scores ``lag``. What belongs to
    both components of a wind has no ``variable``. The variables are those of the headline: both components of a wind, or one variable.

    ``runaway`` is the share of members that left the physical range of any variable at this lead time or before. Once a member has left it,
    the statistics of its initial time are NaN. Arguments without a description are those of
    :func:`wsdcast.weather.forecast.running.ensembles`.

    Args:
        leads: lead times that are scored, hours.
        label: label of the progress bar.
        batch: samples per call of the sampler; default: the size that suits the device.
        headline: the recipe's ``score.headline``.
    """
    points, steps = record.grid.size, max(leads) // 6
    batch = batch or batch_size(points, devices.device())
    sampler = in_batches(sampler, batch)
    variables = studied_variables(record.variables, headline)
    channels, ranges = [record.variables.index(name) for name in variables], allowed_ranges(record.variables)
    parts: list[list[xr.Dataset]] = [[] for _ in starts]
    runaway = np.zeros((starts.size, members), dtype=bool)
    all_groups = groups(np.arange(starts.size), members, batch, devices.device())
    run = partial(
        ensembles,
        record,
        networks.forcings,
        sampler,
        members=members,
        steps=steps,
        seed=seed,
        noise_count=noise_count,
        prescribed=prescribed,
    )
    states = ((rows, step, winds) for rows in all_groups for step, winds in enumerate(run(starts[rows]), start=1))
    for rows, step, winds in track(states, label, steps * len(all_groups)):
        runaway[rows] |= left_range(winds, ranges).any(axis=2)
        if 6 * step not in leads:
            continue
        fields = winds[:, :, channels]
        clip(fields, variables)  # as a rollout does, whose scores these must be
        for row, members_of_start in zip(rows.tolist(), fields, strict=True):
            truth = record.states[starts[row] + step][channels]
            parts[row].append(_statistics(members_of_start, truth, record.grid, variables, runaway[row].mean()))
    hours = (np.array(leads) * np.timedelta64(1, "h")).astype("timedelta64[ns]")
    ensembles_statistics = [xr.concat(datasets, dim="prediction_timedelta") for datasets in parts]
    return xr.concat(ensembles_statistics, dim="time").assign_coords(time=record.times[starts], prediction_timedelta=hours)


def _statistics(
    ensemble: NDArray[np.float32], truth: NDArray[np.float32], grid: Grid, variables: tuple[str, ...], runaway: float
) -> xr.Dataset:
    """Statistics of members (member, variable, latitude, longitude); NaN if the share ``runaway`` of them that left the range is not 0."""
    members = np.full_like(ensemble, np.nan) if runaway else ensemble
    scores = statistics_of(members[:, None], truth[None], grid, None, variables)
    scores = scores[[name for name in STUDIED if name in scores]].sel(region=GLOBE, variable=list(variables), drop=True)
    return scores.assign(runaway=(("prediction_timedelta", "variable"), np.full((1, len(variables)), runaway)))


def studied_variables(variables: tuple[str, ...], headline: str | None) -> tuple[str, ...]:
    """The variables whose scores a study compares: both components of the headline if it is a wind, else the headline itself.

    Args:
        variables: those that are forecast.
        headline: the recipe's ``score.headline``; None for the 10 m wind, or else the first variable.

    Raises:
        UserError: if the headline is neither a variable nor a wind.
    """
    winds = winds_of(variables)
    if headline is None:
        return winds[0][:2] if winds else variables[:1]
    if headline in variables:
        return (headline,)
    pairs = {wind.both: (wind.u, wind.v) for wind in winds}
    if headline not in pairs:
        raise UserError(f"score.headline: a study compares a variable or both components of a wind: {', '.join([*variables, *pairs])}")
    return pairs[headline]
