"""The U-Net of appendix B, in the style of guided diffusion (Dhariwal and Nichol 2021), on the sphere or the plane.

- A residual block has GroupNorm, SiLU and 3x3 convolutions. The embedding of the conditions (flow time, warmth) scales and shifts
  the features after the second normalisation. The last convolution of each block, and that of the network, start at zero.
- The resolution is reduced by average pooling and increased by nearest-neighbour interpolation. Skip connections are concatenated.
- Self-attention is optional.
- On the sphere, 3x3 convolutions see the neighbours on the sphere (:mod:`wsdcast.nets.sphere`); on the plane, zeros beyond the edge.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wsdcast.nets.sphere import extend, pad
from wsdcast.runs.recipes import Network

Layer = TypeVar("Layer", bound=nn.Module)


class UNet(nn.Module):
    """Maps (batch, in_channels, row, column) to (batch, out_channels, row, column), for any global grid or any image.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output. The output is zero before training.
        widths: channels of the features of each level, multiples of 4. Each level after the first halves the resolution.
        blocks: residual blocks per level, on the way down and again on the way up.
        scalars: the number of conditioning scalars that :meth:`forward` takes.
        silent: how many of them, counted from the last, have no effect before training.
        noise: how many numbers of noise :meth:`forward` takes after the scalars; 0 for none. They have no effect before training.
        dropout: the share of features that residual blocks drop in training.
        includes_poles: whether the first and the last row of the grid lie on the poles.
        activation_checkpointing: whether the activations inside the blocks are computed again in the backward pass instead of being kept.
        sphere: whether rows and columns are latitudes and longitudes of the globe; otherwise they are those of an image.
        attention: the levels, counted from 0, whose blocks end with self-attention. If there are any, the middle block does too.
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
        activation_checkpointing: bool = False,
        sphere: bool = True,
        attention: Collection[int] = (),
        silent: int = 0,
        noise: int = 0,
    ) -> None:
        super().__init__()
        self.sphere = sphere
        self.includes_poles = includes_poles
        self.activation_checkpointing = activation_checkpointing
        self.multiple = 2 ** (len(widths) - 1)
        self.condition_shapes = [(1,)] * scalars + ([(1, noise)] if noise else [])  # for one sample
        embedding = 4 * widths[0] if self.condition_shapes else 0
        self.embeddings = nn.ModuleList(ScalarEmbedding(widths[0], embedding, number >= scalars - silent) for number in range(scalars))
        if noise:
            self.embeddings.append(_zero(nn.Linear(noise, embedding)))

        def block(inputs: int, outputs: int, attends: bool) -> ResidualBlock:
            return ResidualBlock(inputs, outputs, embedding, dropout, sphere, attends)

        self.first = Convolution(in_channels, widths[0], sphere)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        width = widths[0]
        for level, level_width in enumerate(widths):
            inputs = [width] + [level_width] * (blocks - 1)
            self.down.append(nn.ModuleList(block(channels, level_width, level in attention) for channels in inputs))
            width = level_width
        self.middle = block(width, width, bool(attention))
        for level, level_width in reversed(list(enumerate(widths))):
            inputs = [width] + [level_width] * (blocks - 1)
            self.up.append(nn.ModuleList(block(channels + level_width, level_width, level in attention) for channels in inputs))
            width = level_width
        self.last_norm = group_norm(width)
        self.last = Convolution(width, out_channels, sphere, zero=True)

    def input_shapes(self, rows: int, columns: int) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of all inputs of :meth:`forward` for one sample."""
        return ((1, self.first.in_channels, rows, columns), *self.condition_shapes)

    def forward(self, x: Tensor, *conditions: Tensor) -> Tensor:
        """Return the output for x, (batch, in_channels, row, column).

        The conditions are the scalars, each (batch,), or (1,) if the batch shares it, and then the noise, (batch, noise).

        Raises:
            ValueError: if there are more or fewer conditions than the network was made for.
        """
        embedded = [embed(value) for embed, value in zip(self.embeddings, conditions, strict=True)]
        condition = sum(embedded) if embedded else None
        x, original = extend(x, self.multiple, self.includes_poles) if self.sphere else _extend_plane(x, self.multiple)
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
                x = _doubled(x)
            for block in blocks:  # type: ignore[attr-defined]
                x = self._apply_block(block, torch.cat([x, skips.pop()], dim=1), condition)
        return self.last(F.silu(self.last_norm(x)))[..., original[0], original[1]]

    def _apply_block(self, block: nn.Module, x: Tensor, condition: Tensor | None) -> Tensor:
        """Return the output of a residual block, with activation checkpointing if that is on and gradients are recorded."""
        if self.activation_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, x, condition, use_reentrant=False)
        return block(x, condition)


class ResidualBlock(nn.Module):
    """Two normalised convolutions and a skip connection, then optional attention.

    Args:
        inputs, outputs: channels.
        embedding: the size of the embedding that modulates the second convolution; 0 for none.
        dropout: the share of features that are dropped in training.
        sphere: whether the convolutions are on the sphere.
        attends: whether the block ends with self-attention.
    """

    def __init__(self, inputs: int, outputs: int, embedding: int, dropout: float, sphere: bool, attends: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = group_norm(inputs), group_norm(outputs)
        self.convolution1 = Convolution(inputs, outputs, sphere)
        self.convolution2 = Convolution(outputs, outputs, sphere, zero=True)
        self.modulation = nn.Linear(embedding, 2 * outputs) if embedding else None
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.attention = Attention(outputs) if attends else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """Return (batch, outputs, row, column) for x (batch, inputs, row, column) and the summed embeddings (batch or 1, embedding)."""
        hidden = self.norm2(self.convolution1(F.silu(self.norm1(x))))
        if self.modulation is not None and condition is not None:
            scale, shift = self.modulation(F.silu(condition))[:, :, None, None].chunk(2, dim=1)
            hidden = hidden * (1 + scale) + shift
        return self.attention(self.skip(x) + self.convolution2(self.dropout(F.silu(hidden))))


class Attention(nn.Module):
    """Self-attention over all grid points, with one head and a skip connection. It is the identity before training."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.inputs, self.output = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)
        _zero(self.output)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of x, (batch, channels, row, column)."""
        # Each is (batch, head, point, channel). With four dimensions torch uses the kernels that do not store the points-by-points matrix.
        query, key, value = self.inputs(self.norm(x)).flatten(2).transpose(1, 2)[:, None].chunk(3, dim=3)
        attended = F.scaled_dot_product_attention(query, key, value)
        return x + self.output(attended[:, 0].transpose(1, 2).unflatten(2, x.shape[2:]))


class Convolution(nn.Conv2d):
    """A 3x3 convolution that keeps the size of the grid, on the sphere or on the plane, with zeros beyond the edge of the plane.

    Args:
        inputs, outputs: channels.
        sphere: whether the neighbours are those on the sphere.
        zero: whether the weights start at zero.
    """

    def __init__(self, inputs: int, outputs: int, sphere: bool, zero: bool = False) -> None:
        super().__init__(inputs, outputs, 3, padding=0 if sphere else 1)
        self.sphere = sphere
        if zero:
            _zero(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, outputs, row, column) for x (batch, inputs, row, column)."""
        return super().forward(pad(x) if self.sphere else x)


class ScalarEmbedding(nn.Module):
    """Embeds a scalar in [0, 1] by sinusoids and a two-layer perceptron; if ``silent``, the embedding starts at zero."""

    def __init__(self, sinusoids: int, outputs: int, silent: bool = False) -> None:
        super().__init__()
        # The usual frequencies, 1 to 1e-4, are meant for time steps from 0 to 1000. The scalar is scaled to that range, because the
        # embedding would otherwise hardly vary.
        count = sinusoids // 2
        frequencies = 1000 * torch.exp(-math.log(1e4) * torch.arange(count) / count)
        self.frequencies: Tensor
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.layers = nn.Sequential(nn.Linear(2 * count, outputs), nn.SiLU(), nn.Linear(outputs, outputs))
        if silent:
            _zero(self.layers[2])

    def forward(self, scalar: Tensor) -> Tensor:
        """Return the embedding of the scalar (batch,), (batch, outputs)."""
        angles = scalar[:, None] * self.frequencies
        return self.layers(torch.cat([angles.cos(), angles.sin()], dim=1))


def _zero(layer: Layer) -> Layer:
    """Set the weights and the bias of a layer to zero, and return it."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _doubled(x: Tensor) -> Tensor:
    """Repeat each row and each column of x, (batch, channel, row, column)."""
    if not torch.compiler.is_compiling():
        return F.interpolate(x, scale_factor=2, mode="nearest")
    # A compiler turns F.interpolate into a look-up. Its gradient adds to the same place from several threads, in the precision of the
    # features and in any order; a GPU older than H100 cannot do that with bfloat16 and sorts all positions instead.
    batch, channels, rows, columns = x.shape
    repeated = x[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2)
    return repeated.reshape(batch, channels, 2 * rows, 2 * columns)


def _extend_plane(x: Tensor, multiple: int) -> tuple[Tensor, tuple[slice, slice]]:
    """Repeat the last row and column until both lengths are multiples of ``multiple``; also return the slices that cut x out."""
    rows, columns = x.shape[-2:]
    if rows % multiple or columns % multiple:
        x = F.pad(x, (0, -columns % multiple, 0, -rows % multiple), mode="replicate")
    return x, (slice(0, rows), slice(0, columns))


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a GroupNorm with at most 32 groups, each of at least four channels; ``channels`` is a multiple of 4."""
    return nn.GroupNorm(math.gcd(32, channels // 4), channels)


def unet_of(settings: Network, inputs: int, outputs: int, **others: Any) -> UNet:
    """Return an untrained U-Net as a section of a recipe describes it, with ``others`` of the arguments of :class:`UNet`."""
    return UNet(
        inputs,
        outputs,
        settings.widths,
        settings.blocks,
        dropout=settings.dropout,
        activation_checkpointing=settings.activation_checkpointing,
        attention=settings.attention,
        **others,
    )
