"""Several processes on one job, started by torch's own launcher: ``torchrun --nproc-per-node 4 -m -- wsdcast train``."""

from __future__ import annotations

import atexit
import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from wsdcast.runs.artefact import alone, complete, partial_of
from wsdcast.runs.errors import UserError
from wsdcast.runs.unfinished import claim, release

PATIENCE = timedelta(hours=6)
"""How long one waits for the others: whoever reads a large record or closes a large forecast does it alone. torchrun ends them all as soon
as one has failed."""

Decision = TypeVar("Decision")


def join() -> None:
    """Join the others if torchrun started this process; a second call does nothing."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        # Modules of torch that this one imports keep whatever group there is as the default of their arguments: imported later, as an
        # optimiser does, they would keep ours and its threads alive until the interpreter is gone, and such a thread aborts the process.
        importlib.import_module("torch._dynamo")
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
        atexit.register(dist.destroy_process_group)


def count() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def number() -> int:
    """Which this is, from 0."""
    return dist.get_rank() if count() > 1 else 0


def here() -> int:
    """How many of them share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if count() > 1 else 1


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


def decided(decide: Callable[[], Decision]) -> Decision:
    """What the first process decides, told to the others, which do not look for themselves: they would look earlier or later.

    Args:
        decide: called by the first one alone.

    Raises:
        UserError, OSError: that of ``decide``, in all of them.
    """
    if count() == 1:
        return decide()
    told: list[Any] = [None]
    if is_first():
        try:
            told = [decide()]
        except (UserError, OSError) as error:
            told = [error]
    dist.broadcast_object_list(told)
    (found,) = told
    if isinstance(found, Exception):
        raise found
    return found


@contextmanager
def completed_by_first(path: Path, stamp: dict[str, Any], overwrite: bool, command: str) -> Iterator[Path]:
    """An unfinished artefact that all processes work at and the first one completes; what an earlier run left of it is taken over.

    Args:
        path: its final name; the others wait until it has that.
        stamp: says what it is made from.
        overwrite: whether an unfinished one that is made from something else may be discarded.
        command: that makes it.

    Raises:
        UserError: if there is such a one, or somebody else is at work on it; in all processes.
    """
    partial = partial_of(path)
    with ExitStack() as claimed:

        def begin() -> None:
            claimed.enter_context(alone(path.parent, command))
            claim(partial, {key: stamp[key] for key in ("hash", "inputs")}, overwrite)
            claimed.push(lambda kind, *_: release(partial) if kind is None else None)
            claimed.enter_context(complete(path, resumable=True))
            partial.mkdir(exist_ok=True)

        decided(begin)
        yield partial
        wait()  # until all have done their share
        decided(claimed.close)
