"""Interactive maps of the products of a forecast by lead time, and the ensemble at one place, for the page of a forecast.

The page contains all data that can be chosen. Its callbacks only show another part of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from bokeh.models import ColumnDataSource, CustomJS, Select, Span, TextInput, UIElement
from bokeh.palettes import Magma256, Viridis256, YlOrRd9, interp_palette
from bokeh.plotting import figure as Panel
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.sources.foreign_forecasts import StoredForecast
from wsdcast.data.store.forecasts import QUANTILES
from wsdcast.report.chosen_place import MEDIAN, choose_on, nearest, plume_panel
from wsdcast.report.map_panels import MapStyle, map_panels, top_of
from wsdcast.report.maps import Lines, wind_speed
from wsdcast.report.panels import INK, WIDGET, Row, days_of, in_hours, in_words, lead_slider
from wsdcast.report.plume import place as place_in_words
from wsdcast.report.shown_fields import NONE, PLUME, Field, as_bytes, unit_of
from wsdcast.report.shown_products import SMALLEST_UNIT, UNPACK, Products, packed

BEAUFORT = (0.3, 1.6, 3.4, 5.5, 8.0, 10.8, 13.9, 17.2, 20.8, 24.5, 28.5, 32.7)
"""Wind speeds in m/s at which Beaufort 1 to 12 begin (WMO-No. 306, vol. I.1, part A, section E)."""
PROBABILITY = interp_palette(["#ffffff", *YlOrRd9[::-1]], 256)
MEDIAN_AT = QUANTILES.index(0.5)
SHOW_MAPS = f"""{UNPACK}
const ahead = lead.categories.indexOf(lead.value), above = Number(threshold.value)
const field = {{probability: above, median: fields - quantiles + 2, spread: fields - quantiles - 1}}
for (const name in field) {{
  const begin = (field[name] * days.length + ahead) * size
  maps.data[name][0].set(bytes.subarray(begin, begin + size))
}}
maps.change.emit()
title.text = titles[above]
now.location = days[ahead]
"""
SHOW_PLUME = f"""{UNPACK}
const shown = {{...plume.data}}
names.forEach((name, row) => shown[name] = days.map((_, lead) => {{
  const byte = bytes[((fields - quantiles + row) * days.length + lead) * size + place.data.point[0]]
  return byte == none ? NaN : byte * unit
}}))
plume.data = shown
const rounded = degrees => Number(degrees.toFixed(4))
const latitude = place.data.y[0], longitude = (place.data.x[0] + 180) % 360 - 180
at.value = `${{rounded(latitude)}}, ${{rounded(longitude)}}`
const words = (degrees, plus, minus) => `${{rounded(Math.abs(degrees))}}°${{degrees < 0 ? minus : plus}}`
title.text = `${{words(latitude, 'N', 'S')}} ${{words(longitude, 'E', 'W')}}`
"""


@dataclass(frozen=True)
class ProductMaps:
    """The figures and their controls.

    Attributes:
        controls: selector of the threshold, slider of the lead time.
        maps: the panels.
        typed: input of the place.
        plume: the ensemble at one place.
        unit: unit to which wind speeds are rounded, m s-1.
    """

    controls: Sequence[UIElement]
    maps: Row
    typed: Sequence[UIElement]
    plume: Row
    unit: float


def product_maps(
    products: Products,
    forecast: StoredForecast,
    row: int,
    thresholds: Sequence[float],
    initial: tuple[Field, Grid] | None,
    lines: Lines,
) -> ProductMaps:
    """Return maps and plumes of the forecast from one initial time. The middle one of the lead times with values is shown first.

    Args:
        products: what is shown.
        forecast: of which they are the products.
        row: index of the initial time.
        thresholds: wind speeds in m s-1 of the probabilities.
        initial: wind at the initial time (channel, latitude, longitude), m s-1, and its grid.
        lines: coastlines.
    """
    start, leads, grid = forecast.times[row], forecast.leads, forecast.grid
    images, with_values = products.images, np.flatnonzero(products.members > 1)
    days, first = days_of(leads), int(with_values[with_values.size // 2])
    words = [
        f"{lead}, valid {in_words(start + step)}" + (f", {members} members left" if members < forecast.members else "")
        for lead, step, members in zip(in_hours(leads), leads, products.members, strict=True)
    ]
    lead = lead_slider(words, first)
    options = [(str(number), _in_words(threshold)) for number, threshold in enumerate(thresholds)]
    threshold = Select(title="Threshold", options=options, value="0", width=200, styles=WIDGET, name="threshold")
    titles = [f"probability above {_in_words(threshold)}" for threshold in thresholds]
    shown_at_first = {"probability": images[0], "median": images[MEDIAN_AT - len(QUANTILES)], "spread": images[len(thresholds)]}
    shown = ColumnDataSource({name: [image[first]] for name, image in shown_at_first.items()}, name="maps")
    styles = _styles(products, titles[0])
    unit = styles["median"].unit
    if initial is not None:
        speed = _at_points(wind_speed(initial[0]), initial[1], grid, products)
        initial_unit = max(SMALLEST_UNIT["quantiles"], unit_of(speed))
        shown.data["initial"] = [as_bytes(speed[::-1], initial_unit)]
        title = f"initial analysis, {in_words(start)}"
        styles["initial"] = MapStyle(title, "initial analysis", Viridis256, initial_unit, styles["median"].top)
    maps = map_panels(shown, styles, grid, products.rows, products.columns, lines)

    latitude, longitude = grid.latitude[products.rows[::-1]], grid.longitude[products.columns]
    at_row, at_column = nearest(latitude, longitude, np.isfinite(products.quantiles[0, first, ::-1]))
    north, east, point = latitude[at_row], longitude[at_column], at_row * longitude.size + at_column
    place = ColumnDataSource({"x": [east], "y": [north], "point": [point]}, name="place")
    here = f"{north:.6g}, {(east + 180) % 360 - 180:.6g}"
    typed = TextInput(title="Place: latitude, longitude", value=here, styles=WIDGET, name="at")
    choose_on(maps, place, latitude, longitude, typed)
    series, plume = _plume(images[-len(QUANTILES) :, :, at_row, at_column], unit, days, words)
    plume.title.text = place_in_words(north, east)
    now = Span(location=days[first], dimension="height", line_color=INK, line_dash="dashed")
    plume.add_layout(now)

    packing = {"library": ColumnDataSource({"bytes": packed(images)}, name="library"), "days": days.tolist()}
    packing |= {"fields": len(images), "quantiles": len(QUANTILES), "size": latitude.size * longitude.size}
    map_args = {"lead": lead, "threshold": threshold, "maps": shown, "titles": titles, "title": maps[0].title, "now": now}
    plume_args = {"plume": series, "names": list(PLUME[1:]), "unit": unit, "none": NONE, "place": place, "at": typed, "title": plume.title}
    show_maps = CustomJS(args=packing | map_args, code=SHOW_MAPS)
    lead.js_on_change("value", show_maps)
    threshold.js_on_change("value", show_maps)
    place.js_on_change("data", CustomJS(args=packing | plume_args, code=SHOW_PLUME))
    coarsest = unit if initial is None else max(unit, initial_unit)
    return ProductMaps([threshold, lead], Row(maps, {}), [typed], Row([plume], MEDIAN), coarsest)


def _styles(products: Products, title: str) -> dict[str, MapStyle]:
    """Return how the products are shown. ``title`` is that of the probability."""
    units = products.units
    speed_top, spread_top = top_of(products.quantiles[MEDIAN_AT]), top_of(products.spread)
    return {
        "probability": MapStyle(title, "probability", PROBABILITY, units["probabilities"], 100.0, "%", 0, INK),
        "median": MapStyle("median of the members", "median", Viridis256, units["quantiles"], speed_top),
        "spread": MapStyle("spread of the members", "spread", Magma256, units["spread"], spread_top, digits=2),
    }


def _plume(values: NDArray[np.uint8], unit: float, days: NDArray[np.float64], words: Sequence[str]) -> tuple[ColumnDataSource, Panel]:
    """Return the data and the figure of the ensemble at one place: bytes (quantile, lead), their unit, and the lead times."""
    speeds = np.where(values == NONE, np.nan, values * unit)
    series = ColumnDataSource(dict(zip(PLUME[1:], speeds, strict=True)) | {"x": days, "lead": words}, name="plume")
    return series, plume_panel(series)


def _in_words(threshold: float) -> str:
    """Return a threshold as text, with its number on the Beaufort scale if one begins there."""
    beaufort = f" (Beaufort {BEAUFORT.index(threshold) + 1})" if threshold in BEAUFORT else ""
    return f"{threshold:g} m/s{beaufort}"


def _at_points(speed: Field, own: Grid, grid: Grid, products: Products) -> Field:
    """Return a field (latitude, longitude) on a grid of its own at the shown points of ``grid``: its value at the nearest point."""
    return np.asarray(speed[np.ix_(*own.nearest(grid.latitude[products.rows], grid.longitude[products.columns]))])
