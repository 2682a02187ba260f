"""The figures of the report, each as a matplotlib figure."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.store import SPEED, VARIABLES
from wsdcast.report.maps import draw_map, wind_speed

COLOURS = {"wsdcast": "#0b6e99", "moments alone": "#d97706", "persistence": "#6b7280", "climatology": "#9ca3af"}
RARE = 1e-5
"""Share of the area below which a bin of probability is not shown."""
STYLES = {"wsdcast": "-", "moments alone": "--", "persistence": ":", "climatology": "-."}


def score_curves(scores: xr.Dataset) -> Figure:
    """Fair CRPS, RMSE of the mean and spread/skill against lead time, both wind components together."""
    both = scores.sel(variable="both", region="globe")
    days = both["prediction_timedelta"].values / np.timedelta64(1, "D")
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    panels = (("crps_fair", "fair CRPS (m/s)"), ("rmse", "RMSE of the mean (m/s)"), ("spread_skill", "spread / skill"))
    axes = figure.subplots(1, 3)
    for axis, (metric, label) in zip(axes, panels, strict=True):
        for forecast in both["forecast"].values:
            values = both[metric].sel(forecast=forecast)
            if metric == "spread_skill" and forecast not in ("wsdcast", "moments alone"):
                continue
            axis.plot(days, values, STYLES[forecast], color=COLOURS[forecast], label=forecast, marker=".", markersize=4)
            low, high = both[f"{metric}_interval"].sel(forecast=forecast)
            axis.fill_between(days, low, high, color=COLOURS[forecast], alpha=0.15, linewidth=0)
        axis.set(xlabel="lead time (days)", ylabel=label)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        if metric == "spread_skill":
            axis.axhline(1, color="black", linewidth=0.8)
    axes[0].legend(fontsize=8)
    return figure


def hours(at: xr.Dataset | xr.DataArray) -> int:
    """Lead time of scores at one."""
    return int(at["prediction_timedelta"].values / np.timedelta64(1, "h"))


def rank_histograms(scores: xr.Dataset) -> Figure:
    """How often so many members of u, v and speed are below the truth, at the first, a middle and the last lead time; flat is right."""
    ours = scores["rank_histogram"].sel(forecast="wsdcast", region="globe").dropna("rank", how="all")
    figure = Figure(figsize=(11, 3), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(some_leads(ours)), sharey=True))
    for axis, lead in zip(axes, some_leads(ours), strict=True):
        here = ours.isel(prediction_timedelta=lead)
        for variable, colour in zip((*VARIABLES, SPEED), ("#0b6e99", "#d97706", "#374151"), strict=True):
            label = variable.removeprefix("10m_").replace("_component_of_wind", "").replace("_", " ")
            axis.step(here["rank"], here.sel(variable=variable) * here["rank"].size, where="mid", color=colour, label=label)
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set(xlabel="members below the truth", title=f"{hours(here)} h")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("frequency / that of a flat one")
    axes[0].set_ylim(bottom=0)  # of all, once everything is drawn
    axes[0].legend(fontsize=8)
    return figure


def reliability(scores: xr.Dataset) -> Figure:
    """Observed frequency against forecast probability that speed exceeds a threshold; the diagonal is right, dots grow with the area."""
    ours = scores["reliability"].sel(forecast="wsdcast", region="globe")
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(some_leads(ours)), sharey=True))
    for axis, lead in zip(axes, some_leads(ours), strict=True):
        here = ours.isel(prediction_timedelta=lead)
        for threshold, colour in zip(here["threshold"].values, ("#0b6e99", "#d97706", "#7c3aed"), strict=True):
            area, forecast, observed = (here.sel(threshold=threshold, of=what).values for what in ("area", "forecast", "observed"))
            there = area > RARE
            label = f"above {threshold:g} m/s"
            axis.plot(forecast[there] / area[there], observed[there] / area[there], color=colour, linewidth=0.8, label=label)
            axis.scatter(forecast[there] / area[there], observed[there] / area[there], 4 + 60 * np.sqrt(area[there]), color=colour)
        axis.plot([0, 1], [0, 1], color="black", linewidth=0.8)
        axis.set(xlabel="forecast probability", title=f"{hours(here)} h", aspect="equal", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("observed frequency")
    axes[0].legend(fontsize=8)
    return figure


def some_leads(scores: xr.DataArray | xr.Dataset) -> list[int]:
    """Positions of the first, a middle and the last lead time."""
    leads = scores.sizes["prediction_timedelta"]
    return sorted({0, leads // 2, leads - 1})


def spectrum_ratios(scores: xr.Dataset) -> Figure:
    """Ratio of the members' zonal power to the truth's by wavenumber, at the first, a middle and the last lead time."""
    both = scores.sel(variable="both", region="globe")
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    for axis, lead in zip(np.atleast_1d(figure.subplots(1, len(some_leads(both)), sharey=True)), some_leads(both), strict=True):
        here = both.isel(prediction_timedelta=lead)
        for forecast in ("wsdcast", "moments alone"):
            if forecast in here["forecast"]:
                ratio = here["power_ratio"].sel(forecast=forecast).isel(wavenumber=slice(1, None))
                axis.plot(ratio["wavenumber"], ratio, STYLES[forecast], color=COLOURS[forecast], label=forecast)
        axis.axhspan(0.8, 1.2, color="black", alpha=0.08)
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set(xscale="log", yscale="log", xlabel="zonal wavenumber", title=f"{hours(here)} h")
        axis.grid(alpha=0.3, which="both")
    figure.axes[0].set_ylabel("power of members / truth")
    figure.axes[0].legend(fontsize=8)
    return figure


def forecast_maps(members: NDArray[np.floating], truth: NDArray[np.floating], grid: Grid, title: str) -> Figure:
    """Wind speed of the truth, the ensemble mean, its spread and three members at one time.

    Args:
        members: (member, channel, latitude, longitude), m s-1.
        truth: (channel, latitude, longitude).
    """
    truth_speed, speeds = wind_speed(truth), wind_speed(members)
    top = float(np.quantile(truth_speed, 0.995))
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    axes = figure.subplots(2, 3)
    first = draw_map(axes[0, 0], truth_speed, grid, "truth", 0.0, top)
    draw_map(axes[0, 1], speeds.mean(axis=0), grid, "mean of the members", 0.0, top)
    spread = speeds.std(axis=0, ddof=1)
    image = draw_map(axes[0, 2], spread, grid, "spread of the members", 0.0, float(spread.max()), "magma")
    for number, axis in enumerate(axes[1][: len(speeds)]):
        draw_map(axis, speeds[number], grid, f"member {number}", 0.0, top)
    figure.colorbar(first, ax=list(axes[1]), label="wind speed (m/s)", shrink=0.7)
    figure.colorbar(image, ax=list(axes[0]), label="spread (m/s)", shrink=0.7)
    figure.suptitle(title, fontsize=10)
    return figure
