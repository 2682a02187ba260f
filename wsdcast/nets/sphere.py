"""Neighbours on the sphere, for tensors (..., latitude, longitude) on global grids.

Longitude is periodic. Across a pole, a meridian continues on the opposite side of the globe, so the row beyond the last one is a row of
the grid, rolled by half its length. This is exact for scalars. The components of a vector also change sign across a pole; networks have to
learn that.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Pad(torch.autograd.Function):
    """Adds one neighbour on all sides, by copies into one new tensor. With ``torch.cat``, padding took a third of the time of inference."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
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
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """Keep nothing."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # A neighbour is a copy of a grid point, so its gradient is added to the gradient of that point.
        if torch.compiler.is_compiling():
            return _added(gradient)
        half = (gradient.shape[-1] - 2) // 2
        circles = gradient[..., 1:-1].clone()
        circles[..., -1] += gradient[..., 0]
        circles[..., 0] += gradient[..., -1]
        inner = circles[..., 1:-1, :].contiguous(memory_format=_layout(gradient))
        for row in (0, -1):
            inner[..., row, half:] += circles[..., row, :half]
            inner[..., row, :half] += circles[..., row, half:]
        return inner


class _EagerPad(_Pad):
    """The same with a derivative in forward mode, which a compiler refuses."""

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return _EagerPad.apply(tangent)  # it is linear


def gathered(x: Tensor) -> Tensor:
    """Return the same as :func:`pad`, by indexing. A compiler makes one kernel from this.

    From the copies in :class:`_Pad` it makes six kernels, one after another. On an H200 those took a third of an evaluation of
    pipelines/era5.yaml (docs/results/gpu.md). By the compiler's own count, the kernels move half as many bytes with this function.
    """
    rows, columns = x.shape[-2:]
    row = torch.arange(-1, rows + 1, device=x.device)
    north, south = 1 * (row < 0), 1 * (row >= rows)
    column = torch.arange(-1, columns + 1, device=x.device)[None, :] + (columns // 2) * (north + south)[:, None]
    # Rows are not clamped: the compiler of torch 2.13 fails on a maximum in the index of a kernel that also normalises in groups.
    return x[..., (row + north - south)[:, None], column % columns]


def _added(gradient: Tensor) -> Tensor:
    """Return the gradient of x from that of :func:`gathered`, the same as :meth:`_Pad.backward`. A compiler makes one kernel from this.

    From the copies there it makes four kernels and more, and the backward pass of a residual block moves twice as many bytes.
    """
    rows, columns = gradient.shape[-2] - 2, gradient.shape[-1] - 2
    row, column = torch.arange(rows, device=gradient.device)[:, None], torch.arange(columns, device=gradient.device)
    circles = gradient[..., 1:-1]
    circles = circles + torch.where(column == columns - 1, gradient[..., :1], 0) + torch.where(column == 0, gradient[..., -1:], 0)
    opposite = circles.roll(columns // 2, -1)
    inner = circles[..., 1:-1, :]
    return inner + torch.where(row == 0, opposite[..., :1, :], 0) + torch.where(row == rows - 1, opposite[..., -1:, :], 0)


def pad(x: Tensor) -> Tensor:
    """Return the grid with one neighbour on all sides, (..., latitude + 2, longitude + 2).

    It takes the poles to lie half a row beyond the first and the last row. The number of longitudes must be even.
    """
    return (_Pad if torch.compiler.is_compiling() else _EagerPad).apply(x)


def _layout(x: Tensor) -> torch.memory_format:
    """Return the memory format of x, so that channels last is kept: oneDNN's convolutions are faster with it."""
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def extend(x: Tensor, multiple: int, includes_poles: bool) -> tuple[Tensor, tuple[slice, slice]]:
    """Extend a grid across its edges until rows are a multiple of ``multiple`` and columns a multiple of twice that.

    Args:
        x: (..., latitude, longitude), from north to south.
        multiple: the factor by which a network reduces the resolution.
        includes_poles: whether the first and the last row lie on the poles. If so, the row beyond a pole is the second row of the grid,
            otherwise the first.

    Returns:
        The extended tensor, and the pair of slices that cuts the original grid out of it.
    """
    rows, columns = x.shape[-2:]
    # Beyond a row on the pole lies the second row. :func:`pad` would repeat the row on the pole, so each side gets at least one row here.
    missing = 2 + (-rows - 2) % multiple if includes_poles else -rows % multiple
    # At the deepest level of the network the number of columns must still be even, for the opposite meridian.
    if missing == 0 and columns % (2 * multiple) == 0:
        return x, (slice(0, rows), slice(0, columns))
    north, south = _halves(missing)
    west, east = _halves(-columns % (2 * multiple))
    # Row -1 - i is row i (row i + 1 if there are pole rows), rolled by half a turn; the south is the same. With the period, an extension
    # longer than the grid continues around the globe.
    period = 2 * (rows - 1) if includes_poles else 2 * rows
    position = (torch.arange(-north, rows + south, device=x.device)) % period
    mirror = (period if includes_poles else period - 1) - position
    x = torch.where((position < rows)[:, None], x[..., position.clamp(max=rows - 1), :], x.roll(columns // 2, -1)[..., mirror % rows, :])
    x = x[..., torch.arange(-west, columns + east, device=x.device) % columns]
    return x, (slice(north, north + rows), slice(west, west + columns))


def _halves(count: int) -> tuple[int, int]:
    """Return two whole numbers with this sum that differ by at most 1, the smaller one first."""
    return count // 2, count - count // 2
