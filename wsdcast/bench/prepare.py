"""``wsdcast bench prepare``: regridding compared with its bare sparse products, and the preparation of a long record at 0.25 degrees."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import xarray as xr
import zarr
from scipy.ndimage import gaussian_filter
from threadpoolctl import threadpool_limits
from zarr.codecs import BloscCodec
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import MemoryStore

from wsdcast.bench.measure import Benchmark, memory_curve, paired
from wsdcast.data.grid import Grid
from wsdcast.data.regrid import matrices, regrid
from wsdcast.data.sources.blocks import close_all, read_block
from wsdcast.data.sources.pieces import SourceRecord
from wsdcast.data.sources.record import open_record
from wsdcast.data.steps import STEP
from wsdcast.data.store.building import build, finish
from wsdcast.data.store.zarr_store import DEFAULT_CHANNELS, wind_packing
from wsdcast.data.variables import DEFAULT
from wsdcast.runs.positions import evenly_spread
from wsdcast.runs.progress import track
from wsdcast.runs.resources import size_of
from wsdcast.runs.unfinished import claim, marks_of

SOURCE, TARGET = "1440x721", "240x121"
KINDS = 16
"""Number of different fields in the generated source. They repeat."""
STEPS_READ_ALONE = 1000
"""Number of steps that are only read, to estimate the time of a bare read."""


class Generated(MemoryStore):
    """A Zarr store of random wind. It generates each chunk when it is read: one step, a compressed field of the size of ERA5's."""

    chunks: ClassVar[list[bytes]] = []  # an attribute of the class, because zarr makes more objects of this class that must share it

    async def get(self, key: str, prototype: BufferPrototype | None = None, byte_range: Any = None) -> Buffer | None:
        """Return the generated chunk of a step, or another entry of the store, such as metadata, from memory."""
        if "/c/" in key and key.split("/")[0] in DEFAULT:
            step = int(key.split("/c/")[1].split("/")[0])
            return (prototype or default_buffer_prototype()).buffer.from_bytes(self.chunks[step % KINDS])
        return await super().get(key, prototype, byte_range)

    def __hash__(self) -> int:
        return id(self)


def bench_prepare(years: float = 0.25) -> Benchmark:
    """Measure ``regrid``, and the preparation of a generated record: from 0.25 degrees to a finished store at 1.5 degrees.

    Args:
        years: length of the generated record, 6-hourly.

    Returns:
        The limit is the time of two bare sparse products on one core. The figures include the time of the preparation, the time of only
        reading its source, and the memory over time.
    """
    source, target = Grid.regular(SOURCE), Grid.regular(TARGET)
    fields = np.random.default_rng(0).standard_normal((8, *source.shape)).astype(np.float32)
    rows, columns = matrices(source, target, "conservative", "<f4")

    def bare() -> None:
        for field in fields:
            (columns @ (rows @ field).T).T  # noqa: B018

    buffer = np.empty_like(fields[0])

    def copy() -> None:
        for field in fields:
            np.copyto(buffer, field)

    with threadpool_limits(limits=1):
        competitors = {"xarray-regrid": _xarray_regrid(fields, source, target)} if find_spec("xarray_regrid") else {}
        limit, ours, copied, *theirs = paired(bare, lambda: regrid(fields, source, target), copy, *competitors.values())
        peers = {name: seconds / limit for name, seconds in zip(competitors, theirs, strict=True)}
    figures: dict[str, Any] = {
        "bare products, ms a field": 1e3 * limit / len(fields),
        "regrid, ms a field": 1e3 * ours / len(fields),
        "copy, ms a field": 1e3 * copied / len(fields),
    }
    return Benchmark(
        "prepare",
        f"two bare sparse products of scipy, {SOURCE} to {TARGET}, one core",
        ours / limit,
        peers,
        figures | _preparation(years, target),
    )


def _xarray_regrid(fields: np.ndarray[Any, Any], source: Grid, target: Grid) -> Callable[[], Any]:
    """Return a function that regrids the same fields with xarray-regrid in its fastest mode.

    The latitudes are in its own order, and it does not look for missing values.
    """
    import xarray_regrid  # noqa: F401

    coordinates = {"latitude": source.latitude[::-1], "longitude": source.longitude}
    wind = xr.DataArray(np.ascontiguousarray(fields[:, ::-1]), dims=("time", "latitude", "longitude"), coords=coordinates)
    target_grid = xr.Dataset(coords={"latitude": target.latitude[::-1], "longitude": target.longitude})
    return lambda: wind.regrid.conservative(target_grid, latitude_coord="latitude", skipna=False)


def _preparation(years: float, target: Grid) -> dict[str, Any]:
    """Return the figures of the preparation of a generated record at 0.25 degrees, from the source to the finished store."""
    steps = max(32, round(years * 365.25 * 4))
    directory = Path(tempfile.mkdtemp(prefix="wsdcast-bench-"))
    partial = directory / "analysis.zarr"
    try:
        record = open_record(_generated(steps), directory)
        begin = time.perf_counter()
        steps_read = _read_alone(record)
        read_seconds = (time.perf_counter() - begin) / steps_read * steps
        claim(partial, {}, overwrite=False)
        with memory_curve() as curve:
            begin = time.perf_counter()
            packing = wind_packing(len(DEFAULT))
            written = build(partial, target, "conservative", record, None, {"scheduler": "threads"}, DEFAULT_CHANNELS, packing)
            for _ in track((step for count in written for step in range(count)), "preparing", steps):
                pass
            built = time.perf_counter() - begin
            attributes = {"validation_from": str(record.times[-steps // 10].astype("datetime64[s]"))}
            finish(partial, target, record, None, attributes)
            finished = time.perf_counter() - begin
        marks = len(list(marks_of(partial).glob("[0-9]*")))
        size = size_of(partial)
    finally:
        close_all()
        shutil.rmtree(directory)
    shown = evenly_spread(len(curve), 12)
    return {
        "record": f"{steps} steps of {SOURCE}, {8e-9 * 1440 * 721 * steps:.0f} GB of float32, to {marks} shards of {size / 1e9:.2f} GB",
        "bare read of the source, s": read_seconds,
        "read, regridded and written, s": built,
        "the same and statistics, s": finished,
        "ratio to the bare read": built / read_seconds,
        "peak memory, GiB": max(memory for _, memory in curve),
        "memory, GiB after s": ", ".join(f"{curve[index][1]:.2f} @ {curve[index][0]:.0f}" for index in shown),
    }


def _read_alone(record: SourceRecord) -> int:
    """Read the first steps with dask's threads and discard them. Return how many steps were read."""
    from dask.base import compute
    from dask.delayed import delayed

    def count_steps(block: Any) -> int:
        return sum(values.shape[0] for _, values in read_block(block)) // 2

    blocks = [block for block in record.blocks() if block.last <= STEPS_READ_ALONE]
    return sum(compute(*(delayed(count_steps)(block) for block in blocks), scheduler="threads"))


def _generated(steps: int) -> Generated:
    """Return the generated store of ``steps`` steps. Metadata, coordinates and the compressed fields are in memory."""
    grid, random = Grid.regular(SOURCE), np.random.default_rng(0)
    smooth = gaussian_filter(random.standard_normal(grid.shape), 12, mode="wrap")
    base = (8 * smooth / smooth.std()).astype(np.float32)
    store = Generated()
    times = np.datetime64("1980-01-01", "ns") + STEP * np.arange(steps)
    coordinates = {"time": times, "latitude": grid.latitude, "longitude": grid.longitude}
    xr.Dataset(coords=coordinates).to_zarr(store, zarr_format=3, consolidated=False)
    group = zarr.open_group(store, mode="r+")
    for name in DEFAULT:
        group.create_array(
            name,
            shape=(steps, *grid.shape),
            chunks=(1, *grid.shape),
            dtype="float32",
            compressors=BloscCodec(cname="lz4", clevel=5),
            dimension_names=tuple(coordinates),
            attributes={"units": "m s-1"},
        )
    compressed = MemoryStore()
    array = zarr.create_array(
        compressed, shape=(KINDS, *grid.shape), chunks=(1, *grid.shape), dtype="float32", compressors=BloscCodec(cname="lz4", clevel=5)
    )
    for kind in range(KINDS):
        array[kind] = np.roll(base, 90 * kind, axis=1) + 0.3 * random.standard_normal(grid.shape).astype(np.float32)
    Generated.chunks = [compressed._store_dict[f"c/{kind}/0/0"].to_bytes() for kind in range(KINDS)]
    return store
