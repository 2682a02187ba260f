"""Fig. 10 of the paper: the distribution of the data before and after normalisation, by warmth, and that of the prior."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from wsdcast.report.style import BLUE, GREEN, LOOK, ORANGE, VERMILION, WIDTH
from wsdcast.warmstart.tails import AS_THEY_ARE, EDGES, Tails


@matplotlib.rc_context(LOOK)
def tails_figure(tails: Mapping[str, Tails], quantity: str) -> Figure:
    """Draw densities on a logarithmic axis: the data as they are on the left, normalised at each warmth on the right.

    Args:
        tails: result of :func:`wsdcast.warmstart.tails.tails_of`.
        quantity: name of the values, for the labels of the axes.
    """
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    middle = (EDGES[1:] + EDGES[:-1]) / 2
    normalised = {name: tail for name, tail in tails.items() if name != AS_THEY_ARE}
    left, right = figure.subplots(1, 2, sharey=True)
    for axis, shown, label in (
        (left, {AS_THEY_ARE: tails[AS_THEY_ARE]}, f"{quantity}, as they are"),
        (right, normalised, f"{quantity}, less the mean, over the std"),
    ):
        for (name, tail), colour in zip(shown.items(), (BLUE, GREEN, ORANGE, VERMILION), strict=False):
            axis.step(middle, np.where(tail.density > 0, tail.density, np.nan), where="mid", color=colour, label=f"{name}: {tail}")
        axis.plot(middle, np.exp(-(middle**2) / 2) / np.sqrt(2 * np.pi), color="black", linestyle="--", linewidth=0.8, label="N(0, 1)")
        axis.set(xlabel=label, yscale="log")
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=6.5)
    left.set_ylabel("density")
    left.set_ylim(1e-6, 30)
    return figure
