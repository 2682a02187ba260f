"""Neighbours on the sphere for tensors (..., latitude, longitude) of whole-globe grids.

Longitude is a circle. Beyond a pole the same meridian goes on half a turn away, so the row beyond the last is a row of the grid, rolled
by half its length. Only scalars continue so: the components of a vector change sign there, which networks are left to learn.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pad(x: Tensor, width: int = 1) -> Tensor:
    """Add ``width`` neighbours on all sides of a grid whose pole lies half a row beyond its first and last row."""
    half_turn = x.shape[-1] // 2
    beyond_north = x[..., :width, :].flip(-2).roll(half_turn, -1)
    beyond_south = x[..., -width:, :].flip(-2).roll(half_turn, -1)
    x = torch.cat([beyond_north, x, beyond_south], dim=-2)
    return torch.cat([x[..., -width:], x, x[..., :width]], dim=-1)


def extend(x: Tensor, multiple: int, includes_poles: bool) -> tuple[Tensor, tuple[slice, slice]]:
    """Extend a grid with its own continuation until both lengths are multiples of ``multiple``.

    Args:
        x: (..., latitude, longitude), from north to south.
        multiple: what the depth of a network needs.
        includes_poles: whether the first and last row lie on the poles (then the row beyond is the second, else the first).

    Returns:
        The extended tensor and the pair of slices that cuts the original out of it.
    """
    rows, columns = x.shape[-2:]
    if rows % multiple == 0 and columns % multiple == 0:
        return x, (slice(0, rows), slice(0, columns))
    north, south = _halves(-rows % multiple)
    west, east = _halves(-columns % multiple)
    # Row -1 - i is row i (+ 1 with a pole row), half a turn away; likewise in the south. The same for short grids, by taking turns.
    period = 2 * (rows - 1) if includes_poles else 2 * rows
    position = (torch.arange(-north, rows + south, device=x.device)) % period
    mirror = (period if includes_poles else period - 1) - position
    x = torch.where((position < rows)[:, None], x[..., position.clamp(max=rows - 1), :], x.roll(columns // 2, -1)[..., mirror % rows, :])
    x = x[..., torch.arange(-west, columns + east, device=x.device) % columns]
    return x, (slice(north, north + rows), slice(west, west + columns))


def _halves(count: int) -> tuple[int, int]:
    return count // 2, count - count // 2
