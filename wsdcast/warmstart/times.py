"""Grids of flow times from 0 (noise) to 1 (data), both ends exact."""

from __future__ import annotations

import torch
from torch import Tensor


def uniform(steps: int) -> Tensor:
    """``steps`` equal steps, (steps + 1,)."""
    return torch.linspace(0.0, 1.0, steps + 1)
