"""A place that the reader chooses on an interactive map, and the ensemble there: quantiles by lead time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from bokeh.events import Tap
from bokeh.models import ColumnDataSource, CustomJS, CustomJSTickFormatter, Select, SingleIntervalTicker, TextInput
from bokeh.plotting import figure as Panel
from numpy.typing import NDArray

from wsdcast.data.grid import bounds_in_words
from wsdcast.data.sources.foreign_forecasts import Members
from wsdcast.report.maps import SIGNED, View, columns_of_map, rising, signed, steps_of
from wsdcast.report.panels import INK, hover, panel
from wsdcast.report.plume import TIME_LABEL, step_of
from wsdcast.report.style import BLUE, VERMILION, Look
from wsdcast.report.subjects import Subject

PLACE = (50.0, -30.0)
"""Latitude and longitude of the place on the globe that is shown first. On the Earth, it is on the storm track of the North Atlantic."""
MEDIAN: dict[str, Look] = {"median of the members": (BLUE, "solid")}
"""Name and look of the line of a plume."""
ALONE: dict[str, Look] = {"the only member": (BLUE, "solid")}
"""The same for a forecast with one member."""
BANDS = "The dark band holds half of the members, the light one 80 %."

ASK = "asked.data.at = [{latitude}, {longitude}]; asked.properties.data.change.emit()"
"""Code that asks for a place."""
ASK_CLICKED = ASK.format(latitude="cb_obj.y", longitude="cb_obj.x")
ASK_TYPED = f"""{SIGNED}
const [latitude, longitude] = cb_obj.value.trim().split(/[\\s,;]+/).map(Number)
if (!(Math.abs(latitude) <= 90 && Math.abs(longitude) <= 360)) {{
  typed.title = `${{title}}. Expected a latitude and a longitude, such as 52.5, 13.4, not '${{cb_obj.value}}'.`
}} else if (Math.max(Math.abs(latitude - place.data.y[0]), Math.abs(signed(longitude - place.data.x[0]))) < 1e-4) {{
  typed.title = title  // the place is there already: the page itself wrote the text
}} else {{
  {ASK.format(latitude="latitude", longitude="longitude")}
}}
"""
CHOOSE = f"""{SIGNED}
const nearest = (all, distance) => all.reduce((best, _, i) => distance(all[i]) < distance(all[best]) ? i : best, 0)
const say = text => {{ if (typed) typed.title = title + text }}
const [latitude, longitude] = asked.data.at
const [west, south, east, north] = region || [-180, -90, 180, 90], eastward = (((longitude - west) % 360) + 360) % 360
if (latitude < south || latitude > north || eastward > east - west) {{
  const words = [latitude, longitude].map(degrees => Number(degrees.toFixed(4))).join(', ')
  return say(`. ${{words}} lies outside the forecast, which covers ${{covered}}.`)
}}
say('')
const column = nearest(longitudes, at => Math.abs(signed(longitude - at)))
const row = nearest(latitudes, at => Math.abs(latitude - at))
place.data = {{x: [longitudes[column]], y: [latitudes[row]], point: [row * longitudes.length + column]}}
place.properties.data.change.emit()  // also where the place is the same, so that the text is again that of the place
"""
"""Code that sets the place to the point that is nearest in latitude and longitude, or says that the forecast does not cover it."""


class Region(NamedTuple):
    """A part of the globe.

    Attributes:
        bounds: west, south, east and north end of its cells, degrees; east is up to 360 beyond west.
        in_words: the latitudes and longitudes of its points.
    """

    bounds: tuple[float, float, float, float]
    in_words: str

    @property
    def middle(self) -> tuple[float, float]:
        """Latitude and longitude of its middle."""
        west, south, east, north = self.bounds
        return (south + north) / 2, (west + east) / 2


def region_of(forecast: Members) -> Region | None:
    """Return the part of the globe that a forecast covers; None if it is the whole globe."""
    if forecast.is_global:
        return None
    latitude, longitude = forecast.latitude, rising(forecast.longitude[columns_of_map(forecast.longitude)])
    step_y, step_x = steps_of(latitude, longitude)
    west, east = (float(end) for end in (longitude[0] - step_x / 2, longitude[-1] + step_x / 2))
    south, north = (float(end) for end in (latitude[-1] - step_y / 2, latitude[0] + step_y / 2))
    return Region((west, south, east, north), bounds_in_words(latitude, longitude))


def choose_on(
    maps: Sequence[Panel],
    asked: ColumnDataSource,
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
    known: NDArray[np.bool_],
    view: View,
    typed: TextInput | None = None,
    region: Region | None = None,
) -> ColumnDataSource:
    """Mark a place on maps, and let the reader choose another one by clicking or typing.

    At first it is the point with values that is nearest to :data:`PLACE` or to the middle of the region, by the sum of both distances in
    degrees. Without values all points count.

    Args:
        maps: the figures.
        asked: latitude and longitude ``at`` that the reader asked for. The maps of all variables share it, so that each variable shows
            its point that is nearest.
        latitude, longitude: of the points that can be chosen. They are numbered row by row.
        known: which of them have values, (row, column).
        view: the part of the globe that the maps show.
        typed: control in which latitude and longitude can be typed. Its title says why a place cannot be chosen.
        region: that the forecast covers; default: the globe.

    Returns:
        Longitude ``x``, latitude ``y`` and number ``point`` of the chosen point, each a column of one value. The columns change when
        another point is chosen.
    """
    to_north, to_east = region.middle if region else PLACE
    distance = np.abs(latitude - to_north)[:, None] + np.abs(signed(longitude - to_east))
    point = int(np.where(known | (not known.any()), distance, np.inf).argmin())
    row, column = divmod(point, longitude.size)
    longitude = view.eastward(longitude)
    place = ColumnDataSource({"x": [longitude[column]], "y": [latitude[row]], "point": [point]}, name="place")
    args = {"place": place, "asked": asked, "latitudes": latitude.tolist(), "longitudes": longitude.tolist(), "typed": typed}
    args |= {"title": typed and typed.title, "region": region and region.bounds, "covered": region and region.in_words}
    asked.js_on_change("data", CustomJS(args=args, code=CHOOSE))
    if typed is not None:
        typed.value = f"{latitude[row]:.6g}, {float(signed(longitude[column])):.6g}"
        typed.js_on_change("value", CustomJS(args=args, code=ASK_TYPED))
    for on in maps:
        on.js_on_event(Tap, CustomJS(args={"asked": asked}, code=ASK_CLICKED))
        on.scatter("x", "y", source=place, size=12, fill_color=None, line_color="white", line_width=4)
        on.scatter("x", "y", source=place, size=12, fill_color=None, line_color=VERMILION, line_width=2)
    return place


VALID_TIME = """
const valid = new Date(starts[start ? Number(start.value) : 0] + tick * 86400000).toUTCString()  // Sat, 29 Feb 2020 06:00:00 GMT
return `${tick}\\n${valid.slice(5, 11)}\\n${valid.slice(17, 22)}`
"""
"""Code that labels a lead time in days with the valid time too, as :mod:`wsdcast.report.plume` does."""


def plume_panel(
    series: ColumnDataSource, of: Subject, unit: float, times: NDArray[np.datetime64], start: Select | None = None, *, alone: bool = False
) -> Panel:
    """Return a figure of the ensemble at one place by lead time.

    Args:
        series: lead time in days ``x`` and in words ``lead``, quantiles ``q10``, ``q25``, ``q50``, ``q75``, ``q90``, and ``truth`` if there
            is one.
        of: what is shown. The vertical axis of what cannot be negative begins at zero.
        unit: the values are multiples of this.
        times: the initial times.
        start: selector of one of them by its number; without it the first one is shown.
        alone: whether there is only one member. It has a line and no bands.
    """
    digits, units = of.digits_of(unit), of.units
    on, number = panel(" ", TIME_LABEL, f"{of.short_label} ({units})", height=330), "{0." + "0" * digits + "}" if digits else "{0}"
    for low, high, alpha in () if alone else (("q10", "q90", 0.18), ("q25", "q75", 0.3)):
        on.varea("x", low, high, source=series, fill_color=BLUE, fill_alpha=alpha)
        if len(series.data["x"]) == 1:  # an area needs two points
            on.segment("x", low, "x", high, source=series, line_color=BLUE, line_alpha=alpha, line_width=12)
    median = on.line("x", "q50", source=series, line_color=BLUE, line_width=2)
    on.scatter("x", "q50", source=series, color=BLUE, size=5)
    words = [("lead time", "@lead"), ("member" if alone else "median", f"@q50{number} {units}")]
    if not alone:
        words.append(("half of the members", f"@q25{number} to @q75{number} {units}"))
        words.append(("80 % of the members", f"@q10{number} to @q90{number} {units}"))
    if "truth" in series.data:
        on.line("x", "truth", source=series, line_color=INK, line_width=2)
        on.scatter("x", "truth", source=series, color=INK, size=5)
        words.insert(1, ("truth", f"@truth{number} {units}"))
    if of.from_zero:
        on.y_range.start = 0
    on.xaxis.ticker = SingleIntervalTicker(interval=step_of(series.data["x"][-1]), num_minor_ticks=0)
    starts = times.astype("datetime64[ms]").astype(np.int64).tolist()
    on.xaxis.formatter = CustomJSTickFormatter(args={"starts": starts, "start": start}, code=VALID_TIME)
    hover(on, [median], words, mode="vline")
    return on
