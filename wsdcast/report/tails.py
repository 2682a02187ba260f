"""Fig. 10 of the paper: the distribution of data before and after normalisation, by warmth, beside the prior's."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from wsdcast.report.style import BLUE, GREEN, LOOK, ORANGE, VERMILION, WIDTH
from wsdcast.warmstart.tails import AS_THEY_ARE, EDGES, Tails


@matplotlib.rc_context(LOOK)
def tails_figure(tails: Mapping[str, Tails], what: str) -> Figure:
    """Densities on a logarithmic axis: left the data as they are, right normalised at each warmth.

    Args:
        tails: of :func:`wsdcast.warmstart.tails.tails_of`.
        what: the values are, for the axes.
    """
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    middle = (EDGES[1:] + EDGES[:-1]) / 2
    normalised = {name: of for name, of in tails.items() if name != AS_THEY_ARE}
    left, right = figure.subplots(1, 2, sharey=True)
    for axis, shown, label in (
        (left, {AS_THEY_ARE: tails[AS_THEY_ARE]}, f"{what}, as they are"),
        (right, normalised, f"{what}, less the mean, over the std"),
    ):
        for (name, of), colour in zip(shown.items(), (BLUE, GREEN, ORANGE, VERMILION), strict=False):
            axis.step(middle, np.where(of.density > 0, of.density, np.nan), where="mid", color=colour, label=f"{name}: {of}")
        axis.plot(middle, np.exp(-(middle**2) / 2) / np.sqrt(2 * np.pi), color="black", linestyle="--", linewidth=0.8, label="N(0, 1)")
        axis.set(xlabel=label, yscale="log")
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=6.5)
    left.set_ylabel("density")
    left.set_ylim(1e-6, 30)
    return figure
