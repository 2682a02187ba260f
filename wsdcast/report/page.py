"""The report of scores and fields."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path

import xarray as xr

from wsdcast.data.grid import Grid
from wsdcast.report.chosen_place import BANDS
from wsdcast.report.interactive_maps import forecast_maps
from wsdcast.report.interactive_scores import rank_histograms, reliability, score_curves, spectrum_ratios
from wsdcast.report.panels import Row
from wsdcast.report.shell import Part, facts_list, figures_row, write_page
from wsdcast.report.shown_fields import Fields
from wsdcast.report.tables import by_lead, regions, summary


def write_report(
    path: Path,
    scores: xr.Dataset,
    grid: Grid,
    fields: Fields | None,
    title: str,
    facts: Mapping[str, str],
    recipe: str,
    *,
    on_earth: bool,
) -> None:
    """Write the report of the first forecast in ``scores``, compared with the others.

    Args:
        path: HTML file to write.
        scores: contents of ``scores.nc``; metrics that are missing or NaN are left out.
        grid: of the fields.
        fields: function from the position of an initial time to members (member, lead, channel, latitude, longitude) and truth (lead,
            channel, latitude, longitude), m s-1, NaN where a member was stopped and where there is no truth; None if no fields were kept.
        title: of the page.
        facts: facts about the forecast for the header, by name.
        recipe: text of the recipe, shown at the end; may be empty.
        on_earth: whether to draw the coastlines of the Earth.
    """
    ours = html.escape(str(scores["forecast"].values[0]))
    parts: list[Part] = [
        f"<header><h1>{html.escape(title)}</h1>{facts_list(facts)}</header>",
        "<h2>Scores by lead time</h2>",
        *_row(score_curves(scores), "scores"),
        "<p class=note>10 m wind, mean of both components, weighted by area, all starts; bands and brackets hold 95 % of bootstrap "
        "samples of the start dates. Fair CRPS does not depend on the number of members. Spread over skill should be 1.</p>",
        summary(scores),
        f"<details><summary>All lead times</summary>{by_lead(scores)}</details>",
        "<h2>Forecast and truth</h2>",
        *_maps(scores, grid, fields, on_earth),
        "<h2>Is it as uncertain as it says?</h2>",
        *_row(rank_histograms(scores), "rank histogram"),
        "<p class=note>Rank of the truth among the members. A reliable ensemble has a flat histogram; high ends show too little "
        "spread.</p>",
        *_row(reliability(scores), "reliability"),
        "<p class=note>How often wind exceeded a threshold, by the forecast probability of it. A reliable forecast lies on the "
        "diagonal. Larger dots stand for more area.</p>",
        "<h2>Does it look like wind?</h2>",
        *_row(spectrum_ratios(scores), "spectra"),
        "<p class=note>Mean power of members over mean power of the truth, along latitude circles without the pole rows. It should "
        "be 1; the grey band is from 0.8 to 1.2. Blue is too smooth, red too rough.</p>",
        "<h2>Where?</h2>",
        regions(scores),
        f"<p class=note>Fair CRPS and energy score of {ours} in m/s; below them the skill over climatology, 1 - score / score of "
        "climatology. The energy score compares whole fields of the wind vector, so it also measures how points vary together.</p>",
        f"<h2>Recipe</h2><pre class=recipe>{html.escape(recipe)}</pre>" if recipe else "",
    ]
    write_page(path, title, parts)


def _row(row: Row, content: str) -> list[Part]:
    """Return the figures, or a note that there is no ``content``."""
    return figures_row(row) if row.figures else [f"<p class=note>These scores have no {content}.</p>"]


def _maps(scores: xr.Dataset, grid: Grid, fields: Fields | None, on_earth: bool) -> list[Part]:
    if fields is None:
        return ["<p class=note>No maps: the fields of this forecast were not kept.</p>"]
    maps = forecast_maps(scores, grid, fields, on_earth)
    return [
        "<section><div class=controls>",
        maps.controls,
        "</div>",
        *figures_row(maps.maps),
        "<p class=note>Wind speed 10 m above the ground. Choose a place on any map to see the ensemble there:</p>",
        *figures_row(maps.plume),
        f"</section><p class=note>{BANDS} {html.escape(maps.left_out)}</p>",
    ]
