"""Compare layouts of a prepared store: write real wind at 1.5 degrees, read single steps, and load it all, in each layout.

    python examples/store_layouts.py '../shared/data/wind/*.nc'

Prints a Markdown table. Files are read from the page cache, so it measures the work of the processor.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import BloscCodec

from wsdcast.data.grid import Grid
from wsdcast.data.regrid import regrid
from wsdcast.data.sources.blocks import read_block
from wsdcast.data.sources.record import open_record
from wsdcast.data.store.zarr_store import SCALE
from wsdcast.data.variables import DEFAULT

STEPS, GRID = 2048, Grid.regular("240x121")
CODECS = {
    "none": None,
    "lz4": BloscCodec(cname="lz4", clevel=1),
    "zstd": BloscCodec(cname="zstd", clevel=1),
}


def wind_of(source: str) -> np.ndarray:
    """Return the eastward wind of a source at 1.5 degrees, repeated to fill ``STEPS``, (time, latitude, longitude)."""
    record = open_record(source, Path(tempfile.mkdtemp()))
    parts = [regrid(values, record.grid, GRID) for block in record.blocks() for name, values in read_block(block) if name == DEFAULT[0]]
    return np.resize(np.concatenate(parts), (STEPS, *GRID.shape))


def measure(wind: np.ndarray, out: np.ndarray, dtype: str, chunk: int, shard: int | None, codec: str) -> list[str]:
    """Return single row of the table, the best of three rounds. Rates refer to the size in float32."""
    shape = {"chunks": (chunk, *GRID.shape)} | ({"shards": (shard, *GRID.shape)} if shard else {})
    write, single, load, unit = np.inf, np.inf, np.inf, np.float32(SCALE if dtype == "int16" else 1)
    for _ in range(3):
        with tempfile.TemporaryDirectory() as directory:
            begin = time.perf_counter()
            array = zarr.create_array(f"{directory}/wind", shape=wind.shape, dtype=dtype, compressors=CODECS[codec], **shape)
            for first in range(0, STEPS, 512):
                part = wind[first : first + 512]
                array[first : first + 512] = np.rint(part / unit).astype(dtype) if dtype == "int16" else part
            write = min(write, time.perf_counter() - begin)
            array = zarr.open_array(f"{directory}/wind", mode="r")
            begin = time.perf_counter()
            for step in np.random.default_rng(0).integers(0, STEPS, 100):
                array[int(step)]
            single = min(single, (time.perf_counter() - begin) / 100)
            begin = time.perf_counter()
            for first in range(0, STEPS, 512):
                np.multiply(array[first : first + 512], unit, out=out[first : first + 512])
            load = min(load, time.perf_counter() - begin)
            files = [path for path in Path(directory).rglob("*") if path.is_file()]
            size = sum(path.stat().st_size for path in files) / wind.nbytes
    rate = wind.nbytes / 1e6
    measured = [f"{rate / write:.0f}", f"{1e3 * single:.1f}", f"{rate / load:.0f}", f"{size:.2f}", str(len(files) - 1)]
    return [dtype, str(chunk), str(shard or "-"), codec, *measured]


if __name__ == "__main__":
    everything = wind_of(sys.argv[1])
    loaded = np.zeros_like(everything)
    head = ["type", "chunk", "shard", "codec", "write MB/s", "one step ms", "load MB/s", "size", "files"]
    print("|" + " | ".join(head) + "|")
    print("|" + "---|" * len(head))
    layouts = [(dtype, 8, 512, codec) for dtype, codec in itertools.product(("float32", "int16"), CODECS)]
    layouts += [("int16", chunk, 512, "lz4") for chunk in (1, 32)]
    layouts += [("int16", 8, shard, "lz4") for shard in (128, 2048)] + [("int16", 8, None, "lz4")]
    for layout in layouts:
        print("|" + " | ".join(measure(everything, loaded, *layout)) + "|", flush=True)
