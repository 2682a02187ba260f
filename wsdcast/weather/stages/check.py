"""A check of a source before hours are spent: what it holds, what is wrong with it, and the size and time of its preparation."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsdcast.data.grid import Grid
from wsdcast.data.sources.blocks import BadValuesError, Block, close_all, read_block, repeated_extreme
from wsdcast.data.sources.opening import fingerprint
from wsdcast.data.sources.pieces import SourceRecord
from wsdcast.data.steps import STEP, time_text
from wsdcast.data.store.analysis import split
from wsdcast.data.store.building import require_memory_to_build
from wsdcast.data.store.shards import SHARD, on_grid
from wsdcast.data.variables import channel_units_in_words, decimals_of, variable, words
from wsdcast.runs.artefact import is_current, resolve
from wsdcast.runs.errors import UserError, first_few
from wsdcast.runs.inputs import address_given
from wsdcast.runs.names import ANALYSIS
from wsdcast.runs.overrides import Overridden
from wsdcast.runs.positions import evenly_spread
from wsdcast.runs.progress import track
from wsdcast.runs.resources import require_space
from wsdcast.runs.summary import Summary
from wsdcast.runs.times import TimeLike
from wsdcast.weather.recipe import Data, Recipe
from wsdcast.weather.stages.prepare import source_record

SAMPLED_BLOCKS = 12
"""Number of blocks that are read whole and regridded, spread evenly over the record. In addition one step of every file is read."""
PACKED_SHARE = 0.9
"""Size of a compressed store divided by that of the same values as int16: 0.84 to 0.98 for real fields (docs/results/prepare.md)."""


def check(
    source: str | Path,
    recipe: str | Path | Recipe | Overridden | None = None,
    run: str | Path | None = None,
    *,
    grid: str | None = None,
    method: str | None = None,
    start: TimeLike | None = None,
    end: TimeLike | None = None,
    skip: Sequence[TimeLike] | None = None,
) -> Summary:
    """Check a source as ``prepare`` would read it, and list all problems. Nothing is written, except open data to the user's cache.

    Args:
        source: as for ``prepare``, but not ``planet``.
        recipe, run, grid, method, start, end, skip: as for ``prepare``.

    Returns:
        A summary with facts and problems.

    Raises:
        UserError: if the source does not exist, or is ``planet``.
    """
    source = address_given(source, "source")
    period: dict[str, Any] = {"data__start": start, "data__end": end, "data__skip": skip}
    resolved, directory = resolve(recipe, run, Recipe, data__source=source, data__grid=grid, data__method=method, **period)
    data, target = resolved.data, Grid.regular(resolved.data.grid)
    if source == "planet":
        raise UserError("the simulated planet needs no check")
    summary = Summary("check", facts={"source": source})
    with tempfile.TemporaryDirectory() as scratch:
        record = source_record(data, source, Path(scratch))
        summary.problems += record.problems
        _describe(record, summary)
        fits = bool(record.times.size) and _fits(record, resolved, directory, summary)
        usable = len(record.places) == len(data.channels.all) and all(len(places) == record.times.size for places in record.places.values())
        if fits and record.grid is not None and usable:
            _sample(record, target, data, summary)
        close_all()
    try:
        if is_current(resolved, directory, ANALYSIS, False, fingerprint(source)):
            summary.facts["already there"] = f"{directory / ANALYSIS} is made from it"
    except UserError as error:
        summary.facts["in the way"] = str(error)
    return summary


def _describe(record: SourceRecord, summary: Summary) -> None:
    """Add to the summary what is known of a record before its values are read."""
    times, facts = record.times, summary.facts
    if record.pieces:
        facts["files or stores"] = len(record.pieces)
    if record.grid is not None:
        latitude = record.grid.latitude
        facts["grid"] = f"{record.grid.name} (longitudes x latitudes), rows from {latitude[0]:g} to {latitude[-1]:g}"
    if times.size:
        gaps = np.flatnonzero(np.diff(times) > STEP)  # duplicate times are no gaps; they are listed as problems
        missing = int(((times[gaps + 1] - times[gaps]) // STEP - 1).sum())
        facts["times"] = f"{time_text(times[0])} to {time_text(times[-1])}"
        facts["steps"] = f"{times.size} at 00, 06, 12 and 18 UTC, {gaps.size} gaps" + (f" with {missing} steps missing" if missing else "")
        if gaps.size:
            facts["gaps from"] = first_few(map(time_text, times[gaps] + STEP))
    if record.static:
        facts["static fields"] = ", ".join(record.static)
    for number, note in enumerate(record.notes, start=1):
        facts[f"note {number}"] = note


def _fits(record: SourceRecord, recipe: Recipe, directory: Path, summary: Summary) -> bool:
    """Whether disk and memory suffice for the store of a record. Add to the summary what the store would be, and what it would lack."""
    data, target, channels = recipe.data, Grid.regular(recipe.data.grid), recipe.data.channels.all
    size = int(2 * len(channels) * PACKED_SHARE * record.times.size * target.size)
    files = len(channels) * -(-record.times.size // SHARD)
    summary.facts["would write"] = f"{directory / ANALYSIS}, {target.name}, about {size / 1e6:.3g} MB in {files} files"
    if missing := [name for name in recipe.forcings.static if name not in record.static]:
        summary.problems.append(
            f"forcings.static: the source has no {', '.join(missing)}, which `wsdcast train` needs; -o forcings.static='[]' does without"
        )
    try:
        split(record.times, data.validation_from, data.test_from)
    except UserError as error:
        summary.problems.append(str(error))
    try:
        require_space(directory, 2 * size)
        require_memory_to_build(target, record.times.size, data.channels)
    except UserError as error:
        summary.problems.append(str(error))
        return False
    return True


def _sample(record: SourceRecord, target: Grid, data: Data, summary: Summary) -> None:
    """Read a sample of blocks and one step of every file. Add the ranges of values, problems and the time it takes to the summary."""
    assert record.grid is not None
    blocks = [block for block in record.blocks() if not any(reading.address in record.misfits for reading in block.readings)]
    if not blocks:
        return
    sample = [blocks[index] for index in evenly_spread(len(blocks), SAMPLED_BLOCKS)]
    least, most = dict.fromkeys(record.channels, np.inf), dict.fromkeys(record.channels, -np.inf)
    seconds, steps = 0.0, 0
    for block in track([*sample, *_last_steps(record)], "reading samples", len(sample) + len(record.pieces)):
        begin = time.perf_counter()
        try:
            for name, values in read_block(block):
                least[name] = min(least[name], float(np.nanmin(values)))
                most[name] = max(most[name], float(np.nanmax(values)))
                if odd := repeated_extreme(values):
                    points = f"{odd[1]} points read together"
                    summary.facts[f"note: {words(name)}"] = f"{points} have {odd[0]:g} {channel_units_in_words(name)}, far from all others"
                on_grid(values, record.grid, target, data.method, variable(name).absent)
        except UserError as error:
            problem = error.with_skip(record.times[0]) if isinstance(error, BadValuesError) else str(error)
            summary.problems += [problem] if problem not in summary.problems else []
            continue
        if block in sample:
            seconds += time.perf_counter() - begin
            steps += block.last - block.first
    sampled = f"in {steps} steps read as a sample, and the last of every file"
    for name in (name for name in record.channels if np.isfinite(least[name])):
        digits = f".{decimals_of(most[name] - least[name], 4)}f"
        summary.facts[f"range of {words(name)}"] = (
            f"{least[name]:{digits}} to {most[name]:{digits}} {channel_units_in_words(name)} {sampled}"
        )
    if steps:
        total = seconds / steps * record.times.size
        if total < 120:
            duration = f"{total:.0f} s"
        elif total < 7200:
            duration = f"{total / 60:.0f} min"
        else:
            duration = f"{total / 3600:.1f} h"
        summary.facts["would take"] = f"about {duration} for one thread, at {1e3 * seconds / steps:.1f} ms a step as in the sample"


def _last_steps(record: SourceRecord) -> list[Block]:
    """A block with the last step of every piece. Reading it detects truncated files."""
    blocks = []
    for name, places in record.places.items():
        for number in np.unique(places[:, 0]):
            step = int(np.flatnonzero(places[:, 0] == number)[-1])
            if record.pieces[number].address not in record.misfits:
                reading = record.reading(number, (name,), places[[step], 1], np.array([0]))
                blocks.append(Block(step, step + 1, (reading,)))
    return blocks
