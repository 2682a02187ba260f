"""A watch over torch's operations: it refuses those for which the host waits for a GPU. It needs no GPU itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEPENDS_ON_DATA = ("nonzero", "masked_select", "unique", "_unique2", "unique_consecutive", "_local_scalar_dense", "equal")


class NoWaiting(TorchDispatchMode):
    """Refuse every operation for which the host waits: values or shapes that depend on device data, and copies from or to the device."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        devices = {leaf.device.type for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        name = function.overloadpacket.__name__
        if self.device in devices and (name in DEPENDS_ON_DATA or (function.overloadpacket is torch.ops.aten.index and _masked(args))):
            raise AssertionError(f"{name} waits for the device")
        result = function(*args, **(kwargs or {}))
        after = devices | {leaf.device.type for leaf in tree_leaves(result) if isinstance(leaf, Tensor)}
        # A single number of the host is passed with the call. Any other tensor of the host would be copied.
        numbers = all(leaf.dim() == 0 for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.device.type == "cpu")
        if len(after) > 1 and (name in ("copy_", "_to_copy", "_copy_from", "_foreach_copy_", "to") or not numbers):
            raise AssertionError(f"{name} between {' and '.join(sorted(after))}")
        return result


def _masked(args: Any) -> bool:
    return any(isinstance(index, Tensor) and index.dtype == torch.bool for index in args[1])
