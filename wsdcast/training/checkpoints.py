"""Checkpoints of a training. Each is one safetensors file, which gets its name only when it is complete."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import save as serialised
from torch import Tensor


def save(directory: Path, step: int, tensors: dict[str, Tensor], about: dict[str, Any], keep: int) -> None:
    """Write the checkpoint of a step, with plain values in ``about``, and keep the newest ``keep`` up to this step.

    Raises:
        OSError: if the checkpoint cannot be written; older ones stay.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"step-{step:09d}.safetensors"
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:  # not by save_file: only the owner could read its file, whatever the umask
            file.write(serialised(tensors, {"about": json.dumps(about)}))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(f"{directory}: a checkpoint cannot be written ({error.strerror})") from None
    partial.replace(path)
    earlier = [other for other in _by_step(directory) if other <= path]
    for other in _by_step(directory):
        if other not in earlier[-keep:]:  # old, or of a later step: then it is damaged, because the training went on before it
            other.unlink()
    (directory / "best.safetensors").unlink(missing_ok=True)  # of an older version, and read by none


def newest(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return the ``tensors`` and ``about`` of the newest checkpoint that is not damaged; None if there is none.

    Raises:
        OSError: if one cannot be read for another reason.
    """
    for path in reversed(_by_step(directory)):
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["about"])  # noqa: SIM118
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError):
            continue  # a damaged file: try the one before it
    return None


def _by_step(directory: Path) -> list[Path]:
    """Paths of the checkpoints, oldest first."""
    return sorted(directory.glob("step-*.safetensors"))
