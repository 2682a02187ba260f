"""Figure of the ensemble at one place: quantiles by lead time, with a panel for each variable."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from numpy.typing import NDArray

from wsdcast.data.grid import EARTH_RADIUS, Grid
from wsdcast.data.store.forecasts import QUANTILES
from wsdcast.report.style import BLUE, LOOK, WIDTH
from wsdcast.report.subjects import Subject

Field = NDArray[np.floating]
Moment = np.datetime64 | NDArray[np.datetime64]

TIME_LABEL = "lead time (days) and valid time (UTC)"
"""Label of the time axis of every plume."""
STEPS = (0.25, 0.5, 1, 2, 3, 5, 10, 15, 30)
"""Days between two labels of that axis."""


def nearest(grid: Grid, latitude: float, longitude: float) -> tuple[int, int, float]:
    """Return row and column of the grid point that is nearest to a place on the sphere, and its distance in km."""
    rows, columns = np.deg2rad(grid.latitude)[:, None], np.deg2rad(grid.longitude)[None, :]
    row_angle, column_angle = np.deg2rad(latitude), np.deg2rad(longitude)
    # The haversine of the distance. Its cosine would lose small distances to rounding.
    haversine = np.sin((rows - row_angle) / 2) ** 2 + np.cos(rows) * np.cos(row_angle) * np.sin((columns - column_angle) / 2) ** 2
    row, column = np.unravel_index(haversine.argmin(), grid.shape)
    return int(row), int(column), float(2 * EARTH_RADIUS / 1000 * np.arcsin(np.sqrt(haversine.min())))


def place(latitude: float, longitude: float) -> str:
    """Return coordinates as text: 52.5°N 13.4°E."""
    east = (longitude + 180) % 360 - 180
    return f"{abs(latitude):.6g}°{'N' if latitude >= 0 else 'S'} {abs(east):.6g}°{'E' if east >= 0 else 'W'}"


@matplotlib.rc_context(LOOK)
def plume(
    bands: Sequence[Field],
    subjects: Sequence[Subject],
    leads: NDArray[np.timedelta64],
    title: str,
    start: Moment,
    truth: Field | None = None,
) -> Figure:
    """Draw bands of quantiles of wind speeds and other variables against lead time, one panel below the other.

    Args:
        bands: of each variable, values at the :data:`QUANTILES` of the members, as they are shown, (quantile, lead).
        subjects: the variables.
        start: the initial time.
        truth: of a single variable, (lead,), NaN where it is not known; None if it is not known at all.
    """
    figure = Figure(figsize=(WIDTH / 2, 1.3 + 1.4 * len(subjects)), layout="constrained")
    axes = figure.subplots(len(subjects), sharex=True, squeeze=False)[:, 0]
    for axis, values, subject in zip(axes, bands, subjects, strict=True):
        _draw(axis, values, np.full(leads.size, np.nan) if truth is None else truth, leads)
        axis.set_title(f"{subject.value_label} ({subject.units})")
        if subject.from_zero:
            axis.set_ylim(bottom=0)
    first: datetime = start.astype("datetime64[s]").item()
    axis.set_xlabel(TIME_LABEL)
    axis.xaxis.set_major_locator(MultipleLocator(step_of(axis.get_xlim()[1])))
    axis.xaxis.set_major_formatter(lambda days, _: f"{days:g}\n{first + timedelta(days=days):%d %b\n%H:%M}")
    figure.suptitle(title, fontsize=8)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, columnspacing=1, handlelength=1.5)
    return figure


def step_of(days: float) -> float:
    """Return the days between two labels of a time axis of this length, such that there is room for them."""
    return next((step for step in STEPS if days / step <= 5.5), days)


def _draw(axis: Axes, bands: Field, truth: Field, leads: NDArray[np.timedelta64]) -> None:
    if leads.size == 1:  # bands and lines need two points
        bands, truth, leads = np.repeat(bands, 2, axis=1), np.repeat(truth, 2), np.array([0.98, 1.02]) * leads
    days = leads / np.timedelta64(1, "D")
    outer, inner, median = (bands[0], bands[-1]), (bands[1], bands[-2]), bands[len(QUANTILES) // 2]
    is_certain = np.array_equal(bands[0], bands[-1], equal_nan=True)  # as a forecast of one member, whose bands would have no width
    for (low, high), ends, shade in () if is_certain else ((outer, QUANTILES[::4], "#cce3f0"), (inner, QUANTILES[1:4:2], "#85b8d9")):
        shares = "{:.0f} to {:.0f} %".format(*(100 * end for end in ends))
        axis.fill_between(days, low, high, color=shade, linewidth=0, label=shares)
    axis.plot(days, median, color=BLUE, label="forecast" if is_certain else "median")
    if np.isfinite(truth).any():
        axis.plot(days, truth, color="black", marker="o", linewidth=0.8, label="truth", clip_on=False)
    axis.set_xlim(0, days[-1])
