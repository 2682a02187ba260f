"""States of a packed store: in memory, mapped from a file, or read from the store when they are used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.store.zarr_store import Packing, arrays_of, packing_of
from wsdcast.runs.errors import UserError, first_line
from wsdcast.runs.resources import new_mapped


@dataclass(frozen=True)
class PackedStates:
    """Packed states in memory, which need half the size of float32. They are indexed along time and give float32.

    Attributes:
        values: (time, channel, latitude, longitude), integers, in memory or mapped from a file.
        packing: what the integers mean.
    """

    values: NDArray[np.int16]
    packing: Packing

    def __getitem__(self, steps: Any) -> NDArray[np.float32]:
        if isinstance(steps, tuple):  # the packing is of all channels
            raise IndexError(f"states[{steps}]: states are indexed along time alone")
        return self.packing.unpack(self.values[steps])

    @property
    def shape(self) -> tuple[int, ...]:
        """(time, channel, latitude, longitude)."""
        return self.values.shape


@dataclass(frozen=True)
class StoredStates:
    """States of a packed store that stay on disk. Indexing them along time reads only those states and gives float32.

    A damaged file of the store is a UserError when it is read.

    Attributes:
        arrays: one Zarr array for each channel, (time, latitude, longitude).
        packing: what their integers mean.
    """

    arrays: tuple[Any, ...]
    packing: Packing

    def __getitem__(self, steps: Any) -> NDArray[np.float32]:
        indices = np.arange(self.shape[0])[steps]
        # Each state is read once and in order, so each chunk of the store is read once.
        positions, inverse = np.unique(indices, return_inverse=True)
        states = np.empty((positions.size, *self.shape[1:]), np.float32)
        neighbours = positions.size and np.ptp(positions) == positions.size - 1
        chosen = slice(positions[0], positions[-1] + 1) if neighbours else positions  # zarr takes less time for a slice
        for channel, array in enumerate(self.arrays if positions.size else ()):
            with _decoding(array):
                states[:, channel] = self.packing.of([channel]).unpack(array.oindex[chosen])
        return states[inverse.reshape(indices.shape)]

    @property
    def shape(self) -> tuple[int, ...]:
        """(time, channel, latitude, longitude)."""
        first = self.arrays[0].shape
        return (first[0], len(self.arrays), *first[1:])


def read_packed(path: Path, steps: slice = slice(None), mapped: Path | None = None) -> PackedStates:
    """Read the states of a packed store.

    Args:
        path: path of the store.
        steps: which times are read.
        mapped: path of a file (.npy) that is written and holds the states. Default: they are held in memory.

    Raises:
        UserError: if a file of the store is damaged.
    """
    arrays = arrays_of(path)
    begin, end, _ = steps.indices(arrays[0].shape[0])
    shape = (end - begin, len(arrays), *arrays[0].shape[1:])
    states = np.empty(shape, np.int16) if mapped is None else new_mapped(mapped, np.int16, shape)
    shard = arrays[0].shards[0]
    for first in range(begin, end, shard):  # times first, so that a mapped file is written from its beginning to its end
        last = min(end, first + shard)
        for channel, array in enumerate(arrays):
            with _decoding(array):
                states[first - begin : last - begin, channel] = array[first:last]
    return PackedStates(states, packing_of(path))


@contextmanager
def _decoding(array: Any) -> Iterator[None]:
    """Name the array whose file cannot be decoded.

    Raises:
        UserError: in the place of an error of a decompressor or a checksum.
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{Path(array.store.root) / array.path}: damaged ({first_line(error)}); prepare the store again") from None
