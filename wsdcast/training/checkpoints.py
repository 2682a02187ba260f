"""Checkpoints: everything that a training needs to go on, in one safetensors file that is there as a whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import save_file
from torch import Tensor

BEST = "best.safetensors"


def save(directory: Path, step: int, tensors: dict[str, Tensor], about: dict[str, Any], keep: int, best: bool) -> None:
    """Write the checkpoint of a step, and remove all but the newest ``keep`` and the best.

    Args:
        directory: of one network's checkpoints.
        step: how many steps were done.
        tensors: by name.
        about: plain values to keep beside them.
        keep: at least 1.
        best: whether it is better than all before.

    Raises:
        OSError: if it cannot be written; the old ones stay.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"step-{step:09d}.safetensors"
    beside = path.with_suffix(".partial")
    try:
        save_file(tensors, beside, metadata={"about": json.dumps(about)})
    except safetensors.SafetensorError as error:
        beside.unlink(missing_ok=True)
        raise OSError(f"{directory}: a checkpoint cannot be written ({error})") from None
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    beside.replace(path)
    if best:
        # Another name for the same file, which stays when the first name goes.
        beside.hardlink_to(path)
        beside.replace(directory / BEST)
    for old in _by_step(directory)[:-keep]:
        old.unlink()


def newest(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and what was kept beside them of the newest checkpoint that can be read, if there is one."""
    for path in reversed(_by_step(directory)):
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["about"])  # noqa: SIM118
        except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError):
            continue  # damaged by other hands: the one before it will do
    return None


def _by_step(directory: Path) -> list[Path]:
    return sorted(directory.glob("step-*.safetensors"))
