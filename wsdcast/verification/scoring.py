"""Scores forecasts start by start and a few lead times at once, so that memory is bounded by one chunk, and joins what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from dask.base import compute
from dask.delayed import delayed
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.sources.ensembles import StoredForecast, open_forecast
from wsdcast.data.store.building import scheduler as at_work
from wsdcast.runs.errors import UserError
from wsdcast.runs.progress import track
from wsdcast.verification.baselines import (
    CLIMATOLOGICAL_MEAN,
    CLIMATOLOGY,
    PERSISTENCE,
    PROBABILISTIC_CLIMATOLOGY,
    mean_of,
    other_years,
    past_states,
    too_poor,
)
from wsdcast.verification.domain import Inside
from wsdcast.verification.kinetic_energy import kinetic_energy_statistics
from wsdcast.verification.statistics import joint_statistics, scored_pairs, statistics
from wsdcast.verification.truth import Truth, open_truth

LEADS_AT_ONCE = 8

Field = NDArray[np.floating]


def statistics_of(ensemble: Field, truth: Field, grid: Grid, inside: Inside | None = None) -> xr.Dataset:
    """All statistics of one start at some lead times (:mod:`wsdcast.verification.statistics`).

    At each lead time they are of the members that are left. They are NaN without truth, without members, and where one member of an
    ensemble of several is left: fair CRPS and spread need two. Where some members are missing there is no rank histogram, since its ranks
    would be others.

    Args:
        ensemble: (member, lead, channel, latitude, longitude), NaN where a member was stopped.
        truth: (lead, channel, latitude, longitude), NaN where it is missing.
        grid: of both.
        inside: points that count, (latitude, longitude); what is missing elsewhere is no gap. Default: all.
    """
    if inside is not None:
        ensemble, truth = np.where(inside, ensemble, 0), np.where(inside, truth, 0)
    there, known = np.isfinite(ensemble.min(axis=(2, 3, 4))), np.isfinite(truth.min(axis=(1, 2, 3)))
    if there.all() and known.all():
        return _all(ensemble, truth, grid, inside)
    found = []
    for lead in range(truth.shape[0]):
        members = there[:, lead] & known[lead]
        here = slice(lead, lead + 1)
        enough = members.sum() >= min(2, ensemble.shape[0])
        # Zeros stand for what is missing: they give the shape of the statistics.
        scored = ensemble[members, here] if enough else np.zeros_like(ensemble[:1, here])
        part = _all(scored, truth[here] if enough else np.zeros_like(truth[here]), grid, inside)
        if not enough:
            part = xr.full_like(part, np.nan)
        elif not members.all():
            part["rank_histogram"] = xr.full_like(part["rank_histogram"], np.nan)
        found.append(part.reindex(rank=np.arange(ensemble.shape[0] + 1)))
    return xr.concat(found, dim="prediction_timedelta")


def _all(ensemble: Field, truth: Field, grid: Grid, inside: Inside | None) -> xr.Dataset:
    return xr.merge([of(ensemble, truth, grid, inside) for of in (statistics, joint_statistics, kinetic_energy_statistics)])


def joined(found: Mapping[str, xr.Dataset], times: NDArray[np.datetime64], leads: NDArray[np.timedelta64]) -> xr.Dataset:
    """Statistics of several forecasts of the same dates as one data set, with a dimension ``forecast``.

    A start and lead time that any of them lacks is taken out for all, so that all are of the same weather.

    Args:
        found: by forecast, (time, prediction_timedelta, ...).
        times: of the starts.
        leads: lead times.
    """
    named = xr.IndexVariable("forecast", list(found))
    whole = xr.concat(list(found.values()), dim=named, join="outer").assign_coords(time=times, prediction_timedelta=leads)
    return whole.where(scored_pairs(whole))


@dataclass(frozen=True)
class Sources:
    """Where everything lies that a start's scores are made from; small, so that it travels to the workers of a cluster.

    Attributes:
        forecasts: name and address of each, all of the same starts and lead times.
        truth: source of the truth.
        past_until: what of the truth is earlier, climatology may know.
        scratch: directory where zipped files are unpacked.
        domain: bits of the points that are scored, none for all of them.
    """

    forecasts: tuple[tuple[str, str], ...]
    truth: str
    past_until: np.datetime64
    scratch: str
    domain: bytes = b""

    def inside(self, grid: Grid) -> Inside | None:
        """Points that are scored, (latitude, longitude); None if all are."""
        if not self.domain:
            return None
        return np.unpackbits(np.frombuffer(self.domain, np.uint8), count=np.prod(grid.shape)).astype(bool).reshape(grid.shape)


@lru_cache(maxsize=2)
def opened(sources: Sources) -> tuple[dict[str, StoredForecast], Truth]:
    """The forecasts and the truth, lazily.

    Raises:
        UserError: if one of them cannot be used, or they are on different grids.
    """
    truth = open_truth(sources.truth, Path(sources.scratch), sources.past_until)
    forecasts = {name: open_forecast(address, truth.grid) for name, address in sources.forecasts}
    for forecast in forecasts.values():
        if not forecast.grid.is_close(truth.grid):
            raise UserError(
                f"{forecast.name} is on a grid of {_extent(forecast.grid)}, the truth {sources.truth} on {_extent(truth.grid)}; bring one "
                "to the other's, for example with `wsdcast prepare --grid`"
            )
    return forecasts, truth


def climate_of(truth: Truth, valid_times: NDArray[np.datetime64]) -> tuple[str, NDArray[np.intp]]:
    """What stands for the climate, and positions of its states at all valid times (start, lead, member).

    Other years' same days where there are enough years; else past states, the same at all times.
    """
    if (states := other_years(truth, valid_times)) is not None:
        return PROBABILISTIC_CLIMATOLOGY, states
    states = past_states(truth)
    return CLIMATOLOGY, np.broadcast_to(states, (*valid_times.shape, states.size))


def score_start(
    sources: Sources, row: int, time: np.datetime64, leads: NDArray[np.timedelta64], climate: tuple[str, NDArray[np.intp]]
) -> dict[str, xr.Dataset]:
    """Statistics of each forecast from one start and of what costs nothing beside them, (prediction_timedelta, ...).

    Args:
        sources: of all.
        row: position of the start in the forecasts.
        time: the start.
        leads: lead times.
        climate: what it is called, and positions of its states in the truth (lead, member). Those with gaps are left out, their positions
            being the attribute ``gaps`` of its statistics.
    """
    forecasts, truth = opened(sources)
    now, inside = truth.at(np.array([time])), sources.inside(truth.grid)
    found: dict[str, list[xr.Dataset]] = {}
    gaps = set[int]()
    for first in range(0, leads.size, LEADS_AT_ONCE):
        some = slice(first, min(first + LEADS_AT_ONCE, leads.size))
        true = truth.at(time + leads[some])
        ensembles = {name: forecast.read(row, some) for name, forecast in forecasts.items()}
        ensembles[PERSISTENCE] = np.broadcast_to(now, (1, *true.shape))
        name, states = climate
        if states.size:
            which, back = np.unique(states[some], return_inverse=True)
            fields, whole = _read(sources, which.tobytes())
            members = back.reshape(states[some].shape).T  # (member, lead)
            ensembles[name] = fields[members]
            ensembles[CLIMATOLOGICAL_MEAN] = mean_of(ensembles[name], whole[members])
            gaps |= set(which[~whole].tolist())
        for name, ensemble in ensembles.items():
            found.setdefault(name, []).append(statistics_of(ensemble, true, truth.grid, inside))
        del ensembles, ensemble  # before the next are read
    joint = {name: xr.concat(parts, dim="prediction_timedelta") for name, parts in found.items()}
    if gaps:
        joint[climate[0]].attrs["gaps"] = sorted(gaps)
    return joint


@lru_cache(maxsize=1)
def _read(sources: Sources, positions: bytes) -> tuple[Field, NDArray[np.bool_]]:
    """States of the truth, and which have no gap; kept, for a climate that is the same at all times is asked for again and again."""
    truth = opened(sources)[1]
    fields, inside = truth.read(np.frombuffer(positions, dtype=np.intp)), sources.inside(truth.grid)
    there = np.isfinite(fields) if inside is None else np.isfinite(fields) | ~inside
    return fields, np.asarray(np.all(there, axis=(1, 2, 3)))


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
    """Statistics of all forecasts and baselines, (forecast, time, prediction_timedelta, ...), start by start.

    Args:
        sources: of what is to be scored.
        times, leads: of all of them.
        streamed: statistics by start that are there already.
        scheduler, workers: as for :func:`wsdcast.score`.

    Returns:
        They; the attribute ``left_out`` says in words what of the baselines was missing, if anything was.

    Raises:
        UserError: if there is no start and lead time with all forecasts and the truth, naming what lacks it.
    """
    climate, states = climate_of(opened(sources)[1], times[:, None] + leads)
    tasks = [(sources, row, time, leads, (climate, states[row])) for row, time in enumerate(times)]
    parts: dict[str, list[xr.Dataset]] = {}
    gaps = set[int]()
    for found in track(_in_turn(score_start, tasks, scheduler, workers), "scoring", times.size):
        for name, part in found.items():
            gaps |= set(part.attrs.pop("gaps", []))
            parts.setdefault(name, []).append(part)
    scored = streamed | {name: xr.concat(starts, dim="time", join="outer") for name, starts in parts.items()}
    forecasts = [*(name for name, _ in sources.forecasts), *streamed]
    whole = {name: scored[name] for name in dict.fromkeys((*forecasts, *scored))}  # the first is the one that the report is about
    there = {name: of["crps_fair"].isel(variable=0, region=0).notnull().values for name, of in whole.items()}
    if not np.all([there[name] for name in forecasts], axis=0).any():
        if not any(has.any() for has in there.values()):
            raise UserError(f"{sources.truth} has no truth for any start and lead time of the forecast")
        empty = [name for name in forecasts if not there[name].any()]
        which = f"{', '.join(empty)} has" if empty else "the forecasts together have"
        raise UserError(f"{which} no start and lead time with two members that have values at all points at which the forecast has any")
    poor, left_out = too_poor(there, forecasts)
    if gaps:
        left_out.append(f"{len(gaps)} of {np.unique(states).size} past states, which have gaps")
    sums = joined({name: of for name, of in whole.items() if name not in poor}, times, leads)
    sums.attrs = {"left_out": "; ".join(left_out)} if left_out else {}
    return sums


def _in_turn(function: Callable[..., Any], tasks: list[tuple[Any, ...]], scheduler: str | None, workers: int | None) -> Iterator[Any]:
    """Results in order: one by one here, or as many at once as a cluster has workers."""
    if scheduler is None and workers is None:
        yield from (function(*task) for task in tasks)
        return
    with at_work(scheduler, workers, "") as how:
        yield from compute(*(delayed(function)(*task) for task in tasks), **how)


def fields_of(sources: Sources) -> Callable[[int], tuple[Field, Field]] | None:
    """For each number of a start the members of the first forecast and the truth; None if its fields were not kept."""
    forecasts, truth = opened(sources)
    if not forecasts:
        return None
    forecast = next(iter(forecasts.values()))
    return lambda start: (forecast.read(start), truth.at(forecast.times[start] + forecast.leads))
