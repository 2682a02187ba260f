"""Statistics of stored forecasts and of the baselines, computed one initial time after the other and joined.

Only a few lead times of one initial time are in memory at a time, so memory is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from dask.base import compute
from dask.delayed import delayed
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.sources.foreign_forecasts import StoredForecast, open_forecast
from wsdcast.data.steps import time_text
from wsdcast.data.variables import DEFAULT
from wsdcast.runs.cluster import dask_options
from wsdcast.runs.errors import UserError
from wsdcast.runs.progress import track
from wsdcast.verification.baselines import CLIMATOLOGICAL_MEAN, PERSISTENCE, climate_of, mean_of, too_poor
from wsdcast.verification.domain import Inside
from wsdcast.verification.kinetic_energy import kinetic_energy_statistics
from wsdcast.verification.metrics import joint_statistics, scored_pairs, statistics
from wsdcast.verification.truth import Truth, open_truth, truth_on_grid

LEADS_AT_ONCE = 8
"""Number of lead times that are scored together."""

Field = NDArray[np.floating]


def statistics_of(
    ensemble: Field, truth: Field, grid: Grid, inside: Inside | None = None, variables: tuple[str, ...] = DEFAULT
) -> xr.Dataset:
    """Return all statistics of one initial time at some lead times (:mod:`wsdcast.verification.metrics`).

    At each lead time the statistics use the members that remain, those whose values are all finite. They are NaN without truth and without
    members. They are also NaN if one member of a larger ensemble remains, because fair CRPS and spread need two. If any member is missing,
    the rank histogram is NaN, because the number of ranks would differ.

    Args:
        ensemble: (member, lead, channel, latitude, longitude), NaN where a member was stopped.
        truth: (lead, channel, latitude, longitude), NaN where it is missing.
        grid: of both.
        inside: points that count, (latitude, longitude). Missing values elsewhere are ignored. Default: all points.
        variables: names of the channels.
    """
    if inside is not None:
        ensemble, truth = np.where(inside, ensemble, 0), np.where(inside, truth, 0)
    # A sum is finite if all values are. It reads the fields once and needs no field of truth values.
    present, known = np.isfinite(ensemble.sum(axis=(2, 3, 4))), np.isfinite(truth.sum(axis=(1, 2, 3)))
    if present.all() and known.all():
        return _all_statistics(ensemble, truth, grid, inside, variables)
    parts = []
    for lead in range(truth.shape[0]):
        members = present[:, lead] & known[lead]
        one_lead = slice(lead, lead + 1)
        enough = members.sum() >= min(2, ensemble.shape[0])
        # Without enough members, statistics of zeros give the data set its shape. Their values become NaN below.
        remaining = ensemble[members, one_lead] if enough else np.zeros_like(ensemble[:1, one_lead])
        true = truth[one_lead] if enough else np.zeros_like(truth[one_lead])
        part = _all_statistics(remaining, true, grid, inside, variables)
        if not enough:
            part = xr.full_like(part, np.nan)
        elif not members.all():
            part["rank_histogram"] = xr.full_like(part["rank_histogram"], np.nan)
        parts.append(part.reindex(rank=np.arange(ensemble.shape[0] + 1)))
    return xr.concat(parts, dim="prediction_timedelta")


def _all_statistics(ensemble: Field, truth: Field, grid: Grid, inside: Inside | None, variables: tuple[str, ...]) -> xr.Dataset:
    """Return all statistics of fields without missing values. Arguments are those of :func:`statistics_of`."""
    functions = (statistics, joint_statistics, kinetic_energy_statistics)
    return xr.merge([function(ensemble, truth, grid, inside, variables) for function in functions])


def joined(by_forecast: Mapping[str, xr.Dataset], times: NDArray[np.datetime64], leads: NDArray[np.timedelta64]) -> xr.Dataset:
    """Return the statistics of several forecasts of the same initial times as one data set, with a dimension ``forecast``.

    If any forecast lacks statistics at an initial time and lead time, those of all are set to NaN, so that all are scored on the same
    weather.

    Args:
        by_forecast: statistics by name of the forecast, (time, prediction_timedelta, ...).
        times: initial times.
        leads: lead times.
    """
    names = xr.IndexVariable("forecast", list(by_forecast))
    together = xr.concat(list(by_forecast.values()), dim=names, join="outer").assign_coords(time=times, prediction_timedelta=leads)
    return together.where(scored_pairs(together))


@dataclass(frozen=True)
class Sources:
    """The sources of all data that are needed to score a forecast. The object is small, so that it can be sent to the workers of a cluster.

    Attributes:
        forecasts: name and address of each forecast. All have the same initial times and lead times.
        truth: source of the truth.
        past_until: the climatology uses only states of the truth before this time.
        scratch: directory where zipped files are unpacked.
        domain: bits (:func:`numpy.packbits`) of the points that are scored; empty if all are.
        variables: the variables that are scored.
    """

    forecasts: tuple[tuple[str, str], ...]
    truth: str
    past_until: np.datetime64
    scratch: str
    domain: bytes = b""
    variables: tuple[str, ...] = DEFAULT

    def inside(self, grid: Grid) -> Inside | None:
        """Return the points that are scored, (latitude, longitude); None if all are."""
        if not self.domain:
            return None
        return np.unpackbits(np.frombuffer(self.domain, np.uint8), count=grid.size).astype(bool).reshape(grid.shape)


class Opened(NamedTuple):
    """The forecasts that are scored, by name, and the truth. Their fields are read when they are used."""

    forecasts: dict[str, StoredForecast]
    truth: Truth


@lru_cache(maxsize=2)
def opened(sources: Sources) -> Opened:
    """Open the sources, or return those that were opened before.

    A truth on a finer grid is brought to the grid of the first forecast (:func:`wsdcast.verification.truth.truth_on_grid`).

    Raises:
        UserError: if one of them cannot be used, or they are on different grids and the truth's is not finer.
    """
    truth = open_truth(sources.truth, Path(sources.scratch), sources.past_until, sources.variables)
    forecasts = {name: open_forecast(address, truth.grid, sources.variables) for name, address in sources.forecasts}
    if forecasts:
        truth = truth_on_grid(truth, next(iter(forecasts.values())).grid)
    for forecast in forecasts.values():
        if not forecast.grid.is_close(truth.grid):
            raise UserError(
                f"{forecast.name} is on a grid of {_extent(forecast.grid)}, the truth {sources.truth} on {_extent(truth.grid)}, which "
                "is not finer; bring one to the other's, for example with `wsdcast prepare --grid`"
            )
    return Opened(forecasts, truth)


def score_start(sources: Sources, row: int, time: np.datetime64, leads: NDArray[np.timedelta64]) -> dict[str, xr.Dataset]:
    """Return the statistics of each forecast and of persistence from one initial time, (prediction_timedelta, ...).

    Args:
        sources: of forecasts and truth.
        row: position of the initial time in the forecasts.
        time: the initial time.
        leads: lead times.
    """
    forecasts, truth = opened(sources)
    initial, inside = truth.at(np.array([time])), sources.inside(truth.grid)
    parts: dict[str, list[xr.Dataset]] = {}
    for first in range(0, leads.size, LEADS_AT_ONCE):
        chunk = slice(first, min(first + LEADS_AT_ONCE, leads.size))
        true = truth.at(time + leads[chunk])
        ensembles = {name: forecast.read(row, chunk) for name, forecast in forecasts.items()}
        ensembles[PERSISTENCE] = np.broadcast_to(initial, (1, *true.shape))
        for name, ensemble in ensembles.items():
            parts.setdefault(name, []).append(statistics_of(ensemble, true, truth.grid, inside, sources.variables))
        del ensembles, ensemble  # frees their memory before the next lead times are read
    return {name: xr.concat(chunks, dim="prediction_timedelta") for name, chunks in parts.items()}


def score_climate(
    sources: Sources, name: str, valid_times: NDArray[np.datetime64], states: NDArray[np.intp]
) -> tuple[dict[str, xr.Dataset], set[int]]:
    """Return the statistics of the climatology and of its mean at some valid times, (prediction_timedelta, ...), and what was left out.

    They do not depend on the initial time, so forecasts from several that are valid at the same time share them.

    Args:
        sources: of the truth.
        name: of the climatology.
        valid_times: a few, whose states are in memory together.
        states: positions of its states in the truth, (valid time, member). States with gaps are left out, and returned.
    """
    truth = opened(sources).truth
    true, inside = truth.at(valid_times), sources.inside(truth.grid)
    positions, inverse = np.unique(states, return_inverse=True)
    fields, whole = _read(sources, positions.tobytes())
    members = inverse.reshape(states.shape).T  # (member, valid time)
    climatology = fields[members]
    both = {name: climatology, CLIMATOLOGICAL_MEAN: mean_of(climatology, whole[members])}
    scored = {which: statistics_of(ensemble, true, truth.grid, inside, sources.variables) for which, ensemble in both.items()}
    return scored, set(positions[~whole].tolist())


@lru_cache(maxsize=1)
def _read(sources: Sources, positions: bytes) -> tuple[Field, NDArray[np.bool_]]:
    """Return states of the truth, and which of them have no gap.

    The last result is cached, because a short record has the same climatology at all times.
    """
    truth = opened(sources).truth
    fields, inside = truth.read(np.frombuffer(positions, dtype=np.intp)), sources.inside(truth.grid)
    complete = np.isfinite(fields) if inside is None else np.isfinite(fields) | ~inside
    return fields, np.asarray(np.all(complete, axis=(1, 2, 3)))


def _extent(grid: Grid) -> str:
    return f"{grid.name} from {grid.latitude[0]:g} N, {grid.longitude[0]:g} E"


def statistics_by_start(
    sources: Sources,
    times: NDArray[np.datetime64],
    leads: NDArray[np.timedelta64],
    streamed: dict[str, xr.Dataset],
    scheduler: str | None,
    workers: int | None,
) -> xr.Dataset:
    """Return the statistics of all forecasts and baselines by initial time, (forecast, time, prediction_timedelta, ...).

    The attribute ``left_out`` of the result says in words which baselines, or which of their times and states, were missing, if any were;
    ``climatology_members`` is the number of states of the climatology, if there is one.

    Args:
        sources: of the forecasts to be scored, and of the truth.
        times, leads: initial times and lead times of all forecasts.
        streamed: statistics by initial time of the forecasts that have been scored already, by name.
        scheduler, workers: as for :func:`wsdcast.score`.

    Raises:
        UserError: if no initial time and lead time has the truth and all forecasts; the message names what is missing.
    """
    valid, of_pairs = np.unique(times[:, None] + leads, return_inverse=True)
    climate, states = climate_of(opened(sources).truth, valid)
    at_once = min(LEADS_AT_ONCE, leads.size)
    groups = [slice(first, first + at_once) for first in range(0, valid.size if states.size else 0, at_once)]
    of_starts = [(score_start, sources, row, time, leads) for row, time in enumerate(times)]
    of_climate = [(score_climate, sources, climate, valid[group], states[group]) for group in groups]
    results = list(track(_in_turn([*of_starts, *of_climate], scheduler, workers), "scoring", times.size + len(groups)))
    starts, climates = results[: times.size], results[times.size :]
    parts = {name: xr.concat([start[name] for start in starts], dim="time", join="outer") for name in starts[0]}
    pairs = xr.DataArray(of_pairs.reshape(times.size, leads.size), dims=("time", "prediction_timedelta"))
    for name in climates[0][0] if climates else ():
        by_valid = xr.concat([scored[name] for scored, _ in climates], dim="prediction_timedelta", join="outer")
        parts[name] = by_valid.isel(prediction_timedelta=pairs)
    gaps = set[int]().union(*(left_out for _, left_out in climates))
    parts_by_forecast = streamed | parts
    forecasts = [*(name for name, _ in sources.forecasts), *streamed]
    # The first is the forecast that the report is about.
    whole = {name: parts_by_forecast[name] for name in dict.fromkeys((*forecasts, *parts_by_forecast))}
    scored = {name: part["crps_fair"].isel(variable=0, region=0).notnull().values for name, part in whole.items()}
    if not np.all([scored[name] for name in forecasts], axis=0).any():
        if not any(has.any() for has in scored.values()):
            source = sources.truth.removeprefix(f"{sources.scratch}/")  # that of open data is a directory of what was fetched
            first, last = time_text(times[0] + leads[0]), time_text(times[-1] + leads[-1])
            raise UserError(
                f"{source} has no truth for any initial time and lead time of the forecast, whose valid times are {first} to {last}"
            )
        empty = [name for name in forecasts if not scored[name].any()]
        lacking = f"{', '.join(empty)} has" if empty else "the forecasts together have"
        raise UserError(
            f"{lacking} no initial time and lead time with two members that have values at all points at which the forecast has any"
        )
    poor, left_out = too_poor(scored, forecasts)
    if gaps:
        left_out.append(f"{len(gaps)} of {np.unique(states).size} past states, which have gaps")
    together = joined({name: part for name, part in whole.items() if name not in poor}, times, leads)
    together.attrs = {"climatology_members": states.shape[-1]} if climate in together["forecast"] else {}
    together.attrs |= {"left_out": "; ".join(left_out)} if left_out else {}
    return together


def _in_turn(tasks: list[tuple[Any, ...]], scheduler: str | None, workers: int | None) -> Iterator[Any]:
    """Yield the results of tasks (function, *arguments) in order, computed in this process or in parallel by the workers of a cluster."""
    if scheduler is None and workers is None:
        yield from (function(*arguments) for function, *arguments in tasks)
        return
    with dask_options(scheduler, workers) as options:
        yield from compute(*(delayed(function)(*arguments) for function, *arguments in tasks), **options)


def fields_of(sources: Sources) -> Callable[[int], tuple[Field, Field]] | None:
    """Return a function from the position of an initial time to the first forecast's members and the truth; None if no fields were kept."""
    forecasts, truth = opened(sources)
    if not forecasts:
        return None
    forecast = next(iter(forecasts.values()))
    return lambda start: (forecast.read(start), truth.at(forecast.times[start] + forecast.leads))
