"""Stage 1: regrid a source and write the prepared store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.planet.simulation import simulation
from wsdcast.data.sources.blocks import BadValuesError, close_all
from wsdcast.data.sources.open_data import fetch_period
from wsdcast.data.sources.open_data_layouts import ATTRIBUTION, SYSTEMS
from wsdcast.data.sources.opening import addresses, fingerprint, is_remote
from wsdcast.data.sources.pieces import SourceRecord
from wsdcast.data.sources.record import open_record
from wsdcast.data.steps import STEP, time_text
from wsdcast.data.store.analysis import open_analysis, split
from wsdcast.data.store.building import Finished, build, finish, require_memory_to_build
from wsdcast.data.store.packings import packing_for
from wsdcast.data.store.shards import digest, has_shards
from wsdcast.data.store.zarr_store import channels_of, open_store
from wsdcast.data.variables import DEFAULT, channel_units_in_words, decimals_of, words
from wsdcast.runs.artefact import is_current, make_stamp, read_stamp, resolve
from wsdcast.runs.cluster import dask_options
from wsdcast.runs.complete import complete, partial_of, recover
from wsdcast.runs.errors import UserError
from wsdcast.runs.inputs import address_given, require_no_input
from wsdcast.runs.locks import alone
from wsdcast.runs.names import ANALYSIS
from wsdcast.runs.overrides import Overridden
from wsdcast.runs.progress import track
from wsdcast.runs.resources import require_space, size_of
from wsdcast.runs.summary import Summary
from wsdcast.runs.times import TimeLike
from wsdcast.runs.unfinished import claim, release
from wsdcast.weather.recipe import Data, Recipe

Times = NDArray[np.datetime64]


def prepare(
    recipe: str | Path | Recipe | Overridden | None = None,
    run: str | Path | None = None,
    *,
    source: str | Path | None = None,
    grid: str | None = None,
    method: str | None = None,
    start: TimeLike | None = None,
    end: TimeLike | None = None,
    skip: Sequence[TimeLike] | None = None,
    append: bool = False,
    recompute: bool = False,
    scheduler: str | None = None,
    workers: int | None = None,
    overwrite: bool = False,
) -> Summary:
    """Bring the recipe's variables to its grid and to steps of 6 h, and write ``RUN/analysis.zarr``.

    A run that was stopped continues where it stopped, if the recipe is the same. Shards whose source files were replaced since are made
    again.

    Args:
        recipe: path or name of a recipe; default: that of the store that is there already, if no other source is given; else ``planet``.
        run: run directory; default ``runs/<recipe name>``.
        source: ``planet``; ``wb2``, ``wb2-0.25`` or ``arco``; ``gfs`` or ``ifs``; a URL of a Zarr store; a file, directory or glob; default
            from the recipe.
        grid: LONGITUDESxLATITUDES; default from the recipe.
        method: regridding method, ``conservative``, ``bilinear`` or ``nearest``; default from the recipe.
        start, end: first and last time to take, UTC; default from the recipe, else all times; ``gfs`` and ``ifs`` need a start.
        skip: times of the source to leave out, UTC, such as one with a value that cannot be. They become gaps of the record.
        append: add the times of the source that are later than the last time of the finished store. Its splits and statistics stay as they
            are.
        recompute: with ``append``, split the longer record anew and recompute the statistics.
        scheduler: address of a running dask.distributed scheduler, which then does the work.
        workers: number of processes of this machine that do the work; default: threads. With processes a script must guard its main part
            with ``if __name__ == "__main__"``, because each process imports the script.
        overwrite: replace a store made from another recipe, finished or not.

    Raises:
        UserError: if the source cannot be used or is the store itself, the simulated planet is given times, or the store was made from
            another recipe and ``overwrite`` is False.
    """
    address = None if source is None else address_given(source, "--source")
    changes: dict[str, Any] = {"data__source": address, "data__grid": grid, "data__method": method, "data__skip": skip}
    changes |= {"data__start": start, "data__end": end}
    recover(resolve(recipe, run, Recipe)[1] / ANALYSIS)
    # What was chosen for the record so far, such as its period, is not meant for another source.
    new_source = source is not None or (isinstance(recipe, Overridden) and "data.source" in recipe.values)
    resolved, directory = resolve(recipe, run, Recipe, None if new_source and not append else ANALYSIS, **changes)
    data, path = resolved.data, directory / ANALYSIS
    is_named = bool(recipe.recipe or "name" in recipe.values) if isinstance(recipe, Overridden) else recipe is not None
    if data.source != "planet" and resolved.name == Recipe.DEFAULT and not is_named:
        with suppress(UserError):  # a directory may have a name that a recipe cannot have
            resolved = resolved.changed(name=directory.absolute().name)
    target, scratch = Grid.regular(data.grid), directory / ".unzipped"
    if data.source == "planet" and (data.start or data.end or data.skip):
        raise UserError("the simulated planet has no start, end or skip; its length is data.days")
    if data.source not in ("planet", *SYSTEMS):
        require_no_input([path], addresses(data.source), "", "another --run")
    if recompute and not append:
        raise UserError("--recompute needs --append")
    finished = _finished(resolved, path) if append else None
    source_fingerprint = "" if data.source == "planet" else fingerprint(data.source)
    if finished is None and is_current(resolved, directory, ANALYSIS, overwrite, source_fingerprint):
        if not partial_of(path).exists():
            release(partial_of(path))  # an earlier run was killed between the last two steps below
        return Summary("prepare", facts={"current": str(path)})
    if data.source == "planet":
        require_memory_to_build(target, 4 * data.days, data.channels)
    with alone(directory):
        try:
            origin = (
                simulation(data.days, data.planet_seed, data.stirring, target, data.channels.all)
                if data.source == "planet"
                else _record(data, scratch, scheduler is not None, finished)
            )
            if finished is not None and not origin.times.size and not recompute:
                return Summary("prepare", facts={"current": f"{path}, nothing newer in {data.source}"})
            require_memory_to_build(target, origin.times.size, data.channels)
            times = origin.times if finished is None else np.concatenate([finished.times, origin.times])
            attributes = _attributes(resolved, directory, source_fingerprint, times, finished, recompute)
            size = 2 * len(data.channels.all) * origin.times.size * target.size
            require_space(directory, size - size_of(partial_of(path)))
            packing = packing_for(origin, target, data.method, finished.path if finished is not None else None)
            with complete(path, resumable=True) as partial:
                discard = overwrite or not has_shards(partial)  # without shards nothing is lost
                claim(partial, {"data": resolved.dump()["data"], "appended to": finished and finished.id}, discard)
                # Threads that wait for a server cost nothing, so a remote source gets eight of them.
                with dask_options(scheduler, workers, 8 if is_remote(data.source) else None) as dask_arguments:
                    # Workers of a cluster may have another working directory, so the path is absolute.
                    written = build(partial.absolute(), target, data.method, origin, finished, dask_arguments, data.channels, packing)
                    for _ in track((step for count in written for step in range(count)), "preparing", times.size):
                        pass
                finish(partial, target, origin, finished, attributes)
            release(partial)
        except BadValuesError as error:
            raise UserError(error.with_skip(times[0])) from None
        finally:
            close_all()
            shutil.rmtree(scratch, ignore_errors=True)
    return _summary(resolved, path, origin.notes if isinstance(origin, SourceRecord) else [])


def source_record(data: Data, source: str, scratch: Path, since: datetime | None = None) -> SourceRecord:
    """Open the record of files or stores, with all its notes. Open data are fetched first, from ``since`` on if that is later."""
    files: str | list[Path] = source
    notes: list[str] = []
    if source in SYSTEMS:
        start = max(filter(None, (data.start, since)), default=None)
        files, notes = fetch_period(source, start, data.end, data.skip, data.channels.all)
    record = open_record(files, scratch, data.start, data.end, data.skip, channels=data.channels.all)
    record.notes[:0] = notes
    record.note_if_coarser(Grid.regular(data.grid))
    return record


def _record(data: Data, scratch: Path, elsewhere: bool, finished: Finished | None) -> SourceRecord:
    """The record of a recipe, of which only what is later is taken if a store is ``finished``.

    If machines read the files ``elsewhere``, their paths must be absolute. Of open data, the last two times of a finished store are fetched
    again.

    Raises:
        UserError: if the record has problems; the message lists all of them.
    """
    is_local = elsewhere and not is_remote(data.source) and data.source not in SYSTEMS
    known = None if finished is None else (finished.times[-1] - STEP).astype("datetime64[s]").item()
    record = source_record(data, str(Path(data.source).absolute()) if is_local else data.source, scratch.absolute(), known)
    record.require_no_problems(data.source)
    return record if finished is None else _newer(record, finished)


def _finished(recipe: Recipe, path: Path) -> Finished:
    """The store to append to.

    Raises:
        UserError: if there is no store, it is simulated, or the recipe has another grid, method or other variables.
    """
    stamp = read_stamp(path)
    if stamp is None:
        raise UserError(f"{path} is not there, so nothing can be appended to it")
    for key in ("grid", "method"):
        stored, current = stamp["recipe"]["data"].get(key), getattr(recipe.data, key)
        if stored != current:
            raise UserError(f"{path} was made with {key} {stored}; {current} cannot be appended to it")
    if (stored_channels := channels_of(path)) != recipe.data.channels:
        names, others = (", ".join(channels.all) for channels in (stored_channels, recipe.data.channels))
        raise UserError(f"{path} was made with the variables {names}; {others} cannot be appended to it")
    if "planet" in (recipe.data.source, stamp["recipe"]["data"]["source"]):
        raise UserError("a simulated record cannot be appended to; choose more data.days and --overwrite")
    return Finished(path, open_store(path), stamp["id"])


def _newer(origin: SourceRecord, finished: Finished) -> SourceRecord:
    """The part of a record that is later than a finished store. Its notes say how many times are appended and left out."""
    newer = origin.at(origin.times > finished.times[-1])
    between = np.setdiff1d(origin.times, np.concatenate([finished.times, newer.times])).size
    if between:
        newer.notes.append(f"{between} times that the store lacks are earlier than its end and left out; --overwrite prepares all anew")
    newer.notes.append(f"{newer.times.size} times appended to {finished.times.size}")
    return newer


def _attributes(
    recipe: Recipe, directory: Path, source_fingerprint: str, times: Times, finished: Finished | None, recompute: bool
) -> dict[str, Any]:
    """Attributes of the store: stamp, source, begins of the splits, and whether the statistics are out of date.

    When appending without ``recompute``, the splits and the normalisation are those of the finished store.
    """
    data = recipe.data
    validation_from, test_from = (str(moment.astype("datetime64[s]")) for moment in split(times, data.validation_from, data.test_from))
    stamp = make_stamp(recipe, directory, ANALYSIS, source_fingerprint)
    attributes = {
        "title": "10 m wind prepared by wsdcast" if data.channels.all == DEFAULT else "analyses prepared by wsdcast",
        "source": data.source,
        "validation_from": validation_from,
        "test_from": test_from,
        "statistics_are_stale": False,
    }
    attribution = [ATTRIBUTION[data.source]] if data.source in ATTRIBUTION else []
    if finished is not None:
        before = finished.dataset.attrs
        attribution = list(dict.fromkeys([*before.get("attribution", "").split("; "), *attribution]))
        stamp = json.loads(before["wsdcast"])
        if stamp["recipe"]["data"]["source"] == data.source:
            stamp["inputs"], attributes["source"] = source_fingerprint, before["source"]
        else:
            attributes["source"] = f"{before['source']}, then {data.source}"
        parts = {key: before[key] for key in ("validation_from", "test_from")}
        # The training split itself cannot grow: the finished store has a test split, and new times are later.
        stale = bool(before["statistics_are_stale"] or any(attributes[key] != parts[key] for key in parts))
        if not recompute:
            attributes |= parts | {"normalisation": before["normalisation"], "statistics_are_stale": stale}
        elif stale:
            # Networks were trained on another training split, so they must not count as current: the id changes.
            stamp["id"] = digest(stamp["id"], validation_from, test_from, times.tobytes())
    credit = {"attribution": "; ".join(filter(None, attribution))} if any(attribution) else {}
    return attributes | credit | {"wsdcast": json.dumps(stamp)}


def _summary(recipe: Recipe, path: Path, notes: list[str]) -> Summary:
    record = open_analysis(path, whole=False, past_states=recipe.forcings.past_states)
    gaps = int((np.diff(record.times) != STEP).sum())
    facts = {
        "source": recipe.data.source,
        "grid": f"{record.grid.name} (longitudes x latitudes)",
        "record": f"{time_text(record.times[0])} to {time_text(record.times[-1])}",
        "steps": f"{record.times.size} of 6 h, {gaps} gaps",
        "training / validation / test": " / ".join(str(record.now(part).size) for part in ("train", "validation", "test")) + " samples",
    }
    names = record.variables + record.forcing_variables
    for name, mean, std in zip(names, record.mean, record.std, strict=True):
        forcing = ", a forcing" if name in record.forcing_variables else ""
        digits = f".{decimals_of(std, 3)}f"
        facts[words(name)] = (
            f"mean {mean:{digits}}, standard deviation {std:{digits}} {channel_units_in_words(name)}, training split{forcing}"
        )
    rounding = record.states.packing.scale / np.sqrt(12) / record.std
    worst = words(names[int(rounding.argmax())])
    facts["rounding"] = f"stored values are off by {rounding.max():.1g} standard deviations at most (root mean square, {worst})"
    with open_store(path) as dataset:
        for name, count in dataset.attrs.get("values_beyond_packing", {}).items():
            notes.append(f"{name}: {count} far beyond the values of a sample, stored as the highest or lowest that can be")
        if "attribution" in dataset.attrs:
            facts["attribution"] = dataset.attrs["attribution"]
    if record.static:
        facts["static fields"] = ", ".join(record.static)
    if record.statistics_are_stale:
        facts["statistics"] = "of the record before; --append --recompute brings them up to date, and networks are then trained anew"
    if notes:
        facts["notes"] = "; ".join(notes)
    return Summary(
        "prepare", written={str(path): "6-hourly 10 m wind, m s-1" if names == DEFAULT else f"6-hourly, {len(names)} channels"}, facts=facts
    )
