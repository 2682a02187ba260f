"""The memory of preparing does not grow with the length of the record."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
import xarray as xr
from conftest import six_hourly
from own_memory import needs_linux, own_memory

from wsdcast.data.grid import Grid
from wsdcast.runs.resources import return_freed_memory

GRID = Grid.regular("240x121")
STEPS = 128
"""Four shards of the test, which are made together: 15 MB of packed wind."""

PREPARE = """
import sys
from pathlib import Path
import wsdcast
from wsdcast.data.sources import pieces
from wsdcast.data.store import building, shards
pieces.BLOCK_BYTES, building.SHARD, shards.SHARD = 2e6, 32, 32
wsdcast.prepare(Path("r.yaml"), Path(sys.argv[1]), end=sys.argv[1])
status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
print(1024 * int(status["VmHWM"].split()[0]))
"""


@needs_linux
def test_memory_that_a_thread_has_freed_goes_back_to_the_system():
    pins = []

    def work() -> None:
        blocks = [np.ones(8000) for _ in range(2000)]  # 128 MB in blocks that are too small to be taken from the system one by one
        pins.append(np.ones(8000))  # what lies below a block in use is not given back by itself
        blocks.clear()

    before = own_memory()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return_freed_memory()
    assert own_memory() - before < 10e6
    assert pins[0].sum() == 8000


@pytest.mark.slow
@needs_linux
def test_four_times_the_steps_take_no_more_memory(tmp_path):
    times, coords = six_hourly("2001-01-01", 4 * STEPS), {"latitude": GRID.latitude, "longitude": GRID.longitude}
    wind = np.tile(np.random.default_rng(0).normal(0, 8, (8, *GRID.shape)).astype(np.float32), (times.size // 8, 1, 1))
    names = ("10m_u_component_of_wind", "10m_v_component_of_wind")
    source = xr.Dataset({name: (("time", *coords), wind, {"units": "m s-1"}) for name in names}, {"time": times} | coords)
    layout = {name: {"chunks": (8, *GRID.shape), "compressors": None} for name in names}
    source.to_zarr(tmp_path / "source.zarr", consolidated=False, encoding=layout)
    (tmp_path / "r.yaml").write_text("name: r\ndata: {source: source.zarr, grid: 240x121}\n")
    peaks = []
    for steps in (STEPS, 4 * STEPS):
        command = [sys.executable, "-c", PREPARE, str(times[steps - 1].astype("datetime64[h]"))]
        peaks.append(int(subprocess.check_output(command, cwd=tmp_path).split()[-1]))
    print(peaks)
    assert peaks[1] - peaks[0] < 10e6
