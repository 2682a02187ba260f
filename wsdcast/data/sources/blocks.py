"""Reads blocks of a record from files and stores, and refuses values that cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.sources.file_lock import reading_values
from wsdcast.data.sources.layout import Stored, StoredByChannels, fields_of, select, values_of
from wsdcast.data.sources.opening import Address, open_dataset
from wsdcast.data.steps import STEP, time_text, to_the_second
from wsdcast.data.variables import channel_units_in_words, physical_range, variable, words
from wsdcast.runs.errors import UserError
from wsdcast.runs.progress import note_once


class BadValuesError(UserError):
    """Values of a source that are missing or cannot be.

    Attributes:
        time: the first time that has them.
    """

    def __init__(self, message: str, time: np.datetime64) -> None:
        super().__init__(message, time)  # both, because a worker of a cluster sends the error to its client
        self.time = time

    def __str__(self) -> str:
        return str(self.args[0])

    def with_skip(self, first: np.datetime64) -> str:
        """Return the message with advice: ``wsdcast prepare`` can leave the time out, or end before it unless it is the ``first``."""
        skip = f"{self}; --skip {time_text(self.time)} leaves that time out"
        return skip + (f", --end {time_text(self.time - STEP)} all from it on" if self.time > first else "")


@dataclass(frozen=True)
class Reading:
    """The part of a block that one variable of one piece has.

    Attributes:
        channels: the channels that are read from the variable.
        wanted: all channels of the record.
        address, name: of the piece.
        state: of the piece when the record was opened, as for :func:`cached_fields`.
        indices: positions in the piece of the times that are read, increasing, (time,).
        times: the times there when the record was opened, (time,).
        places: position of each of these times in the block, counted from its first time, (time,).
    """

    channels: tuple[str, ...]
    wanted: tuple[str, ...]
    address: Address
    name: str
    state: str
    indices: NDArray[np.intp]
    times: NDArray[np.datetime64]
    places: NDArray[np.intp]


@dataclass(frozen=True)
class Block:
    """Consecutive times of the record, ``first`` to ``last`` exclusive, that are read together.

    Two readings have the same channels, or none in common.
    """

    first: int
    last: int
    readings: tuple[Reading, ...]


def read_block(block: Block) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield each channel and its values (time, latitude, longitude), from north to south and from 0 eastward.

    Values of a variable that does not exist everywhere, such as the temperature of the sea surface, are NaN where it does not.

    Raises:
        UserError: if values cannot be read. The message names the file, the channel and the time.
        BadValuesError: if values are missing or are outside of the range of the variable. The message names the same.
    """
    together: dict[tuple[str, ...], list[Reading]] = {}
    for reading in block.readings:
        together.setdefault(reading.channels, []).append(reading)
    for channels, readings in together.items():
        parts = [_read(reading) for reading in readings]
        if len(parts) == 1 and np.all(np.diff(readings[0].places) == 1):
            yield from zip(channels, parts[0], strict=True)
            continue
        values = np.empty((len(channels), block.last - block.first, *parts[0].shape[2:]), dtype=np.float32)
        for reading, part in zip(readings, parts, strict=True):
            values[:, reading.places] = part
        yield from zip(channels, values, strict=True)


def _read(reading: Reading) -> NDArray[np.float32]:
    """Return the values of a reading, (channel, time, latitude, longitude)."""
    times = reading.times
    with reading_values(reading.address, f"{reading.name}: {', '.join(map(words, reading.channels))} from {time_text(times[0])} on"):
        values = values_of(stored_at(reading), reading.indices)
    values = values.reshape(len(reading.channels), times.size, *values.shape[-2:])
    for channel, field in zip(reading.channels, values, strict=True):
        _check(field, channel, reading.name, times)
    return values


def _check(values: NDArray[np.float32], channel: str, name: str, times: NDArray[np.datetime64]) -> None:
    known = values if variable(channel).absent is None else np.where(np.isnan(values), np.nanmean(values), values)
    least, most = known.min(axis=(1, 2)), known.max(axis=(1, 2))
    lowest, highest = physical_range(channel)
    for bad, problem in (
        (~np.isfinite(least) | ~np.isfinite(most), "missing or infinite values"),
        ((least < lowest) | (most > highest), "absurd values"),
        (least == most, "the same value everywhere"),  # a store returns its fill value for an absent chunk
    ):
        if bad.any():
            step = int(np.argmax(bad))
            extent = "" if np.isnan(least[step]) else f" ({least[step]:g} to {most[step]:g} {channel_units_in_words(channel)})"
            raise BadValuesError(
                f"{name}: {problem}{extent} in {words(channel)} at {time_text(times[step])}"
                + (f" and {bad.sum() - 1} more of the {bad.size} steps read with it" if bad.sum() > 1 else ""),
                times[step],
            )
    if odd := repeated_extreme(values):
        where = f"{name}: {odd[1]} points of {words(channel)}, read together, have {odd[0]:g} {channel_units_in_words(channel)}"
        note_once(f"{where}, far from all others: perhaps a fill value that is not declared")


DISTANCE_OF_FILL_VALUES = 0.2
"""An extreme is noted if it is farther from all other values than this share of their range. Extremes of real wind are closer."""


def repeated_extreme(values: NDArray[np.float32]) -> tuple[float, int] | None:
    """Return an extreme that occurs more than once, far from all other values, and how often; None if there is none.

    Such a value may be a fill value that the file does not declare.
    """
    for extreme in (values.min(), values.max()):
        others = values != extreme
        count = values.size - int(np.count_nonzero(others))
        if 1 < count < values.size / 2:
            least, most = (float(reduced(where=others, initial=start)) for reduced, start in ((values.min, np.inf), (values.max, -np.inf)))
            if max(least - extreme, extreme - most) > DISTANCE_OF_FILL_VALUES * (most - least):
                return float(extreme), count
    return None


def close_all() -> None:
    """Close the files that :func:`read_block` keeps open. Otherwise a file that is changed in place would not be noticed."""
    cached_fields.cache_clear()


@lru_cache(maxsize=64)
def cached_fields(address: Address, state: str, names: tuple[str, ...]) -> StoredByChannels:
    """Return the lazy channels of one piece (:func:`fields_of`). It stays open, because a store is read in many blocks.

    A file whose ``state`` (:func:`wsdcast.data.sources.opening.state_of`) changed is opened anew.
    """
    return fields_of(open_dataset(address, names), names)


def stored_at(reading: Reading) -> Stored:
    """Return the variable that a reading is of, all times of it. The piece may have grown since the record was opened.

    Raises:
        UserError: if the times of the reading are others now, because another program has replaced the file or store.
    """
    stored = select(cached_fields(reading.address, reading.state, reading.wanted), reading.channels)
    now = stored.array["time"].values
    if reading.indices.max() >= now.size or (to_the_second(now[reading.indices]) != reading.times).any():
        raise UserError(f"{reading.name}: its times changed while it was read; run the command again")
    return stored
