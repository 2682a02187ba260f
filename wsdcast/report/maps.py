"""Maps of the globe on its own grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from wsdcast.data.grid import Grid, circles_the_globe
from wsdcast.report.style import LOOK, WIDTH
from wsdcast.report.subjects import Subject

X_TICKS = {-90: "90°W", 0: "0°", 90: "90°E"}
Y_TICKS = {-60: "60°S", 0: "0°", 60: "60°N"}
TICK_STEPS = (1, 2, 5, 10, 20)
"""Degrees between two labels of a map of a region."""
WIDEST = 240.0
"""Largest width of a map of a region in degrees. A region that needs more is shown on a map of the globe."""

Lines = Sequence[NDArray[np.floating]]
"""Polylines of (longitude, latitude), each (point, 2), degrees, longitudes from -180 to 180."""

Points = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Latitudes (row,) and longitudes (column,) of the points of a map, degrees."""


def signed(longitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return longitudes as maps have them, in degrees in [-180, 180)."""
    return (longitude + 180) % 360 - 180


SIGNED = "const signed = longitude => (longitude % 360 + 540) % 360 - 180\n"
"""The same as code for a page."""


class View(NamedTuple):
    """The part of the globe that a map shows, twice as wide as high, in degrees. East is up to 360 beyond west."""

    west: float
    east: float
    south: float
    north: float

    def eastward(self, longitude: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return longitudes in [-180, 540) as they are on the map, from its west on."""
        return longitude + 360 * (longitude < self.west) - 360 * (longitude >= self.west + 360)

    @property
    def ticks(self) -> tuple[dict[int, str], dict[int, str]]:
        """Labels of longitudes and latitudes, by degrees."""
        if self.east - self.west > WIDEST:
            return X_TICKS, Y_TICKS
        step = next((step for step in TICK_STEPS if self.north - self.south <= 4.5 * step), TICK_STEPS[-1])
        labels = []
        for low, high, names in ((self.west, self.east, "EW"), (self.south, self.north, "NS")):
            degrees = range(int(np.ceil(low / step)) * step, int(np.floor(high)) + 1, 2 * step if names == "EW" else step)
            near = {at: (at + 180) % 360 - 180 for at in degrees}
            labels.append({at: f"{abs(east)}°{names[east < 0] if east % 180 else ''}" for at, east in near.items()})
        return labels[0], labels[1]


def view_of(known: NDArray[np.bool_], latitude: NDArray[np.float64], longitude: NDArray[np.float64]) -> View:
    """Return the region in which a map has values, or all of its points if none has; if that is large, the globe around Greenwich.

    Args:
        known: which points of the map have values, (row, column).
        latitude, longitude: of these points, from north to south and from west to east (:func:`rising`), equally spaced.
    """
    known = known | (not known.any())
    step_y, step_x = steps_of(latitude, longitude)
    north, south = latitude[known.any(axis=1)][[0, -1]]
    inside = longitude[known.any(axis=0)]
    gaps = np.diff(inside, append=inside[0] + 360)  # the region begins after the widest one
    length, begin = 360 - gaps.max(), inside[(gaps.argmax() + 1) % gaps.size]
    width = max(length + step_x, 2 * (north - south + step_y))
    if width > WIDEST:
        west = float(-180 - (-180 - longitude[0] + step_x / 2) % step_x)  # where a column ends, as if they went round the globe
        return View(west, west + 360, -90.0, 90.0)
    west, south = begin + (length - width) / 2, np.clip((south + north - width / 2) / 2, -90, 90 - width / 2)
    return View(float(west), float(west + width), float(south), float(south + width / 2))


def steps_of(latitude: NDArray[np.float64], longitude: NDArray[np.float64]) -> tuple[float, float]:
    """Return the steps between the rows and between the columns of a map, in degrees. A single row or column has the other's step."""
    steps = {axis: abs(each[-1] - each[0]) / (each.size - 1) for axis, each in enumerate((latitude, longitude)) if each.size > 1}
    only = min(steps.values(), default=1.0)
    return float(steps.get(0, only)), float(steps.get(1, only))


def columns_of_map(longitude: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the columns from west to east as maps show them, (longitude,). On the globe, Greenwich is in the middle."""
    return np.argsort(signed(longitude)) if circles_the_globe(longitude) else np.arange(longitude.size)


def rising(longitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return longitudes from west to east as degrees that rise without a jump, from one in [-180, 180) on."""
    degrees = signed(longitude)
    return degrees + 360 * (degrees < degrees[0])


def repeated(lines: Lines, west: float) -> list[NDArray[np.floating]]:
    """Return the lines that lie in a map from ``west`` eastward round the globe, those at its edges on both sides."""
    turned = (line + np.array([turn, 0.0]) for line in lines for turn in (-360, 0, 360))
    return [line for line in turned if line[:, 0].max() > west and line[:, 0].min() < west + 360]


def draw_map(
    axis: Axes,
    field: NDArray[np.floating],
    grid: Grid,
    title: str,
    low: float,
    high: float,
    colours: str = "viridis",
    lines: Lines = (),
) -> AxesImage:
    """Draw a field (latitude, longitude) with north at the top and Greenwich in the middle, each cell at its position."""
    south, columns = (grid.latitude[0] - grid.latitude[-1]) / (grid.latitude.size - 1) / 2, columns_of_map(grid.longitude)
    west = signed(grid.longitude).min() - 180 / grid.longitude.size
    # Half of a pole row lies beyond the pole. The limits of the axis cut it off.
    extent = (west, west + 360, grid.latitude[-1] - south, grid.latitude[0] + south)
    image = axis.imshow(field[:, columns], extent=extent, vmin=low, vmax=high, cmap=colours, aspect="equal", interpolation="nearest")
    axis.add_collection(LineCollection(repeated(lines, west), colors="white", linewidths=0.5, alpha=0.8), autolim=False)
    axis.set(xlim=extent[:2], ylim=(-90, 90))
    axis.grid(False)
    axis.spines[:].set_visible(True)
    axis.set_title(title)
    axis.set_xticks(list(X_TICKS), X_TICKS.values(), fontsize=6)
    axis.set_yticks(list(Y_TICKS), Y_TICKS.values(), fontsize=6)
    return image


@matplotlib.rc_context(LOOK)
def forecast_maps(
    members: NDArray[np.floating],
    truth: NDArray[np.floating] | None,
    grid: Grid,
    title: str,
    lines: Lines,
    of: Subject,
) -> Figure:
    """Draw the truth, the ensemble mean and three members, and the spread of the members, at one time.

    Args:
        members: the channels of the subject, (member, channel, latitude, longitude).
        truth: (channel, latitude, longitude), or None if it is not known yet.
        grid: of both.
        title: text above all maps.
        lines: coastlines.
        of: what is shown. The colour scale of a wind speed begins at zero.
    """
    shown = of.of(members, of.channels)
    mean, spread = shown.mean(axis=0), shown.std(axis=0, ddof=min(1, len(shown) - 1))
    fields = {"mean of the members": mean} | {f"member {number}": field for number, field in enumerate(shown[:3])}
    if truth is not None:
        fields = {"truth": of.of(truth, of.channels)} | fields
    scaled = next(iter(fields.values())) if truth is not None else shown
    low, top = (0.0 if of.is_wind else float(np.quantile(scaled, 0.005))), float(np.quantile(scaled, 0.995))
    figure = Figure(figsize=(WIDTH, 3.7), layout=ConstrainedLayoutEngine(h_pad=0.08, compress=True))
    axes = figure.subplots(2, 3)
    map_axes = [axes[0, 0], axes[0, 1], *axes[1]] if truth is not None else [axes[0, 1], *axes[1]]
    if truth is None:
        axes[0, 0].axis("off")
        axes[0, 0].text(0.5, 0.5, "no truth yet", ha="center", va="center", transform=axes[0, 0].transAxes)
    for axis in map_axes[len(fields) :]:
        axis.axis("off")
    images = [
        draw_map(axis, field, grid, name, low, top, lines=lines) for axis, (name, field) in zip(map_axes, fields.items(), strict=False)
    ]
    spread_image = draw_map(axes[0, 2], spread, grid, "spread of the members", 0.0, float(spread.max()) or 1.0, "magma", lines)
    bar: dict[str, Any] = {"location": "bottom", "shrink": 0.8, "aspect": 30, "pad": 0.05}
    figure.colorbar(images[0], ax=axes[:, :2], label=f"{of.short_label} ({of.units})", extend="max" if of.is_wind else "both", **bar)
    figure.colorbar(spread_image, ax=axes[:, 2], label=f"spread ({of.spread_units})", **bar | {"aspect": 15})
    figure.suptitle(title, fontsize=8)
    return figure
