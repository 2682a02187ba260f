"""Builds the prepared store from a record or a simulation. A record can also be appended to a finished store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from wsdcast.data.climatology import training_statistics
from wsdcast.data.grid import Grid
from wsdcast.data.planet.simulation import Simulation
from wsdcast.data.regrid import Method, regrid
from wsdcast.data.sources.pieces import SourceRecord
from wsdcast.data.store.packings import sampled_channels, values_beyond
from wsdcast.data.store.shards import (
    CHUNK,
    SHARD,
    Packed,
    digest,
    fill,
    is_written,
    link_shard,
    remove_outdated,
    shards_per_graph,
    write_shard,
)
from wsdcast.data.store.zarr_store import (
    DEFAULT_CHANNELS,
    Channels,
    Packing,
    add_variables,
    channels_of,
    close_store,
    create_store,
    name_channels,
    open_store,
)
from wsdcast.data.variables import STATIC_FIELDS
from wsdcast.runs.errors import UserError
from wsdcast.runs.resources import require_memory, return_freed_memory

Times = NDArray[np.datetime64]


@dataclass(frozen=True)
class Finished:
    """A finished store to which times are appended.

    Attributes:
        path: path of the store.
        dataset: its content, lazily.
        id: identifies the data that networks are trained on. It does not change when times are appended.
    """

    path: Path
    dataset: xr.Dataset
    id: str

    @property
    def times(self) -> Times:
        """The times of the store, (time,)."""
        return self.dataset["time"].values.astype("datetime64[ns]")


def require_memory_to_build(target: Grid, steps: int, channels: Channels) -> None:
    """Raise a UserError unless preparing ``steps`` times fits in memory: at the peak, float32 shards in work and their packed copies.

    For 3,200 times of the planet at 240x121 these are 0.71 GB; the whole process took 0.84 GB (``/usr/bin/time -v wsdcast prepare``).
    """
    count, points = len(channels.all), target.size
    needed = min(steps, shards_per_graph(count) * SHARD) * count * points * 6.0
    require_memory(needed, f"preparing {steps} steps of {count} channels on the grid {target.name}")


def build(
    partial: Path,
    target: Grid,
    method: Method,
    origin: SourceRecord | Simulation,
    finished: Finished | None,
    how: dict[str, Any],
    channels: Channels,
    packing: Packing,
) -> Iterator[int]:
    """Write all shards that an unfinished store lacks. Yield the number of times written in each round.

    The store is claimed by this process. ``how`` are arguments of :func:`dask.compute`.

    Raises:
        UserError: if shards are missing at the end, because somebody removed them.
    """
    times = origin.times if finished is None else np.concatenate([finished.times, origin.times])
    offset = times.size - origin.times.size
    create_store(partial, {"time": times}, target, channels.all, (CHUNK,), (SHARD,), packing)
    name_channels(partial, channels)
    marks = []
    for first in range(0, times.size, SHARD):
        last = min(times.size, first + SHARD)
        made_from: list[object] = [target.name, method, times[first:last].tobytes()]
        if channels != DEFAULT_CHANNELS:
            made_from += [channels.all, *(field.tobytes() for field in packing)]
        if finished is not None and first < offset:
            made_from.append(finished.id)
        if isinstance(origin, Simulation):
            made_from.append(origin.seed)
        elif last > offset:
            made_from += origin.sources(max(0, first - offset), last - offset)
        marks.append(digest(*made_from))
    remove_outdated(partial, channels.all, marks)
    if isinstance(origin, Simulation):
        yield from _fill_simulated(partial, origin, packing, marks)
    else:
        kept = None if finished is None else _take_over(partial, channels.all, finished, marks)
        yield from fill(partial, origin, target, method, packing, marks, kept, offset, **how)
    if lost := [shard for shard, mark in enumerate(marks) if not is_written(partial, channels.all, shard, mark)]:
        raise UserError(f"{partial}: {len(lost)} shards vanished while others were written; run the command again to write them")


def _take_over(partial: Path, names: Sequence[str], finished: Finished, marks: list[str]) -> Packed:
    """Link the full shards of a finished store, and return the times of its last incomplete shard."""
    count = finished.times.size
    for shard in range(count // SHARD):
        if not is_written(partial, names, shard, marks[shard]):
            link_shard(partial, names, finished.path, shard, marks[shard])
    group: Any = zarr.open_group(finished.path, mode="r")
    return np.stack([group[name][count - count % SHARD :] for name in names], axis=1)


def _fill_simulated(partial: Path, origin: Simulation, packing: Packing, marks: list[str]) -> Iterator[int]:
    """Simulate from the first time on, because each state needs the one before, and write the shards that are missing."""
    if all(is_written(partial, origin.channels, shard, mark) for shard, mark in enumerate(marks)):
        return
    blocks: list[Packed] = []
    shard = 0
    for block in origin.blocks(SHARD // 8):
        blocks.append(packing.pack(block))
        if len(blocks) == 8 or shard * SHARD + sum(map(len, blocks)) == origin.times.size:
            if not is_written(partial, origin.channels, shard, marks[shard]):
                write_shard(partial, shard, marks[shard], blocks)
            blocks, shard = [], shard + 1
        yield block.shape[0]


def finish(partial: Path, target: Grid, origin: SourceRecord | Simulation, finished: Finished | None, attributes: dict[str, Any]) -> None:
    """Add static fields, statistics of the training split and attributes to a store whose shards are complete.

    If ``attributes`` already have the statistics, those of ``finished`` are kept.
    """
    return_freed_memory()
    with open_store(partial, consolidated=False) as dataset:
        times = dataset["time"].values.astype("datetime64[ns]")
    variables, channels = {}, channels_of(partial)
    if finished is not None:
        names = [name for name in finished.dataset.data_vars if name not in channels.all]
        variables = {str(name): finished.dataset[name].load() for name in names}
    else:
        for name, field in _static(origin, target).items():
            variables[name] = xr.DataArray(field, dims=("latitude", "longitude"), attrs={"units": STATIC_FIELDS[name].units})
    if "normalisation" not in attributes:
        training = times < np.datetime64(attributes["validation_from"])
        normalisation, climatology = training_statistics(partial, times, training, target)
        attributes = attributes | {"normalisation": normalisation}
        variables |= climatology
    add_variables(partial, variables)
    name_channels(partial, channels)  # xarray removed the names
    if sampled_channels(origin) and (beyond := values_beyond(partial)):
        attributes = attributes | {"values_beyond_packing": beyond}
    close_store(partial, attributes)


def _static(origin: SourceRecord | Simulation, target: Grid) -> dict[str, NDArray[np.float32]]:
    """Return the static fields on the target grid, without those that have missing values there."""
    if isinstance(origin, Simulation):
        return origin.static
    assert origin.grid is not None
    fields = {name: regrid(field, origin.grid, target, missing="nan") for name, field in origin.static.items()}
    return {name: field for name, field in fields.items() if np.isfinite(field).all()}
