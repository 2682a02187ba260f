"""The U-Net of appendix B, in the style of guided diffusion (Dhariwal and Nichol 2021), on the sphere.

Residual blocks of GroupNorm, SiLU and 3x3 convolutions; the embedding of the conditioning scalars (flow time, warmth) scales and shifts
the features after the second normalisation; last convolutions start at zero; average pooling down, nearest neighbour up, skip
connections by concatenation. Every convolution sees the sphere's neighbours (:mod:`wsdcast.nets.sphere`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wsdcast.nets import sphere


class UNet(nn.Module):
    """Maps (batch, in_channels, latitude, longitude) to (batch, out_channels, latitude, longitude), for any whole-globe grid.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output, which is zero before training.
        widths: channels of each level, multiples of 4; each level after the first halves the grid.
        blocks: residual blocks per level, on the way down and again on the way up.
        scalars: how many conditioning scalars :meth:`forward` takes.
        dropout: share of features dropped in residual blocks in training.
        includes_poles: whether the grid's first and last row lie on the poles.
        recompute: whether the blocks' activations are computed again in the backward pass instead of being kept.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        blocks: int = 1,
        scalars: int = 0,
        dropout: float = 0.0,
        includes_poles: bool = False,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.includes_poles = includes_poles
        self.recompute = recompute
        self.multiple = 2 ** (len(widths) - 1)
        embedding = 4 * widths[0] if scalars else 0
        self.embeddings = nn.ModuleList(ScalarEmbedding(widths[0], embedding) for _ in range(scalars))

        def block(inputs: int, outputs: int) -> ResidualBlock:
            return ResidualBlock(inputs, outputs, embedding, dropout)

        self.first = SphereConvolution(in_channels, widths[0])
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        width = widths[0]
        for level_width in widths:
            inputs = [width] + [level_width] * (blocks - 1)
            self.down.append(nn.ModuleList(block(channels, level_width) for channels in inputs))
            width = level_width
        self.middle = block(width, width)
        for level_width in reversed(widths):
            inputs = [width] + [level_width] * (blocks - 1)
            self.up.append(nn.ModuleList(block(channels + level_width, level_width) for channels in inputs))
            width = level_width
        self.last_norm = group_norm(width)
        self.last = SphereConvolution(width, out_channels, zero=True)

    def forward(self, x: Tensor, *scalars: Tensor) -> Tensor:
        """Apply the network; each scalar has shape (batch,), or (1,) when the whole batch shares it."""
        condition = sum(embed(scalar) for embed, scalar in zip(self.embeddings, scalars, strict=True)) if scalars else None
        x, original = sphere.extend(x, self.multiple, self.includes_poles)
        x = self.first(x)
        skips = []
        for level, blocks in enumerate(self.down):
            if level > 0:
                x = F.avg_pool2d(x, 2)
            for block in blocks:  # type: ignore[attr-defined]
                x = self._apply_block(block, x, condition)
                skips.append(x)
        x = self._apply_block(self.middle, x, condition)
        for level, blocks in enumerate(self.up):
            if level > 0:
                x = F.interpolate(x, scale_factor=2, mode="nearest")
            for block in blocks:  # type: ignore[attr-defined]
                x = self._apply_block(block, torch.cat([x, skips.pop()], dim=1), condition)
        return self.last(F.silu(self.last_norm(x)))[..., original[0], original[1]]

    def _apply_block(self, block: nn.Module, x: Tensor, condition: Tensor | None) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(block, x, condition, use_reentrant=False)
        return block(x, condition)


class ResidualBlock(nn.Module):
    """Two normalised convolutions beside a skip connection, the second modulated by the embedding when there is one."""

    def __init__(self, inputs: int, outputs: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = group_norm(inputs), group_norm(outputs)
        self.convolution1 = SphereConvolution(inputs, outputs)
        self.convolution2 = SphereConvolution(outputs, outputs, zero=True)
        self.modulation = nn.Linear(embedding, 2 * outputs) if embedding else None
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """``condition`` is the summed embedding (batch or 1, embedding)."""
        hidden = self.norm2(self.convolution1(F.silu(self.norm1(x))))
        if self.modulation is not None and condition is not None:
            scale, shift = self.modulation(F.silu(condition))[:, :, None, None].chunk(2, dim=1)
            hidden = hidden * (1 + scale) + shift
        return self.skip(x) + self.convolution2(self.dropout(F.silu(hidden)))


class SphereConvolution(nn.Conv2d):
    """3x3 convolution whose neighbours are the sphere's."""

    def __init__(self, inputs: int, outputs: int, zero: bool = False) -> None:
        super().__init__(inputs, outputs, 3)
        if zero:
            nn.init.zeros_(self.weight)
            nn.init.zeros_(self.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Keep the grid's size."""
        return super().forward(sphere.pad(x))


class ScalarEmbedding(nn.Module):
    """Sinusoids of a scalar in [0, 1] and a two-layer perceptron: (batch,) to (batch, outputs)."""

    def __init__(self, sinusoids: int, outputs: int) -> None:
        super().__init__()
        # The usual frequencies 1 to 1e-4 are meant for steps 0 to 1000; a scalar in [0, 1] is scaled to that range, else the
        # embedding would hardly vary.
        frequencies = 1000 * torch.exp(-math.log(1e4) * torch.arange(sinusoids // 2) / (sinusoids // 2))
        self.frequencies: Tensor
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.layers = nn.Sequential(nn.Linear(2 * (sinusoids // 2), outputs), nn.SiLU(), nn.Linear(outputs, outputs))

    def forward(self, scalar: Tensor) -> Tensor:
        """Embed (batch,) as (batch, outputs)."""
        angles = scalar[:, None] * self.frequencies
        return self.layers(torch.cat([angles.cos(), angles.sin()], dim=1))


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with 32 groups, fewer where that would leave less than four channels in a group."""
    return nn.GroupNorm(math.gcd(32, channels // 4), channels)
