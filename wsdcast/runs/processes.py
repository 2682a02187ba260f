"""Several processes that share one job. Torch's launcher starts them: ``torchrun --nproc-per-node 4 -m -- wsdcast train``."""

from __future__ import annotations

import atexit
import ctypes
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from wsdcast.runs.complete import complete, partial_of
from wsdcast.runs.errors import UserError
from wsdcast.runs.locks import alone
from wsdcast.runs.resources import require_space, size_of
from wsdcast.runs.unfinished import claim, claim_of, release

TIMEOUT = timedelta(hours=6)
"""How long a process waits for the others. It is long because one process alone reads a large record or closes a large forecast. If a
process fails, torchrun ends the others at once."""

PR_SET_PDEATHSIG = 1
"""An option of prctl (``man 2 prctl``)."""

Decision = TypeVar("Decision")


def join() -> None:
    """Join the process group if torchrun started this process. On GPUs each process takes one. A second call does nothing.

    Raises:
        UserError: if there are GPUs, but fewer than processes on this machine.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        if dist.is_torchelastic_launched():
            end_with_parent()
        # torch._dynamo imports modules that store the current process group as a default argument. An optimiser imports it. If that
        # happened after the group is made, they would keep the group and its threads alive until the interpreter ends, and a thread that
        # is still alive then aborts the process. So it is imported before.
        importlib.import_module("torch._dynamo")
        device = None
        if torch.cuda.is_available():
            here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
            if here > gpus:
                raise UserError(f"{here} processes on this machine, but {gpus} GPU{'s' * (gpus > 1)}: torchrun --nproc-per-node {gpus}")
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device else "gloo", timeout=TIMEOUT, device_id=device)
        atexit.register(dist.destroy_process_group)


def end_with_parent() -> None:
    """Ask the system for SIGTERM when torchrun, the parent of this process, ends. Only Linux can do this.

    Otherwise the processes of a torchrun that was killed would go on, and keep the GPUs and the run directory.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def count() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def number() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if count() > 1 else 0


def on_this_machine() -> int:
    """Number of processes of this run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if count() > 1 else 1


def is_first() -> bool:
    """Whether this is process 0, which writes the results of all."""
    return number() == 0


def lost_another(error: RuntimeError) -> bool:
    """Whether an error says that the connection to another process broke. That one ended, and its own message says why."""
    return count() > 1 and (isinstance(error, dist.DistError) or "gloo/transport" in str(error))


def wait() -> None:
    """Wait until all processes have reached this call."""
    if count() > 1:
        dist.barrier()


def highest(number: int) -> int:
    """The highest ``number`` that any process passes."""
    if count() == 1:
        return number
    numbers = torch.tensor(number, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(numbers, dist.ReduceOp.MAX)
    return int(numbers)


def decided(decide: Callable[[], Decision]) -> Decision:
    """The decision of the first process, in all processes.

    If each process looked at the disk itself, they would look at different times and could decide differently. Only the first process calls
    ``decide``.

    Raises:
        UserError, OSError: the error of ``decide``, in all processes.
    """
    if count() == 1:
        return decide()
    message: list[Any] = [None, None]
    if is_first():
        try:
            message[0] = decide()
        except (UserError, OSError) as error:
            # The others make the error again. If it was sent itself, dask's pickling would send its traceback too, and the traceback would
            # keep the frames that receive it, and so the process group, alive until the interpreter ends.
            message[1] = error.__reduce__()[:2]
            dist.broadcast_object_list(message)
            raise
    dist.broadcast_object_list(message)
    decision, error_parts = message
    if error_parts:
        kind, arguments = error_parts
        raise kind(*arguments)
    return decision


@contextmanager
def completed_by_first(path: Path, stamp: dict[str, Any], overwrite: bool, size: float = 0) -> Iterator[Path]:
    """The directory of an unfinished artefact. All processes write to it, and the first one completes it when the block ends.

    If an earlier run left the artefact unfinished, its content is kept and the work continues.

    Args:
        path: final path of the artefact. All processes wait until it exists.
        stamp: says what the artefact is made from.
        overwrite: discard an unfinished artefact that is made from something else.
        size: bytes of the finished artefact, as far as they are known.

    Raises:
        UserError: in all processes, if an unfinished artefact is made from something else and ``overwrite`` is False, if another run is at
            work in the run directory, or if the disk lacks the room for what is not written yet.
    """
    partial = partial_of(path)
    with ExitStack() as claimed:

        def begin() -> None:
            claimed.enter_context(alone(path.parent))
            require_space(path.parent, size - size_of(partial))
            claim(partial, claim_of(stamp), overwrite)
            claimed.push(lambda kind, *_: release(partial) if kind is None else None)
            claimed.enter_context(complete(path, resumable=True))
            partial.mkdir(exist_ok=True)

        decided(begin)
        yield partial
        wait()  # until all processes have done their share
        decided(claimed.close)
