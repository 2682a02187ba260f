"""Several processes on one job, started by torch's own launcher: ``torchrun --nproc-per-node 4 -m -- wsdcast train``."""

from __future__ import annotations

import atexit
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from wsdcast.artefact import alone, complete, partial_of
from wsdcast.unfinished import claim, release


def join() -> None:
    """Join the others if torchrun started this process; a second call does nothing."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        # Modules of torch that this one imports keep whatever group there is as the default of their arguments: imported later, as an
        # optimiser does, they would keep ours and its threads alive until the interpreter is gone, and such a thread aborts the process.
        importlib.import_module("torch._dynamo")
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(dist.destroy_process_group)


def count() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def number() -> int:
    """Which this is, from 0."""
    return dist.get_rank() if count() > 1 else 0


def is_first() -> bool:
    """Whether this one writes what all have made."""
    return number() == 0


def wait() -> None:
    """Wait until all are here."""
    if count() > 1:
        dist.barrier()


def highest(number: int) -> int:
    """The highest of the numbers that the processes give."""
    if count() == 1:
        return number
    numbers = torch.tensor(number, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(numbers, dist.ReduceOp.MAX)
    return int(numbers)


@contextmanager
def completed_by_first(path: Path, stamp: dict[str, Any], overwrite: bool, command: str) -> Iterator[Path]:
    """An unfinished artefact that all processes work at and the first one completes; what an earlier run left of it is taken over.

    Args:
        path: its final name; the others wait until it has that.
        stamp: says what it is made from.
        overwrite: whether an unfinished one that is made from something else may be discarded.
        command: that makes it.

    Raises:
        UserError: if there is such a one, or somebody else is at work on it.
    """
    partial = partial_of(path)
    if is_first():
        with alone(path.parent, command):
            claim(partial, {key: stamp[key] for key in ("hash", "inputs")}, overwrite)
            with complete(path, resumable=True):
                partial.mkdir(exist_ok=True)
                wait()
                yield partial
                wait()
            release(partial)
    else:
        wait()
        yield partial
        wait()
    wait()
