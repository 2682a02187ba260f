"""Interactive maps of the products of a forecast by lead time, and the ensemble at one place, for the page of a forecast.

The page contains all data that can be chosen. Its callbacks only show another part of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from bokeh.models import ColumnDataSource, CustomJS, Select, Span, TextInput, UIElement
from bokeh.palettes import Magma256, Viridis256, YlOrRd9, interp_palette

from wsdcast.data.grid import Grid
from wsdcast.data.sources.foreign_forecasts import Members
from wsdcast.data.steps import time_in_words
from wsdcast.data.store.forecasts import QUANTILES
from wsdcast.report.chosen_place import MEDIAN, choose_on, plume_panel, region_of
from wsdcast.report.map_panels import MapStyle, map_panels, top_of
from wsdcast.report.maps import SIGNED, Lines, Points, rising, view_of
from wsdcast.report.panels import INK, WIDGET, Row, days_of, in_hours, lead_slider
from wsdcast.report.plume import place as place_in_words
from wsdcast.report.shown_fields import NONE, PLUME, Field, as_bytes, base_of, byte_unit
from wsdcast.report.shown_products import SMALLEST_UNIT, UNPACK, Products, packed
from wsdcast.verification.thresholds import threshold_in_words

PROBABILITY = interp_palette(["#ffffff", *YlOrRd9[::-1]], 256)
WRAP = ":host { max-width: 100%; } label { white-space: normal; overflow-wrap: anywhere; }"
"""CSS of a control whose title may be long."""
MEDIAN_AT = QUANTILES.index(0.5)
SHOW_MAPS = f"""{UNPACK}
const ahead = lead.categories.indexOf(lead.value), above = threshold ? Number(threshold.value) : 0
const field = {{probability: above, median: fields - quantiles + 2, spread: fields - quantiles - 1}}
for (const name in field) {{
  if (!(name in maps.data)) continue
  const begin = (field[name] * days.length + ahead) * size
  maps.data[name][0].set(bytes.subarray(begin, begin + size))
}}
maps.change.emit()
title.text = titles[above]
now.location = days[ahead]
"""
SHOW_PLUME = f"""{UNPACK}{SIGNED}
const shown = {{...plume.data}}
names.forEach((name, row) => shown[name] = days.map((_, lead) => {{
  const byte = bytes[((fields - quantiles + row) * days.length + lead) * size + place.data.point[0]]
  return byte == none ? NaN : base + byte * unit
}}))
plume.data = shown
const rounded = degrees => Number(degrees.toFixed(4))
const latitude = place.data.y[0], longitude = signed(place.data.x[0])
at.value = `${{rounded(latitude)}}, ${{rounded(longitude)}}`
const words = (degrees, plus, minus) => `${{rounded(Math.abs(degrees))}}°${{degrees < 0 ? minus : plus}}`
const is_empty = names.every(name => shown[name].every(Number.isNaN))
title.text = `${{words(latitude, 'N', 'S')}} ${{words(longitude, 'E', 'W')}}${{is_empty ? ': the forecast has no values here' : ''}}`
"""


@dataclass(frozen=True)
class ProductMaps:
    """The figures and their controls.

    Attributes:
        controls: slider of the lead time, after a selector of the threshold if there are probabilities.
        maps: the panels.
        typed: input of the place.
        plume: the ensemble at one place.
        unit: unit to which wind speeds or values are rounded.
    """

    controls: Sequence[UIElement]
    maps: Row
    typed: Sequence[UIElement]
    plume: Row
    unit: float


def product_maps(
    products: Products,
    forecast: Members,
    row: int,
    initial: tuple[Field, Grid] | None,
    lines: Lines,
    asked: ColumnDataSource,
) -> ProductMaps:
    """Return maps and plumes of one subject from one initial time. The middle one of the lead times with values is shown first.

    Args:
        initial: the channels of the forecast at the initial time (channel, latitude, longitude), and their grid. A subject whose channels
            are NaN everywhere has no map of it. Points at which the forecast has no values are not shown.
        asked: the place that the reader asks for (:func:`wsdcast.report.chosen_place.choose_on`).
    """
    start, leads = forecast.times[row], forecast.leads
    points = forecast.latitude[products.rows], rising(forecast.longitude[products.columns])
    of, at_initial = products.subject, None
    known = np.any(np.isfinite(products.spread), axis=0)
    if initial is not None:
        state = of.of(initial[0], forecast.variables)
        state = np.where(known, _at_points(state, initial[1], points), np.nan)
        if np.isfinite(state).any():
            at_initial = state
            products = products if of.is_wind else replace(products, base=min(products.base, base_of(at_initial)))
    images, with_values = products.images, np.flatnonzero(products.members > 1)
    days, first = days_of(leads), int(with_values[with_values.size // 2])
    words = [
        f"{lead}, valid {time_in_words(start + step)}" + (f", {members} members left" if members < forecast.members else "")
        for lead, step, members in zip(in_hours(leads), leads, products.members, strict=True)
    ]
    lead = lead_slider(words, first)
    threshold, titles = None, ["median of the members"]
    shown_at_first = {"median": images[MEDIAN_AT - len(QUANTILES)], "spread": images[len(products.thresholds)]}
    if products.thresholds:
        options = [(str(number), threshold_in_words(limit)) for number, limit in enumerate(products.thresholds)]
        threshold = Select(title="Threshold", options=options, value="0", width=200, styles=WIDGET, name="threshold")
        titles = [f"probability above {threshold_in_words(limit)}" for limit in products.thresholds]
        shown_at_first = {"probability": images[0]} | shown_at_first
    shown = ColumnDataSource({name: [image[first]] for name, image in shown_at_first.items()}, name="maps")
    styles = _styles(products, titles[0])
    unit = styles["median"].unit
    if at_initial is not None:
        smallest = SMALLEST_UNIT["quantiles"] if of.is_wind else 0.0
        initial_unit = max(smallest, byte_unit(at_initial, products.base))
        shown.data["initial"] = [as_bytes(at_initial[::-1], initial_unit, products.base)]
        styles["initial"] = replace(
            styles["median"], title=f"initial analysis, {time_in_words(start)}", label="initial analysis", unit=initial_unit
        )
    view = view_of(known, *points)
    maps = map_panels(shown, styles, *points, lines, view)

    typed = TextInput(title="Place: latitude, longitude", styles=WIDGET, stylesheets=[WRAP], name="at")
    place = choose_on(maps, asked, points[0][::-1], points[1], known[::-1], view, typed, region_of(forecast))
    values = images[-len(QUANTILES) :].reshape(len(QUANTILES), leads.size, -1)[..., place.data["point"][0]]
    at_place = np.where(values == NONE, np.nan, products.base + values * unit)
    series = ColumnDataSource(dict(zip(PLUME[1:], at_place, strict=True)) | {"x": days, "lead": words}, name="plume")
    plume = plume_panel(series, of, unit, forecast.times[[row]])
    plume.title.text = place_in_words(place.data["y"][0], place.data["x"][0])
    now = Span(location=days[first], dimension="height", line_color=INK, line_dash="dashed")
    plume.add_layout(now)

    packing = {"library": ColumnDataSource({"bytes": packed(images)}, name="library"), "days": days.tolist()}
    packing |= {"fields": len(images), "quantiles": len(QUANTILES), "size": known.size}
    map_args = {"lead": lead, "threshold": threshold, "maps": shown, "titles": titles, "title": maps[0].title, "now": now}
    plume_args = {"plume": series, "names": list(PLUME[1:]), "unit": unit, "base": products.base, "none": NONE}
    plume_args |= {"place": place, "at": typed, "title": plume.title}
    show_maps = CustomJS(args=packing | map_args, code=SHOW_MAPS)
    lead.js_on_change("value", show_maps)
    if threshold is not None:
        threshold.js_on_change("value", show_maps)
    place.js_on_change("data", CustomJS(args=packing | plume_args, code=SHOW_PLUME))
    coarsest = unit if at_initial is None else max(unit, initial_unit)
    return ProductMaps([lead] if threshold is None else [threshold, lead], Row(maps, {}), [typed], Row([plume], MEDIAN), coarsest)


def _styles(products: Products, title: str) -> dict[str, MapStyle]:
    """Return how the products are shown. ``title`` is that of the probability, if there are any."""
    units, of = products.units, products.subject
    median_top, spread_top = top_of(products.quantiles[MEDIAN_AT]), top_of(products.spread)
    unit, spread_unit = units["quantiles"], units["spread"]
    digits, spread_digits = of.digits_of(unit), 2 if of.is_wind else of.digits_of(spread_unit)
    styles = {
        "median": MapStyle("median of the members", "median", Viridis256, unit, median_top, of.units, digits, base=products.base),
        "spread": MapStyle("spread of the members", "spread", Magma256, spread_unit, spread_top, of.spread_units, spread_digits),
    }
    if products.thresholds:
        styles = {"probability": MapStyle(title, "probability", PROBABILITY, units["probabilities"], 100.0, "%", 0, INK)} | styles
    return styles


def _at_points(field: Field, own: Grid, points: Points) -> Field:
    """Return a field (latitude, longitude) on a grid of its own at the points of the maps: its value at the nearest point."""
    return np.asarray(field[np.ix_(*own.nearest(*points))])
