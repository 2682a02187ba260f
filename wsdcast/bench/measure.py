"""The form that all benchmarks share, and the clock."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch


@dataclass(frozen=True)
class Benchmark:
    """One benchmark's result.

    Attributes:
        name: of the command that was measured.
        limit: in words, what bounds this work.
        ratio_to_limit: measured time over the limit's, in the same run.
        peers: for other programs that are installed, their time over the limit's.
        figures: whatever else was measured, by name with its unit.
        machine: what it ran on.
    """

    name: str
    limit: str
    ratio_to_limit: float
    peers: dict[str, float]
    figures: dict[str, Any] = field(default_factory=dict)
    machine: str = field(default_factory=lambda: machine())


def machine() -> str:
    """Processor, cores, memory and the versions that matter."""
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        names = [line.split(":", 1)[1].strip() for line in information.read_text().splitlines() if line.startswith("model name")]
        model = names[0] if names else model
    if torch.cuda.is_available():
        model = f"{torch.cuda.get_device_name()}, {model}"
    memory = psutil.virtual_memory().total / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "scipy", "zarr", "dask"))
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB; Python {platform.python_version()}, {packages}"


def paired(*functions: Callable[[], Any], rounds: int = 15) -> list[float]:
    """Shortest time of each function in seconds; they take turns, so that what slows the machine slows them all."""
    shortest = [float("inf")] * len(functions)
    for _ in range(rounds):
        for number, function in enumerate(functions):
            begin = time.perf_counter()
            function()
            shortest[number] = min(shortest[number], time.perf_counter() - begin)
    return shortest


@contextmanager
def memory_curve() -> Iterator[list[tuple[float, float]]]:
    """Seconds since the beginning and memory of this process in GiB (resident set), sampled while the block runs."""
    curve: list[tuple[float, float]] = []
    process, begin, done = psutil.Process(), time.perf_counter(), threading.Event()

    def sample() -> None:
        while True:
            curve.append((time.perf_counter() - begin, process.memory_info().rss / 2**30))
            if done.wait(0.25):
                return

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield curve
    finally:
        done.set()
        thread.join()
