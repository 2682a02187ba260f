"""The figure of an image study that shows its sensitivity to the share of visible pixels."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator

from wsdcast.report.style import LEADING_DIGITS, LOOK, legend_below, set_ticks
from wsdcast.study.figures import LABELS, WIDTH, draw_line, is_positive, look_of, priors_of

PERCENT = (1, 2, 5, 10, 20, 50, 90)


@matplotlib.rc_context(LOOK)
def by_visible_share(sensitivity: xr.Dataset, scores: Sequence[str], *, relative: bool = False) -> Figure:
    """Scores against the share of visible pixels, for the warm start at each warmth and for the standard prior.

    Args:
        sensitivity: the settings of the kind ``sensitivity``.
        scores: one row for each; one column for each number of evaluations.
        relative: whether to divide by the score of the standard prior with the same share, evaluations and seed.
    """
    if relative:
        sensitivity = _over_standard(sensitivity, scores)
    shares = sensitivity.assign_coords(percent=100 * sensitivity["visible"]).sortby("percent")
    numbers = np.unique(sensitivity["nfe"].values).tolist()
    warmths = np.unique(sensitivity["warmth"].values[sensitivity["prior"].values == "warm"]).tolist()
    shades = dict(zip(warmths, matplotlib.colormaps["viridis_r"](np.linspace(0.05, 0.95, len(warmths))), strict=True))
    figure = Figure(figsize=(min(WIDTH, 1.6 + 3.4 * len(numbers)), 2.9 * len(scores)), layout="constrained")
    axes = figure.subplots(len(scores), len(numbers), squeeze=False, sharey="row")
    for row, score in zip(axes, scores, strict=True):
        for axis, nfe in zip(row, numbers, strict=True):
            of_number = shares.isel(setting=(shares["nfe"] == nfe).values)
            for prior in priors_of(of_number):
                of_prior = of_number.isel(setting=(of_number["prior"] == prior).values)
                if prior != "warm":
                    draw_line(axis, of_prior, "percent", score, label=prior, **look_of(prior))
                    continue
                for warmth in warmths:
                    line = of_prior.isel(setting=(of_prior["warmth"] == warmth).values)
                    draw_line(axis, line, "percent", score, label=f"{prior}, warmth {warmth:g}", color=shades[warmth])
            axis.set(title=f"{nfe} evaluations", xlabel="visible pixels (%)", xscale="log")
            set_ticks(axis.xaxis, FixedLocator(PERCENT))
            if not relative and is_positive(sensitivity, score):
                axis.set_yscale("log")
                set_ticks(axis.yaxis, LogLocator(subs=LEADING_DIGITS))
        row[0].set_ylabel(LABELS[score] + (" / standard's" if relative else ""))
    legend_below(figure)
    return figure


def _over_standard(sensitivity: xr.Dataset, scores: Sequence[str]) -> xr.Dataset:
    """Divide scores and scores by seed by those of the standard prior. Intervals of ratios are not known, so the result has none."""
    ratios = sensitivity.drop_vars([f"{score}_interval" for score in scores]).copy(deep=True)
    keys = list(zip(sensitivity["visible"].values.tolist(), sensitivity["nfe"].values.tolist(), strict=True))
    standard = {key: index for index, key in enumerate(keys) if sensitivity["prior"].values[index] == "standard"}
    reference = np.array([standard.get(key, -1) for key in keys])
    for name in (f"{score}{suffix}" for score in scores for suffix in ("", "_by_seed")):
        values = ratios[name].transpose("setting", ...)
        known = (reference >= 0).reshape(-1, *(1,) * (values.ndim - 1))
        ratios[name] = values / np.where(known, values.values[reference], np.nan)
    return ratios
