"""Compare layouts of a prepared store: write fields at 1.5 degrees, read parts of them, and load them all, in each layout.

    python examples/store_layouts.py 'wind/*.nc'    # one channel of real wind
    python examples/store_layouts.py 2 24                          # simulated fields of 2 and of 24 channels

Prints a Markdown table. Files are read from the page cache, so it measures the work of the processor.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

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
    "lz4, bits": BloscCodec(cname="lz4", clevel=1, shuffle="bitshuffle"),
    "zstd": BloscCodec(cname="zstd", clevel=1),
}
"""Compression of chunks. Before it bytes are sorted by their place in a number; with ``bits`` the single bits are."""

STEPS_OF_CHANNELS = 512
"""Times of the simulated fields: one shard of the present layout, 0.7 GB for 24 channels."""
LAYOUTS_OF_CHANNELS = [
    *((chunk, 512, 1, "lz4") for chunk in (8, 1, 4, 16, 32)),
    *((8, shard, 1, "lz4") for shard in (64, 128)),
    (8, 512, 1, "lz4, bits"),
    *((chunk, 128, 0, "lz4") for chunk in (1, 8)),
]
"""Times in a chunk, times in a shard, channels in an array (0: all), and the codec. The present layout comes first."""
ROUNDS, BATCHES, SAMPLES, STATES = 5, 20, 4, 3
"""Rounds whose best is taken; batches of random samples, their size, and the states of a sample, which follow each other."""


def wind_of(source: str) -> np.ndarray:
    """Return the eastward wind of a source at 1.5 degrees, repeated to fill ``STEPS``, (time, latitude, longitude)."""
    record = open_record(source, Path(tempfile.mkdtemp()))
    parts = [regrid(values, record.grid, GRID) for block in record.blocks() for name, values in read_block(block) if name == DEFAULT[0]]
    return np.resize(np.concatenate(parts), (STEPS, *GRID.shape))


def fields_of(channels: int) -> np.ndarray:
    """Return simulated packed fields, (time, channel, latitude, longitude).

    Waves are random. Their power falls with the third power of the wavenumber, as in the large scales of the atmosphere, and faster below
    600 km, as in means over cells. The standard deviation is 1,100 units, as that of wind of 5.5 m/s.
    """
    random, (rows, columns) = np.random.default_rng(0), GRID.shape
    wavenumber = np.hypot(*np.meshgrid(2 * np.fft.fftfreq(rows, 1 / rows), np.fft.rfftfreq(columns, 1 / columns), indexing="ij"))
    amplitude = ((1 + wavenumber / 5) ** -2 * np.exp(-((wavenumber / 70) ** 2))).astype(np.float32)
    packed = np.empty((STEPS_OF_CHANNELS, channels, *GRID.shape), np.int16)
    for states in packed:
        real, imaginary = amplitude * random.standard_normal((2, channels, *amplitude.shape), dtype=np.float32)
        fields = np.fft.irfft2(real + 1j * imaginary, GRID.shape)
        states[:] = np.rint(1100 * fields / fields.std(axis=(1, 2), keepdims=True))
    return packed


def measure_channels(packed: np.ndarray, out: np.ndarray, chunk: int, shard: int, together: int, codec: str) -> list[float]:
    """Return what one row of the table of channels shows, measured once: three durations, the size in bytes, and the number of files.

    Durations are seconds of the processor, which other work on the machine changes less than those of a clock. Everything is written and
    loaded in the order of ``wsdcast prepare`` and :func:`wsdcast.data.store.zarr_store.read_packed`.
    """
    channels, steps = together or packed.shape[1], packed.shape[0]
    groups = [slice(first, first + channels) for first in range(0, packed.shape[1], channels)]
    with tempfile.TemporaryDirectory() as directory:
        begin = time.process_time()
        layout: dict[str, Any] = {"chunks": (chunk, channels, *GRID.shape), "shards": (shard, channels, *GRID.shape)}
        for number, group in enumerate(groups):
            shape = (steps, channels, *GRID.shape)
            array = zarr.create_array(f"{directory}/{number}", shape=shape, dtype="int16", compressors=CODECS[codec], **layout)
            for first in range(0, steps, shard):
                array[first : first + shard] = packed[first : first + shard, group]
        written = time.process_time()
        arrays = [zarr.open_array(f"{directory}/{number}", mode="r") for number in range(len(groups))]
        opened = time.process_time()
        for now in np.random.default_rng(0).integers(1, steps - 1, BATCHES * SAMPLES):
            for array in arrays:
                array[int(now) - 1 : int(now) - 1 + STATES]
        sampled = time.process_time()
        for first in range(0, steps, shard):
            for group, array in zip(groups, arrays, strict=True):
                out[first : first + shard, group] = array[first : first + shard]
        loaded = time.process_time()
        assert np.array_equal(out, packed)
        files = [path for path in Path(directory).rglob("*") if path.is_file() and path.name != "zarr.json"]
        size = sum(path.stat().st_size for path in files)
    return [written - begin, (sampled - opened) / BATCHES, loaded - sampled, size, len(files)]


def table_of_channels(channels: int) -> list[list[str]]:
    """Return the rows of the table for so many channels. The layouts take turns, so other work on the machine slows all of them."""
    packed = fields_of(channels)
    out, rounds = np.zeros_like(packed), []
    for _ in range(ROUNDS):
        rounds.append([measure_channels(packed, out, *layout) for layout in LAYOUTS_OF_CHANNELS])
    rate, rows = packed.nbytes / 1e6, []
    for (chunk, shard, together, codec), best in zip(LAYOUTS_OF_CHANNELS, np.min(rounds, axis=0), strict=True):
        write, batch, load, size, files = best
        measured = [f"{rate / write:.0f}", f"{1e3 * batch:.0f}", f"{rate / load:.0f}", f"{size / packed.nbytes:.2f}", f"{files:.0f}"]
        rows.append([str(channels), str(together or channels), str(chunk), str(shard), codec, *measured])
    return rows


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


def print_table(head: list[str], rows: Iterable[list[str]]) -> None:
    """Print a Markdown table, each row when it is measured."""
    for row in itertools.chain([head], [["---"] * len(head)], rows):
        print("|" + " | ".join(row) + "|", flush=True)


if __name__ == "__main__":
    if sys.argv[1].isdigit():
        head = ["channels", "in an array", "chunk", "shard", "codec", "write MB/s", "batch ms", "load MB/s", "size", "files"]
        print_table(head, (row for channels in sys.argv[1:] for row in table_of_channels(int(channels))))
    else:
        everything = wind_of(sys.argv[1])
        loaded = np.zeros_like(everything)
        layouts = [(dtype, 8, 512, codec) for dtype, codec in itertools.product(("float32", "int16"), CODECS)]
        layouts += [("int16", chunk, 512, "lz4") for chunk in (1, 32)]
        layouts += [("int16", 8, shard, "lz4") for shard in (128, 2048)] + [("int16", 8, None, "lz4")]
        head = ["type", "chunk", "shard", "codec", "write MB/s", "one step ms", "load MB/s", "size", "files"]
        print_table(head, (measure(everything, loaded, *layout) for layout in layouts))
