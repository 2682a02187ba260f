"""The figures of a study of images: the paper's Figs. 5 and 8 and its sensitivity to the visible share, for one's own data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FormatStrFormatter, Locator, LogLocator, NullLocator

from wsdcast.images.score_page import LABELS
from wsdcast.report.style import LOOK, PRIORS

MAIN_PRIORS = ("standard", "warm")
DISTANCES = ("fid", "classifier_distance", "power_deviation")
"""Scores that go down to a floor, which a logarithmic axis shows."""
EVALUATIONS = (2, 3, 4, 6, 8, 12, 20, 30, 50, 100)
PERCENT = (1, 2, 5, 10, 20, 50, 90)
LEADING = (1, 1.5, 2, 3, 5, 7)
"""First digits of ticks on a logarithmic axis."""
WIDTH = 9.8
"""Inches; a page shows it without scaling."""


@matplotlib.rc_context(LOOK)
def by_evaluations(curves: xr.Dataset, scores: Sequence[str]) -> Figure:
    """Fig. 5: scores against cost, the moments network's share included, a line for the best solvers and warmths of each prior.

    Args:
        curves: the study's settings of the kind curve.
        scores: a panel for each.
    """
    figure, axes = _panels(scores)
    for axis, score in zip(axes, scores, strict=True):
        for prior in _priors(curves):
            mine = curves.isel(setting=((curves["prior"] == prior) & curves["best"]).values).sortby("cost")
            _line(axis, mine, "cost", score, label=prior, **_look(prior))
        _finish(axis, curves, score, "cost of a sample in evaluations")
    _legend(figure, 7)
    return figure


@matplotlib.rc_context(LOOK)
def by_solver(curves: xr.Dataset, scores: Sequence[str]) -> Figure:
    """Fig. 8: every solver with every grid in time, for the warm start at full warmth and the standard prior, or two others.

    Args:
        curves: the study's settings of the kind curve.
        scores: a row for each, on the same scale for both priors.
    """
    present = _priors(curves)
    priors = [prior for prior in MAIN_PRIORS if prior in present] or present[:2]
    solvers = solvers_of(curves)
    colours = {solver: f"C{number % 10}" for number, solver in enumerate(dict.fromkeys(solver for solver, _ in solvers))}
    styles = {grid: ("-", "--", ":", "-.")[number % 4] for number, grid in enumerate(dict.fromkeys(grid for _, grid in solvers))}
    figure = Figure(figsize=(WIDTH, 2.9 * len(scores)), layout="constrained")
    axes = figure.subplots(len(scores), len(priors), squeeze=False, sharey="row")
    for row, score in zip(axes, scores, strict=True):
        for axis, prior in zip(row, priors, strict=True):
            mine = curves.isel(setting=(curves["prior"] == prior).values).sortby("nfe")
            mine = mine.isel(setting=(mine["warmth"] == mine["warmth"].max()).values)
            for solver, grid in solvers:
                line = mine.isel(setting=((mine["solver"] == solver) & (mine["grid_in_time"] == grid)).values)
                axis.plot(line["nfe"], line[score], marker=".", color=colours[solver], linestyle=styles[grid], label=f"{solver}, {grid}")
            best = mine.isel(setting=mine["best"].values)
            axis.scatter(best["nfe"], best[score], s=60, facecolors="none", edgecolors="black", label="best", zorder=3)
            _finish(axis, curves, score, "evaluations")
            axis.set(title=prior, ylabel=LABELS[score] if axis is row[0] else None)
    _legend(figure, 5)
    return figure


@matplotlib.rc_context(LOOK)
def by_visible_share(sensitivity: xr.Dataset, scores: Sequence[str], *, relative: bool = False) -> Figure:
    """Scores against the share of visible pixels: for each number of evaluations the warm start by warmth, and the standard prior.

    Args:
        sensitivity: the study's settings of this kind.
        scores: a row for each.
        relative: whether to divide by the standard prior's score of the same share, evaluations and seed, NaN where there is none.
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
            here = shares.isel(setting=(shares["nfe"] == nfe).values)
            for prior in _priors(here):
                mine = here.isel(setting=(here["prior"] == prior).values)
                if prior != "warm":
                    _line(axis, mine, "percent", score, label=prior, **_look(prior))
                    continue
                for warmth in warmths:
                    line = mine.isel(setting=(mine["warmth"] == warmth).values)
                    _line(axis, line, "percent", score, label=f"{prior}, warmth {warmth:g}", color=shades[warmth])
            axis.set(title=f"{nfe} evaluations", xlabel="visible pixels (%)", xscale="log")
            _ticks(axis.xaxis, FixedLocator(PERCENT))
            if not relative and _positive(sensitivity, score):
                axis.set_yscale("log")
                _ticks(axis.yaxis, LogLocator(subs=LEADING))
        row[0].set_ylabel(LABELS[score] + (" / standard's" if relative else ""))
    _legend(figure, 5)
    return figure


def _over_standard(sensitivity: xr.Dataset, scores: Sequence[str]) -> xr.Dataset:
    """Scores and those of seeds over those of the standard prior; intervals of ratios are not known."""
    found = sensitivity.drop_vars([f"{score}_interval" for score in scores]).copy(deep=True)
    keys = list(zip(sensitivity["visible"].values.tolist(), sensitivity["nfe"].values.tolist(), strict=True))
    standard = {key: index for index, key in enumerate(keys) if sensitivity["prior"].values[index] == "standard"}
    at = np.array([standard.get(key, -1) for key in keys])
    for name in (f"{score}{suffix}" for score in scores for suffix in ("", "_by_seed")):
        values = found[name].transpose("setting", ...)
        known = (at >= 0).reshape(-1, *(1,) * (values.ndim - 1))
        found[name] = values / np.where(known, values.values[at], np.nan)
    return found


def _priors(study: xr.Dataset) -> list[str]:
    """Main ones first."""
    return sorted(dict.fromkeys(study["prior"].values.tolist()), key=lambda prior: prior not in MAIN_PRIORS)


def solvers_of(study: xr.Dataset) -> list[tuple[str, str]]:
    """Each solver with each grid in time that a study has."""
    return sorted(set(zip(study["solver"].values.tolist(), study["grid_in_time"].values.tolist(), strict=True)))


def _look(prior: str) -> dict[str, Any]:
    main = prior in MAIN_PRIORS
    return {"color": PRIORS.get(prior, "black"), "linestyle": "-" if main else "--", "zorder": 2.2 if main else 2}


def _panels(scores: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """As many panels as scores, at most three in a row."""
    columns = min(3, len(scores))
    rows = -(-len(scores) // columns)
    figure = Figure(figsize=(WIDTH, 0.5 + 2.8 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[len(scores) :]:
        axis.remove()
    return figure, list(axes[: len(scores)])


def _line(axis: Axes, settings: xr.Dataset, along: str, score: str, **look: Any) -> None:
    """A mean over seeds, its interval if it has one, and the seeds."""
    x = settings[along].values
    axis.plot(x, settings[score], marker=".", **look)
    if f"{score}_interval" in settings:
        low, high = settings[f"{score}_interval"].transpose("bound", "setting").values
        axis.fill_between(x, low, high, color=look["color"], alpha=0.12, linewidth=0)
    for seed in settings[f"{score}_by_seed"].transpose("seed", "setting").values:
        axis.plot(x, seed, linestyle="none", marker=".", markersize=1.5, alpha=0.6, color=look["color"])


def _finish(axis: Axes, curves: xr.Dataset, score: str, x_label: str) -> None:
    """Scales, labels, and what is right or the least that there is."""
    axis.set(xscale="log", xlabel=x_label, ylabel=LABELS[score])
    _ticks(axis.xaxis, FixedLocator(EVALUATIONS))
    if score in DISTANCES and _positive(curves, score):
        axis.set_yscale("log")
        _ticks(axis.yaxis, LogLocator(subs=LEADING))
    if f"floor_{score}" in curves.attrs:
        axis.axhline(curves.attrs[f"floor_{score}"], color="black", linestyle=":", linewidth=0.9, label=curves.attrs["floor_of"])
    if score == "spread_skill":
        axis.axhline(1, color="black", linewidth=0.8, zorder=1)


def _legend(figure: Figure, columns: int) -> None:
    """All lines by name, below the panels."""
    named = {label: handle for axis in figure.axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(list(named.values()), list(named), loc="outside lower center", ncols=columns)


def _positive(study: xr.Dataset, score: str) -> bool:
    """Whether a logarithmic axis can show it."""
    values = study[score].values[np.isfinite(study[score].values)]
    return bool(values.size and (values > 0).all())


def _ticks(axis: Axis, at: Locator) -> None:
    """Few round numbers, as they are."""
    axis.set_major_locator(at)
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FormatStrFormatter("%g"))
