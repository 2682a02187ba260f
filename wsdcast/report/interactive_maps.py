"""Interactive maps of a forecast by initial time and lead time, and the ensemble at one place, for the report.

The page contains all data that can be chosen. Its callbacks only show another part of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from bokeh.events import Tap
from bokeh.models import (
    BasicTicker,
    CategoricalSlider,
    ColorBar,
    ColumnDataSource,
    CustomJS,
    CustomJSHover,
    FixedTicker,
    LinearColorMapper,
    PrintfTickFormatter,
    Range1d,
    Select,
    Span,
    UIElement,
)
from bokeh.palettes import Magma256, Viridis256
from bokeh.plotting import figure as Panel
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.report.coastlines import coastlines
from wsdcast.report.maps import X_TICKS, Y_TICKS
from wsdcast.report.panels import FONT, INK, Row, days_of, hover, in_hours, panel
from wsdcast.report.plume import place as place_in_words
from wsdcast.report.shown_fields import NONE, PLUME, Chosen, Field, Fields, as_bytes, choose, read_speeds, unit_of, units_of
from wsdcast.report.style import BLUE, VERMILION

SHOW_MAPS = """
const leadIndex = lead.categories.indexOf(lead.value)
const mapIndex = Number(start.value) * days.length + leadIndex
const shown = {...maps.data}
for (const name of names) shown[name] = [library.data[name][mapIndex]]
maps.data = shown
title.text = valid[mapIndex]
lead_line.location = days[leadIndex]
"""
SHOW_PLUME = """
const point = place.data.point[0]
const begin = (Number(start.value) * places.length + point) * names.length * days.length
const shown = {...plume.data}
names.forEach((name, row) => shown[name] = days.map((_, lead) => {
  const byte = bytes[begin + row * days.length + lead]
  return byte == 255 ? NaN : byte * unit
}))
plume.data = shown
title.text = `${places[point]}, from ${starts[Number(start.value)]}`
"""
CHOOSE_PLACE = """
const nearest = (values, target) =>
  values.reduce((best, value, i) => Math.abs(value - target) < Math.abs(values[best] - target) ? i : best, 0)
const column = nearest(longitudes, cb_obj.x), row = nearest(latitudes, cb_obj.y)
place.data = {x: [longitudes[column]], y: [latitudes[row]], point: [row * longitudes.length + column]}
"""
IN_WORDS = "return value == 255 ? 'none' : (value * unit).toFixed(1) + ' m/s'"

MEMBER = {"member1": "first member", "member2": "second member", "member3": "third member"}
SHORT = {"truth": "truth", "mean": "mean", "spread": "spread", **MEMBER}
TITLES = {"truth": "truth", "mean": "ensemble mean", "spread": "spread of the ensemble", **MEMBER}
PLACE = (50.0, 330.0)
"""Latitude and longitude of the plume that is shown first. On the Earth, it is on the storm track of the North Atlantic."""
WIDGET = {"font": f"14px {FONT}"}
MAP: dict[str, Any] = {"sizing_mode": "scale_width", "height": None, "aspect_ratio": 1.55, "background_fill_color": "#d1d5db"}


@dataclass(frozen=True)
class Maps:
    """The figures, their controls, and a note for the reader.

    Attributes:
        controls: selector of the initial time, slider of the lead time.
        maps: the panels.
        plume: the ensemble at one place.
        left_out: sentences that say which data are not in the page.
    """

    controls: Sequence[UIElement]
    maps: Row
    plume: Row
    left_out: str


def forecast_maps(scores: xr.Dataset, grid: Grid, fields: Fields, on_earth: bool) -> Maps:
    """Return the maps and plumes of the first forecast in ``scores``.

    Args:
        scores: with ``time`` and ``prediction_timedelta`` of the fields.
        grid: of the fields.
        fields: as for :func:`wsdcast.report.shown_fields.read_speeds`.
        on_earth: whether to draw the coastlines of the Earth.
    """
    chosen = choose(scores.sizes["time"], scores.sizes["prediction_timedelta"], grid)
    speeds = read_speeds(fields, chosen)
    times, lead_times = scores["time"].values[chosen.starts], scores["prediction_timedelta"].values[chosen.leads]
    starts, shown_lead = [in_words(time) for time in times], lead_times.size // 2
    start = Select(
        title="Start",
        options=[(str(number), name) for number, name in enumerate(starts)],
        value="0",
        width=190,
        styles=WIDGET,
        name="start",
    )
    leads = in_hours(lead_times)
    lead = CategoricalSlider(
        title="Lead time",
        categories=leads,
        value=leads[shown_lead],
        sizing_mode="stretch_width",
        disabled=len(leads) < 2,
        styles=WIDGET,
        name="lead",
    )

    points = grid.latitude[chosen.plume_rows], grid.longitude[chosen.plume_columns]
    has_members = np.any(np.isfinite(speeds.plumes[..., 1:, :]), axis=(0, 3, 4))
    row, column = _nearest(*points, has_members | (not has_members.any()))
    point = row * points[1].size + column
    place = ColumnDataSource({"x": [points[1][column]], "y": [points[0][row]], "point": [point]}, name="place")
    maps, shown, library = _maps(speeds.maps, grid, chosen, shown_lead, on_earth)
    plume, series, unit = _plume(speeds.plumes, lead_times, row, column)
    lead_line = Span(location=days_of(lead_times)[shown_lead], dimension="height", line_color=INK, line_dash="dashed")
    plume.add_layout(lead_line)
    places = [place_in_words(latitude, longitude) for latitude in points[0] for longitude in points[1]]
    valid = [f"truth, {in_words(time + step)}" for time in times for step in lead_times]
    maps[0].title.text, plume.title.text = valid[shown_lead], f"{places[point]}, from {starts[0]}"

    shared = {"start": start, "lead": lead, "days": days_of(lead_times).tolist()}
    map_args = {"maps": shown, "library": library, "names": list(speeds.maps), "valid": valid}
    map_args |= {"title": maps[0].title, "lead_line": lead_line}
    plume_args = {"plume": series, "names": list(PLUME), "bytes": as_bytes(speeds.plumes, unit).ravel(), "unit": unit, "place": place}
    show_maps = CustomJS(args=shared | map_args, code=SHOW_MAPS)
    show_plume = CustomJS(args=shared | plume_args | {"places": places, "starts": starts, "title": plume.title}, code=SHOW_PLUME)
    start.js_on_change("value", show_maps, show_plume)
    lead.js_on_change("value", show_maps)
    place.js_on_change("data", show_plume)
    choose_place = CustomJS(args={"place": place, "latitudes": points[0].tolist(), "longitudes": points[1].tolist()}, code=CHOOSE_PLACE)
    for one_map in maps:
        one_map.js_on_event(Tap, choose_place)
        one_map.scatter("x", "y", source=place, size=12, fill_color=None, line_color="white", line_width=4)
        one_map.scatter("x", "y", source=place, size=12, fill_color=None, line_color=VERMILION, line_width=2)
    left_out = _left_out(scores, chosen, units_of(speeds.maps)["truth"])
    lines = {"truth": (INK, "solid"), "median of the members": (BLUE, "solid")}
    return Maps([start, lead], Row(maps, {}), Row([plume], lines), left_out)


def _nearest(latitude: NDArray[np.float64], longitude: NDArray[np.float64], allowed: NDArray[np.bool_]) -> tuple[int, int]:
    """Return row and column of the allowed point that is nearest to :data:`PLACE`, by the sum of both distances in degrees."""
    east = np.abs(longitude - PLACE[1])
    distance = np.where(allowed, np.abs(latitude - PLACE[0])[:, None] + np.minimum(east, 360 - east), np.inf)
    row, column = np.unravel_index(distance.argmin(), distance.shape)
    return int(row), int(column)


def _maps(
    maps: dict[str, Field], grid: Grid, chosen: Chosen, shown_map: int, on_earth: bool
) -> tuple[list[Panel], ColumnDataSource, ColumnDataSource]:
    """Return the panels, the data that they show at first, and the data of all maps; fields are bytes, by name.

    Args:
        maps: speeds by name, (map, latitude, longitude).
        grid: of the forecast.
        chosen: which points of it the maps have.
        shown_map: number of the map that is shown first.
        on_earth: whether to draw the coastlines of the Earth.
    """
    units = units_of(maps)
    # South first: Bokeh reads the values for tooltips correctly only in this order.
    library = ColumnDataSource({name: list(as_bytes(field[:, ::-1], units[name])) for name, field in maps.items()}, name="library")
    shown = ColumnDataSource({name: [images[shown_map]] for name, images in library.data.items()}, name="maps")
    formatters = {f"@{name}": CustomJSHover(args={"unit": unit}, code=IN_WORDS) for name, unit in units.items()}
    tooltips = [("latitude, longitude", "$y{0}°, $x{0}°")] + [(SHORT[name], f"@{name}{{custom}}") for name in maps]

    spacing = 360 / grid.longitude.size
    step_x, step_y = (
        (axis[1] - axis[0]) if axis.size > 1 else 360 for axis in (grid.longitude[chosen.columns], -grid.latitude[chosen.rows])
    )
    box = {
        "x": grid.longitude[0] - step_x / 2,
        "y": grid.latitude[chosen.rows[-1]] - step_y / 2,
        "dw": step_x * chosen.columns.size,
        "dh": step_y * chosen.rows.size,
    }
    west = grid.longitude[0] - spacing / 2
    x_range, y_range = Range1d(west, west + 360, bounds="auto"), Range1d(-90, 90, bounds="auto")
    lines = coastlines() if on_earth else []
    lines += [line - (360, 0) for line in lines if line[:, 0].max() > west + 360]
    coast = ColumnDataSource({name: [line[:, axis].astype(np.float32) for line in lines] for axis, name in enumerate("xy")})
    panels = []
    for name, field in maps.items():
        palette = Magma256 if name == "spread" else Viridis256
        top = _top(field) if name == "spread" else _top(maps["truth"]) or _top(maps["mean"])
        one_map = panel(TITLES[name], "", "", x_range=x_range, y_range=y_range, **MAP)
        image = one_map.image(name, source=shown, color_mapper=_colours(palette, top / units[name]), **box)
        one_map.multi_line("x", "y", source=coast, line_color="white", line_width=0.8, line_alpha=0.8)
        hover(one_map, [image], tooltips, formatters=formatters)
        scale = LinearColorMapper(palette, low=0, high=top or 1)
        bar = ColorBar(
            color_mapper=scale, height=6, padding=2, ticker=BasicTicker(desired_num_ticks=4), formatter=PrintfTickFormatter(format="%g m/s")
        )
        bar.major_label_text_font, bar.bar_line_color, bar.major_tick_line_color = FONT, None, None
        one_map.add_layout(bar, "below")
        for axis, ticks in ((one_map.xaxis, X_TICKS), (one_map.yaxis, Y_TICKS)):
            axis.ticker, axis.major_label_overrides = FixedTicker(ticks=list(ticks)), ticks
        panels.append(one_map)
    return panels, shown, library


def _top(speeds: Field) -> float:
    """Return the speed at the upper end of the colour scale; 0 if all are missing."""
    finite = speeds[np.isfinite(speeds)]
    return float(np.quantile(finite, 0.995)) if finite.size else 0.0


def _colours(palette: Sequence[str], top: float) -> LinearColorMapper:
    """Return a colour for each byte: the last colour of the palette from ``top`` on, and grey for missing values."""
    shades = [palette[min(255, int(256 * byte / top))] for byte in range(NONE)] if top > 0 else [palette[0]] * NONE
    return LinearColorMapper([*shades, "#d1d5db"], low=-0.5, high=NONE + 0.5)


def _plume(plumes: Field, leads: NDArray[np.timedelta64], row: int, column: int) -> tuple[Panel, ColumnDataSource, float]:
    """Return the figure of the ensemble at one place from the first initial time, its data, and the unit of its bytes."""
    unit = unit_of(plumes)
    data = dict(zip(PLUME, plumes[0, row, column], strict=True))
    series = ColumnDataSource(data | {"x": days_of(leads), "lead": in_hours(leads)}, name="plume")
    plume = panel(" ", "lead time (days)", "wind speed (m/s)", height=300)
    for low, high, alpha in (("q10", "q90", 0.18), ("q25", "q75", 0.3)):
        plume.varea("x", low, high, source=series, fill_color=BLUE, fill_alpha=alpha)
    median = plume.line("x", "q50", source=series, line_color=BLUE, line_width=2)
    plume.scatter("x", "q50", source=series, color=BLUE, size=5)
    plume.line("x", "truth", source=series, line_color=INK, line_width=2)
    plume.scatter("x", "truth", source=series, color=INK, size=5)
    plume.y_range.start = 0
    words = [
        ("lead time", "@lead"),
        ("truth", "@truth{0.0} m/s"),
        ("median", "@q50{0.0} m/s"),
        ("half of the members", "@q25{0.0} to @q75{0.0} m/s"),
        ("80 % of the members", "@q10{0.0} to @q90{0.0} m/s"),
    ]
    hover(plume, [median], words, mode="vline")
    return plume, series, unit


def in_words(time: np.datetime64) -> str:
    """Return a time as text, ``2001-12-21 06 UTC``, with minutes if they are not 0."""
    text = str(time.astype("datetime64[m]")).replace("T", " ")
    return f"{text.removesuffix(':00')} UTC"


def _left_out(scores: xr.Dataset, chosen: Chosen, unit: float) -> str:
    """Return sentences that say which part of the forecast is not in the page, and how speeds are rounded."""
    parts = []
    for name, axis in (("starts", chosen.starts), ("lead times", chosen.leads)):
        whole = scores.sizes["time" if name == "starts" else "prediction_timedelta"]
        if axis.size < whole:
            parts.append(f"{axis.size} of {whole} {name}")
    if chosen.columns.size > 1 and (stride := chosen.columns[1] - chosen.columns[0]) > 1:
        parts.append(f"one of {stride} by {stride} points of the grid")
    text = f"To keep the page small, the maps show {' and '.join(parts)}. " if parts else ""
    spacing = chosen.plume_columns[1] - chosen.plume_columns[0] if chosen.plume_columns.size > 1 else 1
    if spacing > 1:
        text += f"Places can be chosen {spacing} points of the grid apart. "
    return f"{text}Speeds are rounded to {unit:.2g} m/s."
