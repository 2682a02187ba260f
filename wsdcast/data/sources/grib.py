"""Reads variables and static fields from GRIB files, editions 1 and 2, with every value at the point that its message states.

Messages are read with ecCodes, not with cfgrib: cfgrib places values by the corners of the grid, and of two messages for one time it takes
the first.
"""

from __future__ import annotations

import functools
import operator
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from wsdcast.data.sources.grib_names import STATIC, WIND, name_of, names_of
from wsdcast.data.sources.grib_points import Points, grid_of, points_of
from wsdcast.data.steps import time_text
from wsdcast.runs.errors import UserError

MISSING = 1e30
"""The number that ecCodes is told to put in place of missing values. No field has it."""


@dataclass(frozen=True)
class Message:
    """One field of a GRIB file.

    Attributes:
        name: its short name, with the level as in ``t_850hpa`` if it is on one, or the name in :data:`WIND`.
        units: its units.
        position: byte where the message of the field begins, and the index of the field in that message.
        initial: initial time of the forecast, or the time of the analysis.
        step: lead time.
        member: number of the ensemble member; 0 if there is none.
        kind: ecCodes' type of step: ``instant``, or a statistic over an interval, such as ``avg``.
        grid: text that identifies the grid and the order of its points.
    """

    name: str
    units: str
    position: tuple[int, int]
    initial: np.datetime64
    step: np.timedelta64
    member: int
    kind: str
    grid: str


def open_grib(path: str, names: Sequence[str]) -> xr.Dataset:
    """Return some channels and the static fields of a GRIB file, lazily. What else it holds is in the attribute ``other_variables``.

    The dimensions of the variables are (time, number, step, latitude, longitude), without those of length one. There is a coordinate
    ``valid_time``. If a file has one member but not one message for every initial time and step, the dimension ``valid_time`` takes the
    place of these two. A time with two messages then occurs twice, so that it is refused as in every other format.

    Raises:
        UserError: if ecCodes is not installed, if the file is damaged or cut off, or if its variables are not on one regular grid.
    """
    try:
        import eccodes
    except ImportError:
        raise UserError(f"{path}: reading GRIB needs `pip install 'wsdcast[grib]'`") from None
    try:
        messages, grids, others = _messages(path, names_of(names))
    except (eccodes.CodesInternalError, OSError, EOFError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as GRIB, it may be damaged or cut off ({error or type(error).__name__})") from None
    varying = [message for message in messages if message.name not in STATIC]
    grid = grid_of(path, [grids[message.grid] for message in varying or messages])
    if grid is None:
        return xr.Dataset(attrs={"other_variables": others})
    points = {name: own for name, own in grids.items() if isinstance(own, Points)}
    dataset = _variables(path, varying, points) if varying else xr.Dataset()
    for name, variable in dataset.data_vars.items():
        variable.attrs = _attributes([message for message in varying if message.name == name])
    for name in STATIC:
        for message in messages:
            if message.name == name and message.grid in points and points[message.grid].equal(grid):
                dataset[name] = _variable(path, [], np.array(message, dtype=object), points)
                dataset[name].attrs["units"] = message.units
                break
    dataset.attrs["other_variables"] = others
    return dataset.assign_coords(latitude=grid.latitude, longitude=grid.longitude)


def _messages(path: str, wanted: set[str]) -> tuple[list[Message], dict[str, Points | str], list[str]]:
    """Return the messages with the variables that are wanted, or with static fields; their grids; and the names of the other variables.

    A grid is its points, or the reason why it is not regular.
    """
    import eccodes

    messages, points, others, fields = list[Message](), dict[str, Points | str](), dict[str, None](), Counter[int]()
    size, end = Path(path).stat().st_size, 0
    for handle in _handles(path):
        offset = int(eccodes.codes_get_message_offset(handle))
        end = offset + int(eccodes.codes_get(handle, "totalLength"))
        name, position = name_of(handle), (offset, fields[offset])
        fields[offset] += 1
        if name not in wanted and name not in STATIC:
            others[name] = None
            continue
        grid = eccodes.codes_get(handle, "md5GridSection")
        if grid not in points:
            points[grid] = points_of(handle)
        initial, valid = (
            _time(*(eccodes.codes_get(handle, key, int) for key in (f"{prefix}Date", f"{prefix}Time"))) for prefix in ("data", "validity")
        )
        member = eccodes.codes_get(handle, "number", int) if eccodes.codes_is_defined(handle, "number") else 0
        units, kind = (eccodes.codes_get(handle, key) for key in ("units", "stepType"))
        messages.append(Message(name, units, position, initial, valid - initial, member, kind, grid))
    if end < size and b"GRIB" in _bytes_from(path, end):
        raise EOFError(f"its last message, from byte {end} on, is incomplete")
    return messages, points, list(others)


def _handles(path: str, offset: int = 0) -> Iterator[int]:
    """Yield ecCodes' handles of all fields from the byte ``offset`` of the file on. Each is released before the next one is read."""
    import eccodes

    eccodes.codes_grib_multi_support_on()  # u and v are often two fields of one message
    with Path(path).open("rb") as file:
        eccodes.codes_grib_multi_support_reset_file(file)
        file.seek(offset)
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            try:
                yield handle
            finally:
                eccodes.codes_release(handle)


def _bytes_from(path: str, offset: int) -> bytes:
    with Path(path).open("rb") as file:
        file.seek(offset)
        return file.read()


def _time(date: int, clock: int) -> np.datetime64:
    """Return the time of a date such as 20200131 and a clock such as 1830."""
    day = f"{date // 10000:04d}-{date // 100 % 100:02d}-{date % 100:02d}"
    return np.datetime64(f"{day}T{clock // 100:02d}:{clock % 100:02d}", "ns")


def _variables(path: str, messages: list[Message], points: dict[str, Points]) -> xr.Dataset:
    """Return the variables that the file has, on common axes of time. A missing message is read as NaN.

    Raises:
        UserError: if a member has two messages for one time, or if a component of the 10 m wind lacks times that the other has.
    """
    axes: dict[str, list[Any]] = {
        "time": sorted({message.initial for message in messages}),
        "number": sorted({message.member for message in messages}),
        "step": sorted({message.step for message in messages}),
    }
    by_name: dict[str, list[Message]] = {}
    for message in messages:
        by_name.setdefault(message.name, []).append(message)
    keys = Counter((message.name, message.initial, message.member, message.step) for message in messages)
    long_axes = [name for name, values in axes.items() if len(values) > 1]
    full = len(keys) == len(by_name) * len(axes["time"]) * len(axes["number"]) * len(axes["step"])
    if len(axes["number"]) == 1 and (max(keys.values()) > 1 or not full):
        return _by_valid_time(path, by_name, points)
    (_, initial, member, step), most = keys.most_common(1)[0]
    if most > 1:
        hours = step // np.timedelta64(1, "h")
        raise UserError(f"{path}: the forecast from {time_text(initial)} has {hours} h of member {member} twice")
    shape = tuple(len(axes[axis]) for axis in long_axes)
    positions = {axis: {value: index for index, value in enumerate(values)} for axis, values in axes.items()}
    dataset = xr.Dataset()
    for name, fields in by_name.items():
        table = np.full([len(values) for values in axes.values()], None, dtype=object)
        for field in fields:
            table[positions["time"][field.initial], positions["number"][field.member], positions["step"][field.step]] = field
        dataset[name] = _variable(path, long_axes, table.reshape(shape), points)
    coordinates = {axis: (axis, np.array(values)) if axis in long_axes else values[0] for axis, values in axes.items()}
    dataset = dataset.assign_coords(coordinates)
    return dataset.assign_coords(valid_time=dataset["time"] + dataset["step"])


def _by_valid_time(path: str, by_name: dict[str, list[Message]], points: dict[str, Points]) -> xr.Dataset:
    """Return the variables along the valid times of their messages. A time with two messages of one variable occurs twice.

    Raises:
        UserError: if a component of the 10 m wind lacks times that the other has.
    """
    times = {name: Counter((field.initial + field.step, field.step) for field in fields) for name, fields in by_name.items()}
    wind = [times[name] for name in WIND.values() if name in times]
    if len(wind) == 2 and wind[0] != wind[1]:
        lone = sorted(wind[0].keys() ^ wind[1].keys())
        where = f"only one of u and v is there at {time_text(lone[0][0])}" if lone else ""
        raise UserError(f"{path}: {where or 'u and v have different numbers of messages for the same time'}")
    common = sorted(functools.reduce(operator.or_, times.values()).elements())
    dataset = xr.Dataset()
    for name, fields in by_name.items():
        waiting: dict[Any, list[Message]] = {}
        for field in fields:
            waiting.setdefault((field.initial + field.step, field.step), []).append(field)
        row = np.full(len(common), None, dtype=object)
        row[:] = [waiting[time].pop(0) if waiting.get(time) else None for time in common]
        dataset[name] = _variable(path, ["valid_time"], row, points)
    valid, step = (np.array(values) for values in zip(*common, strict=True))
    return dataset.assign_coords(valid_time=valid, step=("valid_time", step))


def _variable(path: str, axes: list[str], messages: NDArray[np.object_], points: dict[str, Points]) -> xr.Variable:
    """Return the fields of a table of messages as a lazy variable."""
    lazy = indexing.LazilyIndexedArray(_Fields(path, messages, points))
    return xr.Variable((*axes, "latitude", "longitude"), lazy, encoding={"preferred_chunks": dict.fromkeys(axes, 1)})


def _attributes(messages: list[Message]) -> dict[str, str]:
    """Return the attributes of a variable: its units, and CF's ``cell_methods`` for values over an interval."""
    attributes, kinds = {"units": messages[0].units}, sorted({message.kind for message in messages} - {"instant"})
    if kinds:  # if there are several kinds, the first by name: the user is told of one of them
        words = {"avg": "mean", "max": "maximum", "min": "minimum", "accum": "sum"}
        attributes["cell_methods"] = f"time: {words.get(kinds[0], kinds[0])}"
    return attributes


class _Fields(BackendArray):
    """Fields of a table of messages, (..., latitude, longitude), read on demand as float32. Missing values and messages are NaN."""

    def __init__(self, path: str, messages: NDArray[np.object_], points: dict[str, Points]) -> None:
        self.path, self.messages, self.points = path, messages, points
        first: Any = next(message for message in messages.flat if message is not None)
        self.shape = (*messages.shape, *self.points[first.grid].order.shape)
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[np.float32]:
        *selections, rows, columns = key
        chosen: Any = self.messages
        for axis in reversed(range(len(selections))):
            chosen = np.take(chosen, np.arange(chosen.shape[axis])[selections[axis]], axis)
        chosen = np.asarray(chosen, dtype=object)
        fields = np.empty((chosen.size, *self.shape[-2:]), dtype=np.float32)
        for field, message in zip(fields, chosen.flat, strict=True):
            field[:] = np.nan if message is None else self._field(message)
        return fields.reshape(*chosen.shape, *self.shape[-2:])[..., rows, :][..., columns]

    def _field(self, message: Message) -> NDArray[np.float64]:
        import eccodes

        offset, number = message.position
        handles = _handles(self.path, offset)
        try:
            for _ in range(number + 1):
                handle = next(handles)
            eccodes.codes_set(handle, "missingValue", MISSING)
            values = eccodes.codes_get_values(handle)
        finally:
            handles.close()  # type: ignore[attr-defined]
        values[values == MISSING] = np.nan
        return values[self.points[message.grid].order]
