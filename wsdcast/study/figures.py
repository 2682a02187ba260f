"""The figures that studies of weather and of images share: scores by number of evaluations and by solver (Figs. 5 and 8 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator

from wsdcast.images.score_page import LABELS as IMAGE_LABELS
from wsdcast.report.style import LEADING_DIGITS, LOOK, PRIORS, legend_below, set_ticks

LABELS = IMAGE_LABELS | {
    "crps_6h": "fair CRPS at 6 h (m/s)",
    "power_deviation_6h": "spectrum: mean |1 - ratio|",
    "spread_skill_6h": "spread / skill",
}
"""Labels of the axes of scores."""
LOGARITHMIC = ("power_deviation_6h", "fid", "classifier_distance", "power_deviation")
"""Scores that have a logarithmic axis where all values are positive."""
MAIN_PRIORS = ("standard", "warm")
EVALUATIONS = (1, 2, 3, 4, 6, 8, 12, 20, 30, 50, 100)
WIDTH = 9.8
"""Inches; a page shows it without scaling."""
SPARE_COLOURS = tuple(matplotlib.colormaps["tab20"].colors[1::2])  # type: ignore[attr-defined]
"""Colours of the variants of a study, which have no colour of their own; a name always has the same."""


def label_of(score: str, settings: xr.Dataset) -> str:
    """Return the label of a score, with the units of the variable that the study compares."""
    return LABELS[score].replace("(m/s)", f"({settings.attrs.get('units', 'm/s')})")


@matplotlib.rc_context(LOOK)
def by_evaluations(curves: xr.Dataset, scores: Sequence[str]) -> Figure:
    """Fig. 5: scores against cost, including the moments network. Each prior has a line through its best settings.

    There is one panel for each score.
    """
    figure, axes = _panels(scores)
    sampled = curves.isel(setting=(curves["nfe"] > 0).values)
    alone = curves.isel(setting=(curves["nfe"] == 0).values)
    for axis, score in zip(axes, scores, strict=True):
        for prior in priors_of(sampled):
            draw_line(axis, best_of_prior(sampled, prior).sortby("cost"), "cost", score, label=prior, **look_of(prior))
        if alone.sizes["setting"]:
            axis.axhline(alone[score].values[0], color="black", linestyle="-.", linewidth=0.8, label=str(alone["prior"].values[0]))
        finish(axis, curves, score, "cost of a sample in evaluations")
    legend_below(figure)
    return figure


@matplotlib.rc_context(LOOK)
def by_solver(curves: xr.Dataset, scores: Sequence[str]) -> Figure:
    """Fig. 8: every solver with every grid of flow times, for the warm start at its highest warmth and the standard prior, or two others.

    Args:
        curves: settings of a study.
        scores: one row for each, with the same scale for both priors.
    """
    present = priors_of(curves)
    priors = [prior for prior in MAIN_PRIORS if prior in present] or present[:2]
    solvers = solvers_of(curves)
    colours = {solver: f"C{number % 10}" for number, solver in enumerate(dict.fromkeys(solver for solver, _ in solvers))}
    styles = {grid: ("-", "--", ":", "-.")[number % 4] for number, grid in enumerate(dict.fromkeys(grid for _, grid in solvers))}
    figure = Figure(figsize=(WIDTH, 2.9 * len(scores)), layout="constrained")
    axes = figure.subplots(len(scores), len(priors), squeeze=False, sharey="row")
    for row, score in zip(axes, scores, strict=True):
        for axis, prior in zip(row, priors, strict=True):
            of_prior = curves.isel(setting=(curves["prior"] == prior).values).sortby("nfe")
            of_prior = of_prior.isel(setting=(of_prior["warmth"] == of_prior["warmth"].max()).values)
            for solver, grid in solvers:
                line = of_prior.isel(setting=((of_prior["solver"] == solver) & (of_prior["grid_in_time"] == grid)).values)
                axis.plot(line["nfe"], line[score], marker=".", color=colours[solver], linestyle=styles[grid], label=f"{solver}, {grid}")
            best = of_prior.isel(setting=of_prior["best"].values)
            axis.scatter(best["nfe"], best[score], s=60, facecolors="none", edgecolors="black", label="best", zorder=3)
            finish(axis, curves, score, "evaluations")
            axis.set(title=prior, ylabel=label_of(score, curves) if axis is row[0] else None)
    legend_below(figure)
    return figure


def priors_of(study: xr.Dataset) -> list[str]:
    """The priors of a study, the main ones first."""
    return sorted(dict.fromkeys(study["prior"].values.tolist()), key=lambda prior: prior not in MAIN_PRIORS)


def best_of_prior(study: xr.Dataset, prior: str) -> xr.Dataset:
    """The best setting of a prior at each number of evaluations, in the order of these numbers."""
    return study.isel(setting=((study["prior"] == prior) & study["best"]).values).sortby("nfe")


def solvers_of(study: xr.Dataset) -> list[tuple[str, str]]:
    """The pairs of solver and grid of flow times of a study."""
    pairs = zip(study["solver"].values.tolist(), study["grid_in_time"].values.tolist(), strict=True)
    return sorted({pair for pair in pairs if pair[0]})


def look_of(prior: str) -> dict[str, Any]:
    """Colour and style of the line of a prior: solid for the warm start, dotted for the standard prior, dashed for the others."""
    main = prior in MAIN_PRIORS
    colour = PRIORS.get(prior) or SPARE_COLOURS[crc32(prior.encode()) % len(SPARE_COLOURS)]
    return {"color": colour, "linestyle": {"warm": "-", "standard": ":"}.get(prior, "--"), "zorder": 2.2 if main else 2}


def draw_line(axis: Axes, settings: xr.Dataset, along: str, score: str, **look: Any) -> None:
    """Draw means over seeds as a line, their intervals (if known) as a band, and the seeds as dots."""
    x = settings[along].values
    axis.plot(x, settings[score], marker=".", **look)
    if f"{score}_interval" in settings:
        low, high = settings[f"{score}_interval"].transpose("bound", "setting").values
        axis.fill_between(x, low, high, color=look["color"], alpha=0.12, linewidth=0)
    if f"{score}_by_seed" in settings:
        for seed in settings[f"{score}_by_seed"].transpose("seed", "setting").values:
            axis.plot(x, seed, linestyle="none", marker=".", markersize=1.5, alpha=0.6, color=look["color"])


def finish(axis: Axes, settings: xr.Dataset, score: str, x_label: str) -> None:
    """Set scales and labels. Draw the value of a perfect forecast, and the floor of the score if the study has one."""
    axis.set(xscale="log", xlabel=x_label, ylabel=label_of(score, settings))
    set_ticks(axis.xaxis, FixedLocator(EVALUATIONS))
    if score in LOGARITHMIC and is_positive(settings, score):
        axis.set_yscale("log")
        set_ticks(axis.yaxis, LogLocator(subs=LEADING_DIGITS))
    if f"floor_{score}" in settings.attrs:
        axis.axhline(settings.attrs[f"floor_{score}"], color="black", linestyle=":", linewidth=0.9, label=settings.attrs["floor_of"])
    if score.startswith("spread_skill"):
        axis.axhline(1, color="black", linewidth=0.8, zorder=1)


def is_positive(study: xr.Dataset, score: str) -> bool:
    """Whether a logarithmic axis can show the score."""
    values = study[score].values[np.isfinite(study[score].values)]
    return bool(values.size and (values > 0).all())


def _panels(scores: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """One panel for each score, at most three in a row."""
    columns = min(3, len(scores))
    rows = -(-len(scores) // columns)
    figure = Figure(figsize=(WIDTH, 0.5 + 2.8 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[len(scores) :]:
        axis.remove()
    return figure, list(axes[: len(scores)])
