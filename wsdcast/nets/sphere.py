"""Padding on the sphere for tensors (..., latitude, longitude) of whole-globe grids.

Longitude is a circle. Beyond a pole a meridian continues half a turn away, so the row beyond the last row is a row of the grid, rolled by
half its length. This is exact for scalars. The components of a vector change sign across a pole; the networks learn that.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Pad(torch.autograd.Function):
    """Pad by one neighbour on all sides, in one new tensor. With ``torch.cat`` padding took a third of the time of inference."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return gathered(x)
        half = x.shape[-1] // 2
        shape = (*x.shape[:-2], x.shape[-2] + 2, x.shape[-1] + 2)
        padded = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=_layout(x))
        padded[..., 1:-1, 1:-1] = x
        for row in (0, -1):
            padded[..., row, 1 : half + 1] = x[..., row, half:]
            padded[..., row, half + 1 : -1] = x[..., row, :half]
        padded[..., 0] = padded[..., -2]
        padded[..., -1] = padded[..., 1]
        return padded

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # A neighbour is a copy of a point of the grid. Its gradient is added to that of the point.
        half = (gradient.shape[-1] - 2) // 2
        circles = gradient[..., 1:-1].clone()
        circles[..., -1] += gradient[..., 0]
        circles[..., 0] += gradient[..., -1]
        inner = circles[..., 1:-1, :].contiguous(memory_format=_layout(gradient))
        for row in (0, -1):
            inner[..., row, half:] += circles[..., row, :half]
            inner[..., row, :half] += circles[..., row, half:]
        return inner


def gathered(x: Tensor) -> Tensor:
    """The same as :func:`pad` by one look-up of all points, which a compiler fuses into one kernel.

    The compiler makes six kernels of the six copies in ``forward``. On an H200 they took a third of an evaluation of pipelines/era5.yaml
    (docs/results/gpu.md). By the compiler's own count, the kernels of the look-up move half as many bytes.
    """
    rows, columns = x.shape[-2:]
    row = torch.arange(-1, rows + 1, device=x.device)
    beyond = (row < 0) | (row >= rows)
    column = torch.arange(-1, columns + 1, device=x.device)[None, :] + (columns // 2) * beyond[:, None]
    return x[..., row.clamp(0, rows - 1)[:, None], column % columns]


def pad(x: Tensor) -> Tensor:
    """Add one neighbour on all sides of a grid (..., latitude, longitude) whose pole lies half a row beyond its first and last row."""
    return _Pad.apply(x)


def _layout(x: Tensor) -> torch.memory_format:
    """The memory format of x. Channels last is kept, because convolutions are faster with it."""
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def extend(x: Tensor, multiple: int, includes_poles: bool) -> tuple[Tensor, tuple[slice, slice]]:
    """Extend a grid across the poles and around the circle until both lengths are multiples of ``multiple``.

    Args:
        x: (..., latitude, longitude), from north to south.
        multiple: two to the power of the number of halvings in the network.
        includes_poles: whether the first and the last row lie on the poles. If so, the row beyond the first is the second, else the first.

    Returns:
        The extended tensor and the pair of slices that cuts the original out of it.
    """
    rows, columns = x.shape[-2:]
    # Half a turn needs an even number of columns, also at the deepest level.
    if rows % multiple == 0 and columns % (2 * multiple) == 0:
        return x, (slice(0, rows), slice(0, columns))
    north, south = _halves(-rows % multiple)
    west, east = _halves(-columns % (2 * multiple))
    # Row -1 - i is row i (i + 1 with a pole row), half a turn away, and likewise in the south. On short grids this repeats periodically.
    period = 2 * (rows - 1) if includes_poles else 2 * rows
    position = (torch.arange(-north, rows + south, device=x.device)) % period
    mirror = (period if includes_poles else period - 1) - position
    x = torch.where((position < rows)[:, None], x[..., position.clamp(max=rows - 1), :], x.roll(columns // 2, -1)[..., mirror % rows, :])
    x = x[..., torch.arange(-west, columns + east, device=x.device) % columns]
    return x, (slice(north, north + rows), slice(west, west + columns))


def _halves(count: int) -> tuple[int, int]:
    return count // 2, count - count // 2
