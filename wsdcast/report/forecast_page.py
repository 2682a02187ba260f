"""The page of a forecast whose truth is not known yet: maps of probability, median and spread, and the ensemble at any place."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from wsdcast.data.grid import Grid
from wsdcast.data.sources.foreign_forecasts import StoredForecast
from wsdcast.report.chosen_place import BANDS
from wsdcast.report.maps import Lines
from wsdcast.report.panels import in_words
from wsdcast.report.product_maps import product_maps
from wsdcast.report.shell import Part, facts_list, figures_row, write_page
from wsdcast.report.shown_fields import Field
from wsdcast.report.shown_products import Products, read_products
from wsdcast.verification.thresholds import THRESHOLDS

IN_HEADER = ("source", "cycle", "model")
"""Names of the facts that the header shows. The others are at the end of the page."""


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
    analysis = None if initial is None else (initial, initial_grid or grid)
    maps = product_maps(products, forecast, row, thresholds, analysis, lines)
    header = {
        "valid": f"{in_words(start + leads[0])} to {in_words(start + leads[-1])}",
        "members": str(forecast.members),
        "grid": grid.name,
    }
    header |= {name: facts[name] for name in IN_HEADER if name in facts}
    others = {name: fact for name, fact in facts.items() if name not in IN_HEADER}
    rounding = _rounding(products, maps.unit, regridded=analysis is not None and not analysis[1].is_close(grid))
    heading = f"Wind forecast from {in_words(start)}"
    parts: list[Part] = [
        f"<header><h1>{heading}</h1>{facts_list(header)}</header><section><div class=controls>",
        maps.controls,
        "</div>",
        *figures_row(maps.maps, "row pairs"),
        "<p class=note>Wind speed 10 m above the ground. Choose a place on any map, or type it here, to see the ensemble there:</p>",
        maps.typed,
        *figures_row(maps.plume),
        f"</section><p class=note>{BANDS} {rounding}</p>",
        f"<h2>About the forecast</h2>{facts_list(others)}" if others else "",
        f"<h2>Model card</h2><pre class=card>{html.escape(card)}</pre>" if card else "",
    ]
    write_page(path, heading, parts)
    return rounding


def _rounding(products: Products, unit: float, *, regridded: bool) -> str:
    """Return sentences that say which points are shown, and how values are rounded: speeds to ``unit``."""
    text = ""
    if products.columns.size > 1 and (stride := products.columns[1] - products.columns[0]) > 1:
        text = f"To keep the page small, it has one of {stride} by {stride} points of the grid. "
    if regridded:
        text += "The initial analysis is on another grid; each point shows its nearest value. "
    return f"{text}Probabilities are rounded to 1 %, speeds to {unit:.2g} m/s, the spread to {products.units['spread']:.2g} m/s."
