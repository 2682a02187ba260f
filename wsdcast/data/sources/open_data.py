"""Analyses from NOAA's and ECMWF's open data: the newest cycle, and files in the user's cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.sources.mirrors import Mirror, are_messages, ask, download, located, mirrors_of
from wsdcast.data.sources.open_data_layouts import ROOTS, require_offered, roots_of
from wsdcast.data.steps import STEP, time_text
from wsdcast.data.variables import DEFAULT
from wsdcast.runs.errors import UserError, first_few
from wsdcast.runs.progress import track

CONNECTIONS = 8
"""Analyses that are fetched at the same time. ECMWF's own server serves 500 connections in all."""
CYCLES_BACK = 8
"""How many cycles before the present one :func:`newest` looks at: those of two days."""
SHOWN = 5
"""How many missing analyses an error names."""


class MissingError(UserError):
    """Some analyses are at no mirror.

    Attributes:
        times: the times of these analyses.
    """

    def __init__(self, message: str, times: list[np.datetime64]) -> None:
        super().__init__(message)
        self.times = times


def newest(system: str, names: Sequence[str] = DEFAULT) -> tuple[np.datetime64, list[np.datetime64]]:
    """Return the newest cycle that is complete at a mirror, and the later ones that are not, the latest first.

    A cycle is complete if index and GRIB file are there, and the channels are in both.

    Raises:
        UserError: if no mirror can be reached, or if no cycle of the last two days is complete.
    """
    mirrors, skipped = mirrors_of(system), list[np.datetime64]()
    for time in _six_hourly(_now()) - STEP * np.arange(CYCLES_BACK + 1):
        spans = ask(mirrors, f"{system}: the newest cycle", partial(located, system, names, time))
        if not isinstance(spans, str):
            return time, skipped
        skipped.append(time)
    raise UserError(f"{system}: no cycle of the last two days is complete; the last one that was looked for is {time_text(time)} ({spans})")


def fetch(system: str, times: Sequence[np.datetime64] | NDArray[np.datetime64], names: Sequence[str] = DEFAULT) -> list[Path]:
    """Return a GRIB file for each analysis time (00, 06, 12, 18 UTC) of ``gfs`` or ``ifs``, from the cache or from a mirror.

    The valid time and the variables of what was fetched are checked before it gets into the cache. obstore repeats requests after growing
    waits if a server answers 5xx or 429 or if a connection is cut; then the next mirror is asked. The files have the messages of the
    channels ``names`` alone.

    Raises:
        MissingError: if analyses are at no mirror, or not as their index says. All others are in the cache then.
        UserError: if no mirror can be reached, the system lacks a channel, ecCodes is not installed, or the cache cannot be written to.
    """
    require_offered(system, names)
    if find_spec("eccodes") is None:
        raise UserError(f"{system}: reading GRIB needs `pip install 'wsdcast[grib]'`")
    mirrors, cache = mirrors_of(system), _cache(system)
    analyses: list[np.datetime64] = list(np.asarray(times, dtype="datetime64[ns]"))
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        jobs = [pool.submit(_obtain, mirrors, cache, system, names, time) for time in analyses]
        try:
            results = [job.result() for job in track(jobs, f"fetching {system}", len(jobs))]
        finally:
            pool.shutdown(cancel_futures=True)
    if missing := {time: result for time, result in zip(analyses, results, strict=True) if isinstance(result, str)}:
        (first, reasons), *others = missing.items()
        more = f", nor can {first_few((time_text(time) for time, _ in others), SHOWN)}" if others else ""
        raise MissingError(f"{system}: the analysis of {time_text(first)} cannot be fetched ({reasons}){more}", list(missing))
    return [path for path in results if isinstance(path, Path)]


def fetch_existing(system: str, times: NDArray[np.datetime64], names: Sequence[str]) -> list[Path]:
    """Fetch the analyses at ``times`` that exist already, as :func:`fetch`. Later times and cycles that are not complete are left out.

    Raises:
        UserError: as :func:`fetch` does, also if an analysis is missing that is older than one that is there.
    """
    past = np.sort(times[times <= np.datetime64(_now(), "ns")])
    try:
        return fetch(system, past, names)
    except MissingError as error:
        there = np.setdiff1d(past, error.times)
        if not there.size or min(error.times) < there[-1]:
            raise
        return fetch(system, there, names)


def fetch_period(
    system: str,
    start: datetime | None,
    end: datetime | None,
    skip: Sequence[datetime],
    names: Sequence[str],
) -> tuple[list[Path], list[str]]:
    """Fetch all analyses of a period, from ``start`` to ``end`` (UTC) without those to ``skip``.

    Without an ``end``, or if it is later than the newest complete cycle, that cycle is the last one.

    Returns:
        The files, as :func:`fetch`, and notes for the user.

    Raises:
        UserError: as :func:`fetch` does, and if there is no ``start`` or no analysis time in the period.
    """
    if start is None:
        raise UserError(f"{system} needs the first time to fetch: --start, or data.start in the recipe")
    require_offered(system, names)
    notes = list[str]()
    if end is None or end > _now():
        last, skipped = newest(system, names)
        incomplete = ", ".join(map(time_text, skipped))
        notes.append(f"the newest cycle of {system} is {time_text(last)}" + (f"; not complete yet: {incomplete}" if incomplete else ""))
    else:
        last = _six_hourly(end)
    first = _six_hourly(start - timedelta(microseconds=1)) + STEP
    period = np.arange(first, last + STEP, STEP)
    gaps = np.isin(period, np.array(skip, dtype="datetime64[ns]"))
    if gaps.all():
        raise UserError(f"{system}: there is no analysis to fetch from {time_text(first)} to {time_text(last)}")
    if gaps.any():
        notes.append(f"gaps by --skip: {', '.join(map(time_text, period[gaps]))}")
    try:
        return fetch(system, period[~gaps], names), notes
    except MissingError as error:
        absent = ",".join(map(time_text, error.times)) if len(error.times) <= SHOWN else "TIMES"
        raise MissingError(f"{error}; --skip {absent} leaves a gap instead", error.times) from None


def _six_hourly(time: datetime) -> np.datetime64:
    """Return the last of 00, 06, 12 and 18 UTC that is not after a time."""
    return np.datetime64(time.replace(hour=time.hour // 6 * 6, minute=0, second=0, microsecond=0), "ns")


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _cache(system: str) -> Path:
    """Return the directory of a system in the user's cache. Mirrors other than the public ones have directories of their own.

    Raises:
        UserError: if it cannot be made.
    """
    import pooch  # imported only when it is needed, because it is slow

    roots = roots_of(system)
    name = system if roots == ROOTS[system] else f"{system}-{hashlib.sha256(' '.join(roots).encode()).hexdigest()[:8]}"
    path = Path(os.environ.get("WSDCAST_CACHE") or pooch.os_cache("wsdcast")).expanduser().absolute() / name
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; WSDCAST_CACHE names another directory for the cache") from None
    return path


def _obtain(mirrors: list[Mirror], cache: Path, system: str, names: Sequence[str], time: np.datetime64) -> Path | str:
    """Return the file of an analysis in the cache, fetched if it is not there, or the reasons why no mirror has it."""
    suffix = "" if names == DEFAULT else f"-{hashlib.sha256(' '.join(sorted(names)).encode()).hexdigest()[:8]}"
    path = cache / f"{system}-{time_text(time)}{suffix}.grib2"
    if path.is_file() and are_messages(path.read_bytes()):
        return path
    return ask(mirrors, f"{system}: the analysis of {time_text(time)}", partial(download, path, system, names, time))
