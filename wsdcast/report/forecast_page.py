"""The page of a forecast whose truth is not known yet: maps of probability, median and spread, and the ensemble at any place.

The page contains all data that can be chosen. Its callbacks only show another part of them.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from bokeh.models import ColumnDataSource, CustomJS, Select, Span, TextInput
from bokeh.palettes import Magma256, Viridis256, YlOrRd9, interp_palette

from wsdcast.data.grid import Grid
from wsdcast.data.sources.foreign_forecasts import StoredForecast
from wsdcast.data.store.forecasts import QUANTILES
from wsdcast.report.chosen_place import BANDS, MEDIAN, choose_on, nearest, plume_panel
from wsdcast.report.map_panels import MapStyle, map_panels, top_of
from wsdcast.report.maps import Lines, wind_speed
from wsdcast.report.panels import INK, WIDGET, Row, days_of, in_hours, in_words, lead_slider
from wsdcast.report.plume import place as place_in_words
from wsdcast.report.shell import Part, facts_list, figures_row, write_page
from wsdcast.report.shown_fields import NONE, PLUME, Field, as_bytes, unit_of
from wsdcast.report.shown_products import SMALLEST_UNIT, UNPACK, Products, packed, read_products
from wsdcast.verification.thresholds import THRESHOLDS

BEAUFORT = (0.3, 1.6, 3.4, 5.5, 8.0, 10.8, 13.9, 17.2, 20.8, 24.5, 28.5, 32.7)
"""Wind speeds in m/s at which Beaufort 1 to 12 begin (WMO-No. 306, vol. I.1, part A, section E)."""
PROBABILITY = interp_palette(["#ffffff", *YlOrRd9[::-1]], 256)
MEDIAN_AT = QUANTILES.index(0.5)
IN_HEADER = ("source", "cycle", "model")
"""Names of the facts that the header shows. The others are at the end of the page."""

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


def write_forecast_page(
    path: Path,
    forecast: StoredForecast,
    *,
    row: int = 0,
    initial: Field | None = None,
    initial_grid: Grid | None = None,
    facts: Mapping[str, str],
    card: str = "",
    lines: Lines = (),
    thresholds: Sequence[float] = THRESHOLDS,
) -> str:
    """Write the page of the forecast from one initial time.

    Args:
        path: HTML file to write.
        forecast: the members.
        row: index of the initial time.
        initial: wind at the initial time (channel, latitude, longitude), m s-1.
        initial_grid: its grid; default: that of the forecast.
        facts: facts about the forecast by name, such as its source. Those of :data:`IN_HEADER` are in the header, the others at the end.
        card: model card, as text.
        lines: coastlines.
        thresholds: wind speeds in m s-1 of which the probability of exceeding is shown; default: where Beaufort 6, 8 and 10 begin.

    Returns:
        In words which points are shown and how values are rounded.

    Raises:
        UserError: if the forecast cannot be read, or has no lead time with two or more members (see
            :func:`wsdcast.report.shown_products.read_products`).
    """
    products = read_products(forecast, row, thresholds)
    start, leads, grid = forecast.times[row], forecast.leads, forecast.grid
    valid = [in_words(start + lead) for lead in leads]
    words = [
        f"{lead}, valid {time}" + (f", {members} members left" if members < forecast.members else "")
        for lead, time, members in zip(in_hours(leads), valid, products.members, strict=True)
    ]
    with_members = np.flatnonzero(products.members > 1)
    days, first, units = days_of(leads), int(with_members[with_members.size // 2]), products.units
    lead = lead_slider(words, first)
    titles = [f"probability above {_in_words(threshold)}" for threshold in thresholds]
    options = [(str(number), _in_words(threshold)) for number, threshold in enumerate(thresholds)]
    threshold = Select(title="Threshold", options=options, value="0", width=200, styles=WIDGET, name="threshold")

    images, count = products.images, len(thresholds)
    library = ColumnDataSource({"bytes": packed(images)}, name="library")
    shown_fields = {"probability": images[0], "median": images[MEDIAN_AT - len(QUANTILES)], "spread": images[count]}
    shown = ColumnDataSource({name: [image[first]] for name, image in shown_fields.items()}, name="maps")
    quantile_unit, top = units["quantiles"], top_of(products.quantiles[MEDIAN_AT])
    styles = {
        "probability": MapStyle(titles[0], "probability", PROBABILITY, 1.0, 100.0, "%", 0, INK),
        "median": MapStyle("median of the members", "median", Viridis256, quantile_unit, top),
        "spread": MapStyle("spread of the members", "spread", Magma256, units["spread"], top_of(products.spread), digits=2),
    }
    if initial is not None:
        speed = _at_points(wind_speed(initial), initial_grid or grid, grid, products)
        unit = max(SMALLEST_UNIT["quantiles"], unit_of(speed))
        shown.data["initial"] = [as_bytes(speed[::-1], unit)]
        styles["initial"] = MapStyle(f"initial analysis, {in_words(start)}", "initial analysis", Viridis256, unit, top)
    maps = map_panels(shown, styles, grid, products.rows, products.columns, lines)

    latitude, longitude = grid.latitude[products.rows[::-1]], grid.longitude[products.columns]
    at_row, at_column = nearest(latitude, longitude, np.isfinite(products.quantiles[0, first, ::-1]))
    place = ColumnDataSource(
        {"x": [longitude[at_column]], "y": [latitude[at_row]], "point": [at_row * longitude.size + at_column]}, name="place"
    )
    here = f"{latitude[at_row]:.6g}, {(longitude[at_column] + 180) % 360 - 180:.6g}"
    at = TextInput(title="Place: latitude, longitude", value=here, styles=WIDGET, name="at")
    choose_on(maps, place, latitude, longitude, at)
    bytes_at_place = images[-len(QUANTILES) :, :, at_row, at_column]
    values = np.where(bytes_at_place == NONE, np.nan, bytes_at_place * quantile_unit)
    series = ColumnDataSource(dict(zip(PLUME[1:], values, strict=True)) | {"x": days, "lead": words}, name="plume")
    plume = plume_panel(series)
    plume.title.text = place_in_words(latitude[at_row], longitude[at_column])
    now = Span(location=days[first], dimension="height", line_color=INK, line_dash="dashed")
    plume.add_layout(now)

    packing = {"library": library, "fields": len(images), "quantiles": len(QUANTILES), "size": latitude.size * longitude.size}
    packing |= {"days": days.tolist()}
    map_args = {"lead": lead, "threshold": threshold, "maps": shown, "titles": titles, "title": maps[0].title, "now": now}
    show_maps = CustomJS(args=packing | map_args, code=SHOW_MAPS)
    plume_args = {"plume": series, "names": list(PLUME[1:]), "unit": quantile_unit, "none": NONE, "place": place, "at": at}
    show_plume = CustomJS(args=packing | plume_args | {"title": plume.title}, code=SHOW_PLUME)
    lead.js_on_change("value", show_maps)
    threshold.js_on_change("value", show_maps)
    place.js_on_change("data", show_plume)

    header = {"valid": f"{valid[0]} to {valid[-1]}", "members": str(forecast.members), "grid": grid.name}
    header |= {name: facts[name] for name in IN_HEADER if name in facts}
    others = {name: fact for name, fact in facts.items() if name not in IN_HEADER}
    rounding = _rounding(products, units, initial_grid not in (None, grid))
    heading = f"Wind forecast from {in_words(start)}"
    parts: list[Part] = [
        f"<header><h1>{heading}</h1>{facts_list(header)}</header><section><div class=controls>",
        [threshold, lead],
        "</div>",
        *figures_row(Row(maps, {}), "row pairs"),
        "<p class=note>Wind speed 10 m above the ground. Choose a place on any map, or type it here, to see the ensemble there:</p>",
        [at],
        *figures_row(Row([plume], MEDIAN)),
        f"</section><p class=note>{BANDS} {rounding}</p>",
        f"<h2>About the forecast</h2>{facts_list(others)}" if others else "",
        f"<h2>Model card</h2><pre class=card>{html.escape(card)}</pre>" if card else "",
    ]
    write_page(path, heading, parts)
    return rounding


def _in_words(threshold: float) -> str:
    """Return a threshold as text, with its number on the Beaufort scale if one begins there."""
    beaufort = f" (Beaufort {BEAUFORT.index(threshold) + 1})" if threshold in BEAUFORT else ""
    return f"{threshold:g} m/s{beaufort}"


def _at_points(speed: Field, own: Grid, grid: Grid, products: Products) -> Field:
    """Return a field (latitude, longitude) on a grid of its own at the shown points of ``grid``: its value at the nearest point."""
    rows = np.abs(own.latitude - grid.latitude[products.rows, None]).argmin(axis=1)
    turned = np.abs(own.longitude - grid.longitude[products.columns, None])
    return np.asarray(speed[np.ix_(rows, np.minimum(turned, 360 - turned).argmin(axis=1))])


def _rounding(products: Products, units: Mapping[str, float], regridded: bool) -> str:
    """Return sentences that say which points are shown, and how values are rounded."""
    text = ""
    if products.columns.size > 1 and (stride := products.columns[1] - products.columns[0]) > 1:
        text = f"To keep the page small, it has one of {stride} by {stride} points of the grid. "
    if regridded:
        text += "The initial analysis is on another grid; each point shows its nearest value. "
    return f"{text}Probabilities are rounded to 1 %, speeds to {units['quantiles']:.2g} m/s, the spread to {units['spread']:.2g} m/s."
