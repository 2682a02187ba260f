"""Figures of the scores, drawn with matplotlib. The first forecast is the one that is judged; the others are references."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import NDArray

from wsdcast.report.style import LEADING_DIGITS, LINE_STYLES, LOOK, MARKED, THRESHOLDS, WIDTH, components_of, legend_below, looks, set_ticks
from wsdcast.report.subjects import Subject, subject
from wsdcast.verification.baselines import BASELINES
from wsdcast.verification.bootstrap import block_weights, interval, resampled
from wsdcast.verification.metrics import headline_of, variables_of

Field = NDArray[np.floating]

METRICS = {
    "crps_fair": "fair CRPS",
    "energy_score": "energy score",
    "rmse": "RMSE of the mean",
    "spread_skill": "spread / skill",
    "power_deviation": "largest deviation of the spectrum",
}
"""Labels of the metrics in the summary table of the report."""
CURVES = ("crps_fair", "rmse", "spread_skill")
"""Metrics of these that are drawn against lead time."""
RARE = 1e-5
"""A bin of forecast probability with less than this share of the area is not shown."""
SHADE: dict[str, Any] = {"alpha": 0.15, "linewidth": 0}
PERFECT: dict[str, Any] = {"color": "black", "linewidth": 0.6, "zorder": 1}
"""Look of the line on which a perfect forecast would lie."""


def hours(at: xr.Dataset | xr.DataArray) -> int:
    """Return the lead time in hours of scores at a single lead time."""
    return int(at["prediction_timedelta"].values / np.timedelta64(1, "h"))


def at_scored_leads(scores: xr.Dataset) -> xr.Dataset:
    """Return the scores at the lead times at which the judged forecast has any: those that have truth."""
    known = scores["crps_fair"].isel(forecast=0).notnull()
    return scores.isel(prediction_timedelta=known.any(set(known.dims) - {"prediction_timedelta"}).values)


def some_leads(scores: xr.DataArray | xr.Dataset) -> list[int]:
    """Return the positions of the first, a middle and the last lead time."""
    leads = scores.sizes["prediction_timedelta"]
    return sorted({0, leads // 2, leads - 1})


def unit_of(metric: str, of: Subject) -> str:
    """Return the unit of one of :data:`METRICS` of a subject; empty if it has none."""
    return "" if metric in ("spread_skill", "power_deviation") else of.score_units


def with_unit(metric: str, of: Subject) -> str:
    """Return the label of one of :data:`METRICS` of a subject with its unit."""
    unit = unit_of(metric, of)
    return f"{METRICS[metric]} ({unit})" if unit else METRICS[metric]


def headline(scores: xr.Dataset) -> Subject:
    """Return the subject of the figures that show one: the headline of the scores."""
    return subject(variables_of(scores), headline_of(scores))


def probability_bins(at: xr.DataArray) -> tuple[NDArray[np.bool_], Field, Field, Field]:
    """Return which bins of forecast probability are shown, and their share of the area, mean forecast and observed frequency.

    ``at`` is the statistic ``reliability`` at one lead time and threshold.
    """
    area, *sums = (at.sel(of=kind).values for kind in ("area", "forecast", "observed"))
    shown = area > RARE
    forecast, observed = (each[shown] / area[shown] for each in sums)
    return shown, area[shown], forecast, observed


@matplotlib.rc_context(LOOK)
def score_curves(scores: xr.Dataset) -> Figure:
    """Draw fair CRPS, RMSE of the mean and spread/skill of the headline against lead time; of a wind for both components together."""
    of = headline(scores)
    both = scores.sel(variable=of.name, region="globe")
    figure = Figure(figsize=(WIDTH, 2.5), layout="constrained")
    for axis, metric in zip(figure.subplots(1, 3), CURVES, strict=True):
        _by_lead(axis, both, metric)
        axis.set(xlabel="lead time (days)", ylabel=with_unit(metric, of))
        axis.set_ylim(bottom=0)
    figure.axes[-1].axhline(1, **PERFECT)
    legend_below(figure)
    return figure


@matplotlib.rc_context(LOOK)
def region_skill(scores: xr.Dataset) -> Figure:
    """Draw the skill of the fair CRPS of the headline over each reference against lead time, one panel per region.

    Both components of a wind count together.
    """
    ours = scores.isel(forecast=0).sel(variable=headline(scores).name)
    skill = ours[[name for name in ours if str(name).startswith("crps_fair_skill")]]
    regions = [str(region) for region in ours["region"].values]
    rows = -(-len(regions) // 3)
    figure = Figure(figsize=(WIDTH, 0.6 + 1.7 * rows), layout="constrained")
    axes = figure.subplots(rows, min(3, len(regions)), sharex=True, sharey=True, squeeze=False)
    for axis, region in zip(axes.flat, regions, strict=False):
        percent = 100 * skill.sel(region=region)
        _by_lead(axis, percent, "crps_fair_skill", "reference")
        axis.axhline(0, **PERFECT)
        axis.set_title(region if percent["crps_fair_skill"].notnull().any() else f"{region}: no cell")
    for axis in axes[-1]:
        axis.set_xlabel("lead time (days)")
    for axis in axes[:, 0]:
        axis.set_ylabel("CRPS skill (%)")
    for axis in axes.flat[len(regions) :]:
        axis.axis("off")
    legend_below(figure, "over {}")
    return figure


@matplotlib.rc_context(LOOK)
def rank_histograms(scores: xr.Dataset) -> Figure:
    """Draw rank histograms of the headline at the first, a middle and the last lead time; a reliable ensemble has flat ones.

    Those of a wind are of u, v and speed.
    """
    whole = scores.isel(forecast=0).sel(region="globe")
    ours = whole["rank_histogram"].dropna("rank", how="all")
    figure, axes = _panels_by_lead(ours, 2.3)
    for axis, lead in zip(axes, some_leads(ours), strict=True):
        histogram = ours.isel(prediction_timedelta=lead)
        bins = histogram["rank"].size
        for variable, (label, (colour, style)) in components_of(headline(scores)).items():
            values, line = histogram.sel(variable=variable) * bins, LINE_STYLES[style]
            axis.step(histogram["rank"], values, where="mid", color=colour, label=label, linestyle=line)
            if _has_starts(whole, "rank_histogram"):
                statistics = whole[["rank_histogram_by_start"]].sel(variable=variable, rank=ours["rank"])
                low, high = bins * _interval(statistics, lead, lambda mean: mean["rank_histogram_by_start"]).values
                axis.fill_between(histogram["rank"], low, high, step="mid", color=colour, **SHADE)
        axis.axhline(1, **PERFECT)
        axis.set(xlabel="members below the truth")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_ylabel("frequency (flat: 1)")
    axes[0].set_ylim(bottom=0)  # after all panels are drawn, since they share the axis
    legend_below(figure)
    return figure


@matplotlib.rc_context(LOOK)
def reliability(scores: xr.Dataset) -> Figure:
    """Draw observed frequency against the forecast probability that speed exceeds a threshold.

    A reliable forecast lies on the diagonal. Dots grow with the area.
    """
    whole = scores.isel(forecast=0).sel(region="globe")
    ours = whole["reliability"]
    figure, axes = _panels_by_lead(ours, 3.1)
    for axis, lead in zip(axes, some_leads(ours), strict=True):
        at_lead = ours.isel(prediction_timedelta=lead)
        for threshold, colour, marker in zip(at_lead["threshold"].values, THRESHOLDS, "os^", strict=False):
            shown, area, x, y = probability_bins(at_lead.sel(threshold=threshold))
            axis.plot(x, y, color=colour, linewidth=0.8)
            axis.scatter(x, y, 4 + 60 * np.sqrt(area), color=colour, marker=marker, linewidths=0)
            axis.plot([], [], color=colour, marker=marker, linewidth=0.8, label=f"above {threshold:g} m/s")
            if _has_starts(whole, "reliability"):
                low, high = _interval(whole[["reliability_by_start"]].sel(threshold=threshold), lead, _frequency).values
                axis.vlines(x, low[shown], high[shown], color=colour, linewidth=0.6)
        axis.plot([0, 1], [0, 1], **PERFECT)
        axis.set(xlabel="forecast probability", aspect="equal", xlim=(-0.05, 1.05), ylim=(-0.05, 1.05))
    axes[0].set_ylabel("observed frequency")
    legend_below(figure)
    return figure


@matplotlib.rc_context(LOOK)
def spectrum_ratios(scores: xr.Dataset) -> Figure:
    """Draw the ratio of the members' zonal power to the truth's by wavenumber, at the first, a middle and the last lead time."""
    both = scores.sel(variable=headline(scores).name, region="globe")
    figure, axes = _panels_by_lead(both, 2.5)
    for axis, lead in zip(axes, some_leads(both), strict=True):
        for name, (colour, style) in looks(both["forecast"].values).items():
            forecast = both.sel(forecast=name).isel(wavenumber=slice(1, None))
            ratio = forecast["power_ratio"].isel(prediction_timedelta=lead)
            if name in BASELINES or not ratio.notnull().any():
                continue  # baselines consist of states of the record, so their spectrum is right
            axis.plot(ratio["wavenumber"], ratio, color=colour, linestyle=LINE_STYLES[style], label=name)
            if _has_starts(forecast, "power"):
                statistics = forecast[["power_by_start", "power_truth_by_start"]]
                low, high = _interval(statistics, lead, lambda mean: mean["power_by_start"] / mean["power_truth_by_start"]).values
                axis.fill_between(ratio["wavenumber"], low, high, color=colour, **SHADE)
        axis.axhspan(0.8, 1.2, color="black", alpha=0.08, linewidth=0)
        axis.axhline(1, **PERFECT)
        axis.set(xscale="log", yscale="log", xlabel="zonal wavenumber")
        _label_logarithmic(axis.xaxis)
    _label_logarithmic(axes[0].yaxis)  # the panels share it
    axes[0].set_ylabel("power of members / truth")
    legend_below(figure)
    return figure


def _panels_by_lead(scores: xr.Dataset | xr.DataArray, height: float) -> tuple[Figure, NDArray[np.object_]]:
    """Return a figure with one panel for each lead time of :func:`some_leads`, and its panels."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(1, len(some_leads(scores)), sharey=True, squeeze=False)[0]
    for axis, lead in zip(axes, some_leads(scores), strict=True):
        axis.set_title(f"{hours(scores.isel(prediction_timedelta=lead))} h")
    return figure, axes


def _by_lead(axis: Axes, scores: xr.Dataset, metric: str, dimension: str = "forecast") -> None:
    """Draw a line with its interval against lead time for each name along ``dimension``, where the metric is known."""
    days = scores["prediction_timedelta"].values / np.timedelta64(1, "D")
    marker = "o" if days.size <= MARKED else None
    for name, (colour, style) in looks(scores[dimension].values).items():
        line = scores.sel({dimension: name})
        if not line[metric].notnull().any():
            continue
        axis.plot(days, line[metric], color=colour, linestyle=LINE_STYLES[style], marker=marker, label=name)
        if f"{metric}_interval" in line:
            low, high = line[f"{metric}_interval"].transpose("bound", ...).values
            axis.fill_between(days, low, high, color=colour, **SHADE)


def _label_logarithmic(scale: Axis) -> None:
    """Label a logarithmic axis with round numbers, and with more of them if it covers less than a decade."""
    low, high = scale.get_view_interval()
    set_ticks(scale, LogLocator(subs=(1, 2, 5) if high > 10 * low else LEADING_DIGITS))


def _has_starts(scores: xr.Dataset, statistic: str) -> bool:
    """Return whether the scores have a statistic by initial time, at more than one, so that an interval can be computed."""
    return f"{statistic}_by_start" in scores and scores.sizes["time"] > 1


def _interval(statistics: xr.Dataset, lead: int, metric: Callable[[xr.Dataset], xr.DataArray]) -> xr.DataArray:
    """Return the interval (bound, ...) of a metric at one lead time. It is computed like the intervals in ``scores.nc``."""
    weights = block_weights(statistics["time"].values, statistics["prediction_timedelta"].values.max())
    at_lead = statistics.isel(prediction_timedelta=lead)
    known = at_lead.to_dataarray("statistic").notnull()
    return interval(metric(resampled(at_lead, weights, known.any(set(known.dims) - {"time"}))))


def _frequency(mean: xr.Dataset) -> xr.DataArray:
    """Return the observed frequency by forecast probability."""
    reliability = mean["reliability_by_start"]
    return reliability.sel(of="observed", drop=True) / reliability.sel(of="area", drop=True)
