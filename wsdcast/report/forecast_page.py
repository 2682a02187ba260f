"""The page of a forecast whose truth is not known yet: maps of median, spread and probabilities, and the ensemble at any place."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from bokeh.models import ColumnDataSource

from wsdcast.data.grid import Grid
from wsdcast.data.sources.foreign_forecasts import Members
from wsdcast.data.steps import time_in_words
from wsdcast.report.chosen_place import BANDS
from wsdcast.report.maps import Lines, signed
from wsdcast.report.panels import move_together
from wsdcast.report.product_maps import ProductMaps, product_maps
from wsdcast.report.shell import Part, facts_list, figures_row, one_of, write_page
from wsdcast.report.shown_fields import Field
from wsdcast.report.shown_products import Products, read_products
from wsdcast.report.subjects import WIND
from wsdcast.verification.thresholds import THRESHOLDS

IN_HEADER = ("source", "cycle", "model")
"""Names of the facts that the header shows. The others are at the end of the page."""


def write_forecast_page(
    path: Path,
    forecast: Members,
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
        initial: the channels of the forecast at the initial time (channel, latitude, longitude), in their units; NaN where they are not
            known.
        initial_grid: its grid; default: that of the forecast, if it is global.
        facts: facts about the forecast by name, such as its source. Those of :data:`IN_HEADER` are in the header, the others at the end.
        thresholds: 10 m wind speeds in m s-1 of which the probability of exceeding is shown; default: where Beaufort 6, 8 and 10 begin.

    Returns:
        In words which points are shown and how values are rounded; for several variables, that the page says it.

    Raises:
        UserError: if the forecast cannot be read, or has no lead time with two or more members (see
            :func:`wsdcast.report.shown_products.read_products`).
    """
    products = read_products(forecast, row, thresholds)
    start, leads = forecast.times[row], forecast.leads
    analysis = None if initial is None else (initial, initial_grid or Grid(forecast.latitude, forecast.longitude))
    regridded = analysis is not None and not _has_points_of(analysis[1], forecast)
    asked, sliders = ColumnDataSource({"at": []}, name="asked"), []
    contents, roundings = [], []
    for of_subject in products:
        maps = product_maps(of_subject, forecast, row, analysis, lines, asked)
        sliders.append(maps.controls[-1])
        roundings.append(_rounding(of_subject, maps.unit, regridded=regridded))
        contents.append(_about(of_subject, maps, roundings[-1]))
    move_together(sliders)
    header = {
        "valid": f"{time_in_words(start + leads[0])} to {time_in_words(start + leads[-1])}",
        "members": str(forecast.members),
        "grid": grid_in_words(forecast),
    }
    header |= {name: facts[name] for name in IN_HEADER if name in facts}
    others = {name: fact for name, fact in facts.items() if name not in IN_HEADER}
    wind_alone = [of_subject.subject for of_subject in products] == [WIND]
    heading = f"{'Wind forecast' if wind_alone else 'Forecast'} from {time_in_words(start)}"
    parts: list[Part] = [
        f"<header><h1>{heading}</h1>{facts_list(header)}</header>",
        *one_of([of_subject.subject.value_label for of_subject in products], contents),
        f"<h2>About the forecast</h2>{facts_list(others)}" if others else "",
        f"<h2>Model card</h2><pre class=card>{html.escape(card)}</pre>" if card else "",
    ]
    write_page(path, heading, parts)
    return roundings[0] if len(roundings) == 1 else "said on the page, for each variable"


def grid_in_words(forecast: Members) -> str:
    """Return the size of the grid, such as ``240x121``, and its bounds if it is not global."""
    return f"{forecast.longitude.size}x{forecast.latitude.size}" if forecast.is_global else forecast.extent


def _has_points_of(grid: Grid, forecast: Members) -> bool:
    """Whether all points of a forecast are points of the grid, within the rounding of a file: 0.001 degrees."""
    rows, columns = grid.nearest(forecast.latitude, forecast.longitude)
    off = np.abs(signed(grid.longitude[columns] - forecast.longitude)).max(), np.abs(grid.latitude[rows] - forecast.latitude).max()
    return max(off) <= 1e-3


def _about(products: Products, maps: ProductMaps, rounding: str) -> list[Part]:
    """Return the part of the page that is about one subject."""
    of = products.subject
    what = html.escape(of.value_label[0].upper() + of.value_label[1:])
    return [
        "<section><div class=controls>",
        maps.controls,
        "</div>",
        *figures_row(maps.maps, "row pairs"),
        f"<p class=note>{what}. Choose a place on any map, or type it here, to see the ensemble there:</p>",
        maps.typed,
        *figures_row(maps.plume),
        f"</section><p class=note>{BANDS} {html.escape(rounding)}</p>",
    ]


def _rounding(products: Products, unit: float, *, regridded: bool) -> str:
    """Return sentences that say which points are shown, and how values are rounded: speeds or values to ``unit``."""
    text = ""
    if products.columns.size > 1 and (stride := products.columns[1] - products.columns[0]) > 1:
        text = f"To keep the page small, it has one of {stride} by {stride} points of the grid. "
    if regridded:
        text += "The initial analysis is on another grid; each point shows its nearest value. "
    of = products.subject
    if products.thresholds:
        text += f"Probabilities are rounded to 1 %, speeds to {unit:.2g} {of.units}"
    else:
        text += f"{'Speeds' if of.is_wind else 'Values'} are rounded to {unit:.2g} {of.units}"
    return f"{text}, the spread to {products.units['spread']:.2g} {of.spread_units}."
