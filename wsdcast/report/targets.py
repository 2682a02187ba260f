"""Fig. 3 of *Warm Diffusion* (arXiv 2511.16904): power of the state and of both targets by wavenumber, for several blur-to-noise ratios."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from numpy.typing import NDArray
from torch import Tensor

from wsdcast.report.style import BLUE, GREY, LOOK, VERMILION, set_ticks
from wsdcast.warmstart.paths import Multiply, blur

RATIOS = (0.0, 0.25, 0.5, 1.0, 2.0)
"""Blur-to-noise ratios of the figure: those of the paper's Table 3, without its largest."""
NOISE_LEVEL = 1.0
"""Sigma at which the figure is drawn. There the noise has the power of the normalised data."""

Power = Callable[[Tensor], NDArray[np.floating]]
"""From fields (batch, channel, row, column) to their mean power by wavenumber, (wavenumber,)."""


def target_powers(data: Tensor, multiply: Multiply, power: Power, ratio: float) -> dict[str, NDArray[np.floating]]:
    """Return the power of the data y, of the state B y + sigma z, and of the targets B y (denoising) and y - B y (deblurring).

    Args:
        data: y, normalised by the prior, (batch, channel, row, column).
        multiply: the spectral transform of the grid.
        power: computes the power by wavenumber.
        ratio: blur-to-noise ratio.
    """
    blurred = blur(ratio, multiply, data, torch.full((1,), 1 / (1 + NOISE_LEVEL), dtype=data.dtype, device=data.device))
    noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(0)).to(data)
    powers = {"state": blurred + NOISE_LEVEL * noise, "data": data, "denoising target": blurred, "deblurring target": data - blurred}
    return {name: power(field) for name, field in powers.items()}


@matplotlib.rc_context(LOOK)
def targets_figure(data: Tensor, multiply: Multiply, power: Power, wavenumbers: NDArray[np.floating], label: str) -> Figure:
    """Draw one panel for each of :data:`RATIOS`."""
    figure = Figure(figsize=(9.6, 2.6), layout="constrained")
    looks = {"state": (GREY, ":"), "data": ("black", "-"), "denoising target": (VERMILION, "-"), "deblurring target": (BLUE, "--")}
    axes = figure.subplots(1, len(RATIOS), sharey=True)
    for axis, ratio in zip(axes, RATIOS, strict=True):
        powers = target_powers(data, multiply, power, ratio)
        for name, (colour, style) in looks.items():
            shown = np.where(powers[name] > 0, powers[name], np.nan)
            axis.plot(wavenumbers, shown, color=colour, linestyle=style, label=name)
        axis.set(title=f"blur-to-noise ratio {ratio:g}", xlabel=label, xscale="log", yscale="log")
        set_ticks(axis.xaxis, LogLocator(subs=(1, 2, 5)))  # also where a coarse grid has less than a decade of wavenumbers
    largest = power(data).max()
    axes[0].set(ylabel=f"power, noise level {NOISE_LEVEL:g}")
    if largest > 0:  # images of one colour have no power
        axes[0].set_ylim(1e-5 * largest, 3 * largest)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure
