"""Fills the prepared store shard by shard. A run that is killed at any moment can go on later and gives the same bytes.

A shard is one file of each channel. One task writes a whole shard and then marks it with a digest of its inputs. A shard whose mark still
agrees is not written again. Marks are kept outside the store, next to it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from dask.base import compute
from dask.delayed import delayed
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.regrid import Method, regrid
from wsdcast.data.sources.blocks import Block, read_block
from wsdcast.data.sources.pieces import SourceRecord
from wsdcast.data.store.zarr_store import Packing, channels_of
from wsdcast.data.variables import variable
from wsdcast.runs.resources import return_freed_memory
from wsdcast.runs.unfinished import mark, marked

CHUNK, SHARD = 8, 512
"""Times in one chunk, which is read at once, and times in one shard, which is one file. docs/results/prepare.md has the measurements."""
SHARDS_PER_GRAPH = 4
"""Shards of two channels that are made at the same time. The number limits memory but gives a cluster enough work."""

LEAST_SHARE = 1e-3
"""A target cell gets a value where a variable exists on at least this share of it. Below, rounding would count."""

Packed = NDArray[np.int16]


def shards_per_graph(channels: int) -> int:
    """Return how many shards of so many channels are made at the same time."""
    return max(1, SHARDS_PER_GRAPH * 2 // channels)


def digest(*parts: object) -> str:
    """Return a digest of all parts, to mark a shard with."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def is_written(store: Path, names: Sequence[str], shard: int, mark_text: str) -> bool:
    """Return whether a shard exists for all channels and its mark is ``mark_text``."""
    exists = all((store / name / "c" / str(shard)).exists() for name in names)
    return exists and marked(store, str(shard)) == mark_text


def has_shards(store: Path) -> bool:
    """Return whether a store, which may be missing or unfinished, has a shard of any channel, marked or not."""
    return any(store.glob("*/c/*/0/0"))


def write_shard(store: Path, shard: int, mark_text: str, parts: Sequence[Packed]) -> int:
    """Write the packed states (time, channel, latitude, longitude) of a shard, then its mark. Return the number of times."""
    steps = sum(part.shape[0] for part in parts)
    group = zarr.open_group(store, mode="r+", use_consolidated=False)
    for channel, name in enumerate(channels_of(store).all):
        array: Any = group[name]
        array[shard * SHARD : shard * SHARD + steps] = np.concatenate([part[:, channel] for part in parts])
    mark(store, str(shard), mark_text)
    return steps


def link_shard(store: Path, names: Sequence[str], finished: Path, shard: int, mark_text: str) -> None:
    """Take a shard over from a finished store by a hard link, or by a copy if links are not possible. Shards never change in place."""
    for name in names:
        source, target = (path / name / "c" / str(shard) / "0" / "0" for path in (finished, store))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)
    mark(store, str(shard), mark_text)


def remove_outdated(store: Path, names: Sequence[str], marks: Sequence[str]) -> None:
    """Remove shards whose marks do not agree with ``marks``."""
    for name in names:
        for path in (store / name / "c").glob("*"):
            shard = int(path.name)
            if shard >= len(marks) or not is_written(store, names, shard, marks[shard]):
                shutil.rmtree(path)


def fill(
    store: Path,
    record: SourceRecord,
    target: Grid,
    method: Method,
    packing: Packing,
    marks: Sequence[str],
    kept: Packed | None,
    offset: int,
    **scheduler: Any,
) -> Iterator[int]:
    """Read, regrid and write all shards that are missing. Yield the number of times written after each dask graph.

    A graph makes a few shards. Its tasks are blocks of the source, which are read and regridded, and shards, which are written. A block
    that reaches beyond the shards of one graph is passed on to the next graph, so that nothing is read twice. ``offset`` is the index in
    the store of the record's first time, and ``kept`` has the packed states before it in the shard where the record begins.
    """
    assert record.grid is not None
    read = delayed(regridded, pure=False)
    write = delayed(write_shard, pure=False)
    blocks = list(record.blocks())
    firsts = np.array([block.first for block in blocks]) + offset
    total = offset + record.times.size
    missing = [shard for shard, mark_text in enumerate(marks) if not is_written(store, record.channels, shard, mark_text)]
    carried: dict[int, Any] = {}
    together = shards_per_graph(len(record.channels))
    for begin in range(0, len(missing), together):
        subset = missing[begin : begin + together]
        regrids, writes = carried, []
        for shard in subset:
            first, last = shard * SHARD, min(total, (shard + 1) * SHARD)
            parts: list[Any] = [kept] if kept is not None and first < offset else []
            for number in range(max(0, int(np.searchsorted(firsts, first, "right")) - 1), int(np.searchsorted(firsts, last))):
                block = blocks[number]
                if number not in regrids:
                    regrids[number] = read(block, record.channels, record.grid, target, method, packing)
                parts.append(regrids[number][max(0, first - offset - block.first) : last - offset - block.first])
            writes.append(write(store, shard, marks[shard], parts))
        reaching = {number: regrids[number] for number in regrids if blocks[number].last + offset > last}
        return_freed_memory()  # of the graph before, or of the sample for the packing
        written, carried = compute(writes, reaching, **scheduler)
        yield sum(written)


def regridded(block: Block, names: Sequence[str], source: Grid, target: Grid, method: Method, packing: Packing) -> Packed:
    """Read a block and return its channels ``names`` on the target grid, packed, (time, channel, latitude, longitude)."""
    out = np.empty((block.last - block.first, len(names), *target.shape), dtype=np.int16)
    for name, values in read_block(block):
        channel = names.index(name)
        out[:, channel] = packing.of([channel]).pack(on_grid(values, source, target, method, variable(name).absent))
    return out


def on_grid(values: NDArray[np.floating], source: Grid, target: Grid, method: Method, absent: float | None) -> NDArray[np.floating]:
    """Return fields on the target grid.

    Points where a variable does not exist (NaN) do not count in the mean over a target cell. A cell with none other gets ``absent``.
    """
    if absent is None or not np.isnan(values).any():
        return regrid(values, source, target, method)
    exists = np.isfinite(values)
    share = regrid(exists.astype(np.float32), source, target, method)
    total = regrid(np.where(exists, values, np.float32(0)), source, target, method)
    return np.divide(total, share, out=np.full_like(total, absent), where=share > LEAST_SHARE)
