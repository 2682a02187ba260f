"""Fills the prepared store shard by shard. A run that is killed at any moment can go on later and gives the same bytes.

A shard is one file of each component. One task writes a whole shard and then marks it with a digest of its inputs. A shard whose mark still
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
from wsdcast.data.sources.pieces import Record
from wsdcast.data.store.zarr_store import VARIABLES, pack
from wsdcast.runs.unfinished import mark, marked

CHUNK, SHARD = 8, 512
"""Times in one chunk, which is read at once, and times in one shard, which is one file. docs/prepare.md has the measurements."""
SHARDS_PER_GRAPH = 4
"""Shards that are made at the same time. The number limits memory but gives a cluster enough work."""

Wind = NDArray[np.int16]


def digest(*parts: object) -> str:
    """Return a digest of all parts, to mark a shard with."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def is_written(store: Path, shard: int, digest: str) -> bool:
    """Return whether a shard exists and its mark is ``digest``."""
    exists = all((store / name / "c" / str(shard)).exists() for name in VARIABLES)
    return exists and marked(store, str(shard)) == digest


def write_shard(store: Path, shard: int, digest: str, parts: Sequence[Wind]) -> int:
    """Write the packed wind (time, channel, latitude, longitude) of a shard, then its mark. Return the number of times."""
    wind = np.concatenate(parts)
    group = zarr.open_group(store, mode="r+", use_consolidated=False)
    for channel, name in enumerate(VARIABLES):
        array: Any = group[name]
        array[shard * SHARD : shard * SHARD + wind.shape[0]] = wind[:, channel]
    mark(store, str(shard), digest)
    return wind.shape[0]


def link_shard(store: Path, finished: Path, shard: int, digest: str) -> None:
    """Take a shard over from a finished store by a hard link, or by a copy if links are not possible. Shards never change in place."""
    for name in VARIABLES:
        source, target = (path / name / "c" / str(shard) / "0" / "0" for path in (finished, store))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)
    mark(store, str(shard), digest)


def remove_outdated(store: Path, marks: Sequence[str]) -> None:
    """Remove half-written files, and shards whose marks do not agree with ``marks``."""
    for file in store.rglob("*.partial"):
        file.unlink()
    for name in VARIABLES:
        for path in (store / name / "c").glob("*"):
            shard = int(path.name)
            if shard >= len(marks) or not is_written(store, shard, marks[shard]):
                shutil.rmtree(path)


def fill(
    store: Path,
    record: Record,
    target: Grid,
    method: Method,
    marks: Sequence[str],
    kept: Wind | None = None,
    offset: int = 0,
    **scheduler: Any,
) -> Iterator[int]:
    """Read, regrid and write all shards that are missing. Yield the number of times written after each dask graph.

    A graph makes a few shards. Its tasks are blocks of the source, which are read and regridded, and shards, which are written. A block
    that reaches beyond the shards of one graph is passed on to the next graph, so that nothing is read twice.

    Args:
        store: path of the store, which has its metadata already.
        record: the record to read.
        target: grid of the store.
        method: method of regridding.
        marks: mark of each shard.
        kept: packed wind of the times before ``offset`` in the shard where the record begins.
        offset: index in the store of the record's first time.
        scheduler: arguments for :func:`dask.compute`.
    """
    assert record.grid is not None
    read = delayed(regridded, pure=False)
    write = delayed(write_shard, pure=False)
    blocks = list(record.blocks())
    firsts = np.array([block.first for block in blocks]) + offset
    total = offset + record.times.size
    missing = [shard for shard, mark in enumerate(marks) if not is_written(store, shard, mark)]
    carried: dict[int, Any] = {}
    for begin in range(0, len(missing), SHARDS_PER_GRAPH):
        subset = missing[begin : begin + SHARDS_PER_GRAPH]
        regrids, writes = carried, []
        for shard in subset:
            first, last = shard * SHARD, min(total, (shard + 1) * SHARD)
            parts: list[Any] = [kept] if kept is not None and first < offset else []
            for number in range(max(0, int(np.searchsorted(firsts, first, "right")) - 1), int(np.searchsorted(firsts, last))):
                block = blocks[number]
                if number not in regrids:
                    regrids[number] = read(block, record.grid, target, method)
                parts.append(regrids[number][max(0, first - offset - block.first) : last - offset - block.first])
            writes.append(write(store, shard, marks[shard], parts))
        reaching = {number: regrids[number] for number in regrids if blocks[number].last + offset > last}
        written, carried = compute(writes, reaching, **scheduler)
        yield sum(written)


def regridded(block: Block, source: Grid, target: Grid, method: Method) -> Wind:
    """Read a block and return it on the target grid, packed, (time, channel, latitude, longitude)."""
    out = np.empty((block.last - block.first, len(VARIABLES), *target.shape), dtype=np.int16)
    for component, values in read_block(block):
        out[:, "uv".index(component)] = pack(regrid(values, source, target, method))
    return out
