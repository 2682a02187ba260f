"""Opens a record that is spread over files or stores: orders its times and lists its problems, without reading its values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.sources.file_lock import reading_values
from wsdcast.data.sources.layout import fields_of, static_of, values_of
from wsdcast.data.sources.naming import contents, known_names
from wsdcast.data.sources.opening import Address, addresses, of_address, open_dataset, shown, state_of, unpacked
from wsdcast.data.sources.pieces import Piece, SourceRecord
from wsdcast.data.sources.record_times import choose_times
from wsdcast.data.sources.space import order_of
from wsdcast.data.steps import to_the_second
from wsdcast.data.variables import DEFAULT, words
from wsdcast.runs.errors import UserError, first_few

OVER_AN_INTERVAL = re.compile(r"time\d*: *(?:\w+: *)*(mean|maximum|minimum|sum|median|mode|mid_range)\b")
"""CF's cell methods that make one value of those of an interval."""


def open_record(
    source: Address | Sequence[Path],
    scratch: Path,
    start: datetime | None = None,
    end: datetime | None = None,
    skip: Sequence[datetime] = (),
    all_hours: bool = False,
    channels: Sequence[str] = DEFAULT,
    in_a_row: int = 2,
) -> SourceRecord:
    """Inspect all files or stores of a source without reading their values.

    Args:
        source: a built-in name, URL, store, path, directory or glob, or a list of files.
        scratch: directory where zipped files are unpacked.
        start, end: first and last time to take, UTC. Default: all times.
        skip: times to leave out, UTC.
        all_hours: whether times at other hours than 00, 06, 12 and 18 UTC are kept. Scoring forecasts needs them.
        channels: names of the channels (:mod:`wsdcast.data.variables`).
        in_a_row: number of states in a row, 6 h apart, that are needed. If it is above 1 and no state follows another, this is a problem.

    Returns:
        The record. If it has problems, only these may be used.

    Raises:
        UserError: if there is no source of that name.
    """
    record, static = SourceRecord(channels=tuple(channels)), list[_Static]()
    for outer in addresses(source):
        try:
            for address in unpacked(outer, scratch):
                name = shown(address, outer)
                try:
                    _look_at(address, name, record, static)
                except UserError as error:
                    record.problems.append(of_address(address, error).replace(str(address), name))
        except (UserError, OSError) as error:
            record.problems.append(str(error))
    of_static = {field.file for field in static}
    if record.pieces:
        if without := [file for file in record.without_any if file not in of_static]:
            record.notes.append(f"{len(without)} of its files have none of the variables and are left out: {first_few(without)}")
        if record.forecasts:
            record.notes.append(f"{len(record.forecasts)} of its files are forecasts, not analyses: {first_few(record.forecasts)}")
        choose_times(record, start, end, np.array(skip, dtype="datetime64[ns]"), all_hours, in_a_row)
    else:
        record.problems += record.without_any.values()
    if record.grid is not None:
        for field in static:
            if record.grid.is_close(field.grid):
                record.static.setdefault(field.name, field.values)
            else:
                record.notes.append(f"{field.file}: {field.name} is on another grid and left out")
    return record


@dataclass(frozen=True)
class _Static:
    """A static field of one file or store."""

    file: str
    name: str
    grid: Grid
    values: NDArray[np.float32]


def _look_at(address: Address, name: str, record: SourceRecord, static: list[_Static]) -> None:
    """Add one file or store to the record, and its static fields to ``static``.

    Raises:
        UserError: if the file or store cannot be read, or if its grid differs from that of the pieces before it. In the second case its
            times are in the record all the same.
    """
    with open_dataset(address, record.channels) as dataset:
        first, _ = valid = _valid(dataset)
        with reading_values(address, "its static fields"):
            try:
                fields, notes = static_of(dataset)
                record.notes += [note for note in notes if note not in record.notes]
                for field, stored in fields.items():
                    chosen = int(np.argmax(stored.array["time"].values >= first))
                    static.append(_Static(name, field, order_of(stored.array)[2], values_of(stored, np.array([chosen]))[0]))
            except UserError as error:
                record.notes.append(f"{name}: its static fields are left out ({error})")
        _add(address, name, dataset, valid, record)


def _add(address: Address, name: str, dataset: xr.Dataset, valid: tuple[np.datetime64, np.datetime64], record: SourceRecord) -> None:
    fields = fields_of(dataset, record.channels)
    if not fields:
        names, among = first_few(map(words, record.channels)), first_few(contents(dataset)) or "nothing"
        record.without_any[name] = f"{name}: has none of {names}; looked for {known_names(record.channels[0])} among {among}"
        return
    record.contents += [variable for variable in contents(dataset) if variable not in record.contents]
    arrays = [stored.array for stored in fields.values()]
    times = to_the_second(arrays[0]["time"].values)
    for array in arrays[1:]:
        if not np.array_equal(to_the_second(array["time"].values), times, equal_nan=True):
            raise UserError(f"{array.name} has other times than {arrays[0].name}")
    chunks = {channel: stored.chunk for channels, stored in fields.items() for channel in channels}
    record.pieces.append(Piece(address, name, f"{state_of(address)} {times.size} times", times, chunks, tuple(fields), valid))
    for array in arrays:
        if over := OVER_AN_INTERVAL.search(str(array.attrs.get("cell_methods", ""))):
            remark = f"{array.name} is the {over[1]} over an interval (cell_methods), not the value at its time"
            record.notes += [remark] if remark not in record.notes else []
    if max(stored.lead_hours for stored in fields.values()):
        record.forecasts.append(name)
    if np.isnat(times).any():
        raise UserError(f"{np.isnat(times).sum()} of its {times.size} times are missing")
    record.misfits.append(address)  # removed below if its grid fits
    for stored in fields.values():
        grid = order_of(stored.array)[2]
        rows = -np.diff(grid.latitude)
        if rows.max() > 1.6 * np.median(rows):
            gap = int(np.argmax(rows))
            raise UserError(f"rows are missing between latitudes {grid.latitude[gap]:g} and {grid.latitude[gap + 1]:g}")
        if record.grid is None:
            record.grid = grid
        elif not record.grid.is_close(grid):
            raise UserError(f"its grid ({grid.name}) differs from that of the files before it ({record.grid.name})")
    record.misfits.pop()


def _valid(dataset: xr.Dataset) -> tuple[np.datetime64, np.datetime64]:
    """Return the first and last time that a store has data for, according to its attributes.

    Stores can declare more times than they have data for: the time axis of ARCO-ERA5 reaches to 2050.

    Raises:
        UserError: if the attributes are not dates.
    """
    start, stop = (dataset.attrs.get(f"valid_time_{name}") for name in ("start", "stop"))
    for text in (start, stop):
        if text is not None and not re.fullmatch(r"\d{4}(-\d\d(-\d\d([T ][\d:]+Z?)?)?)?", str(text)):
            raise UserError(f"its attribute valid_time_start or valid_time_stop is no date: {text}")
    first, last = (np.datetime64(str(text or default).removesuffix("Z")) for text, default in ((start, "1678-01-01"), (stop, "2262-01-01")))
    unit: Any = np.datetime_data(last.dtype)[0]
    if unit in ("Y", "M", "D"):  # the whole year, month or day counts
        last = (last + np.timedelta64(1, unit)).astype("datetime64[ns]") - np.timedelta64(1, "ns")
    return first.astype("datetime64[ns]"), last.astype("datetime64[ns]")
