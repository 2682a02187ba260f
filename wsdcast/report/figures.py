"""The figures of the report, each as a matplotlib figure."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.report.maps import draw_map, wind_speed

COLOURS = {"wsdcast": "#0b6e99", "moments alone": "#d97706", "persistence": "#6b7280", "climatology": "#9ca3af"}
STYLES = {"wsdcast": "-", "moments alone": "--", "persistence": ":", "climatology": "-."}


def score_curves(scores: xr.Dataset) -> Figure:
    """Fair CRPS, RMSE of the mean and spread/skill against lead time, both wind components together."""
    both = scores.sel(variable="both")
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
        axis.set(xlabel="lead time (days)", ylabel=label)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        if metric == "spread_skill":
            axis.axhline(1, color="black", linewidth=0.8)
    axes[0].legend(fontsize=8)
    return figure


def hours(at: xr.Dataset) -> int:
    """Lead time of scores at one."""
    return int(at["prediction_timedelta"].values / np.timedelta64(1, "h"))


def spectrum_ratios(scores: xr.Dataset) -> Figure:
    """Ratio of the members' zonal power to the truth's by wavenumber, at the first, a middle and the last lead time."""
    both = scores.sel(variable="both")
    leads = both.sizes["prediction_timedelta"]
    chosen = sorted({0, leads // 2, leads - 1})
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    for axis, lead in zip(np.atleast_1d(figure.subplots(1, len(chosen), sharey=True)), chosen, strict=True):
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
