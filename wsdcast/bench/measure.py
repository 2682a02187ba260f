"""The result that all benchmarks return, and the measurement of time and memory."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

from wsdcast.runs.progress import note


@dataclass(frozen=True)
class Benchmark:
    """The result of one benchmark.

    Attributes:
        name: name of the command that was measured.
        limit: in words, the least work that the command must do.
        ratio_to_limit: time of the command divided by the time of the limit, in the same run.
        peers: the same ratio for other ways to do this work: other libraries that are installed, or a simple loop.
        figures: everything else that was measured. Each name includes the unit.
        machine: the machine that the benchmark ran on.
    """

    name: str
    limit: str
    ratio_to_limit: float
    peers: dict[str, float]
    figures: dict[str, Any] = field(default_factory=dict)
    machine: str = field(default_factory=lambda: machine())


def machine() -> str:
    """Return processor, cores, memory and the versions of Python and of the packages that decide the speed, in one line."""
    model = platform.processor() or platform.machine()
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.exists():
        names = [line.split(":", 1)[1].strip() for line in cpu_info.read_text().splitlines() if line.startswith("model name")]
        model = names[0] if names else model
    if torch.cuda.is_available():
        model = f"{torch.cuda.get_device_name()}, {model}"
    memory = psutil.virtual_memory().total / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "scipy", "zarr", "dask"))
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB; Python {platform.python_version()}, {packages}"


def paired(*functions: Callable[[], Any], rounds: int = 15, names: Sequence[str] = ()) -> list[float]:
    """Return the shortest time of each function, in seconds. The functions take turns, so other work on the machine slows all of them.

    With the ``names`` of the functions each time is noted as soon as it is measured, for runs that may be cut short.
    """
    shortest = [float("inf")] * len(functions)
    for _ in range(rounds):
        for number, function in enumerate(functions):
            begin = time.perf_counter()
            function()
            seconds = time.perf_counter() - begin
            shortest[number] = min(shortest[number], seconds)
            if names:
                note(f"{names[number]}: {seconds:.2f} s")
    return shortest


def resident() -> int:
    """Return the resident set size of this process, in bytes."""
    return int(psutil.Process().memory_info().rss)


@contextmanager
def memory_curve(measure: Callable[[], int] = resident) -> Iterator[list[tuple[float, float]]]:
    """Sample the memory of this process while the block runs, twenty times a second.

    Args:
        measure: returns the memory in bytes.

    Yields:
        A list that has one item at the beginning and grows by one per sample: seconds since the beginning, and memory in GiB.
    """
    begin, done = time.perf_counter(), threading.Event()
    curve = [(0.0, measure() / 2**30)]

    def sample() -> None:
        while not done.wait(0.05):
            curve.append((time.perf_counter() - begin, measure() / 2**30))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield curve
    finally:
        done.set()
        thread.join()
        curve.append((time.perf_counter() - begin, measure() / 2**30))
