"""The report of scores and fields."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.variables import SPEED
from wsdcast.report.figures import at_scored_leads, headline
from wsdcast.report.interactive_maps import Maps, interactive_maps
from wsdcast.report.interactive_scores import interval_of, rank_histograms, reliability, score_curves, spectrum_ratios
from wsdcast.report.panels import Row
from wsdcast.report.shell import Part, facts_list, figures_row, one_of, write_page
from wsdcast.report.shown_fields import ReadFields
from wsdcast.report.subjects import Subject, subjects_of
from wsdcast.report.tables import by_lead, regions, summary
from wsdcast.verification.metrics import variables_of


def write_report(
    path: Path,
    scores: xr.Dataset,
    grid: Grid,
    fields: ReadFields | None,
    title: str,
    facts: Mapping[str, str],
    recipe: str,
    *,
    on_earth: bool,
    inside: NDArray[np.bool_] | None = None,
) -> None:
    """Write the report of the first forecast in ``scores``, compared with the others.

    Args:
        path: HTML file to write.
        scores: contents of ``scores.nc``; metrics that are missing or NaN are left out.
        grid: of the fields.
        fields: function from the position of an initial time to members (member, lead, channel, latitude, longitude) and truth (lead,
            channel, latitude, longitude), NaN where a member was stopped and where there is no truth; None if no fields were kept.
        title: of the page.
        facts: facts about the forecast for the header, by name.
        recipe: text of the recipe, shown at the end; may be empty.
        on_earth: whether to draw the coastlines of the Earth.
        inside: points that are scored, (latitude, longitude), between whose bounds maps and plumes are; default: all.
    """
    names = variables_of(scores)
    first = headline(scores)
    subjects = [first, *(each for each in subjects_of(names) if each != first)]
    maps = [None] * len(subjects) if fields is None else interactive_maps(scores, grid, fields, on_earth, subjects, names, inside)
    parts: list[Part] = [f"<header><h1>{html.escape(title)}</h1>{facts_list(facts)}</header>"]
    scored = at_scored_leads(scores)
    contents = [_about(scored, of, of_maps) for of, of_maps in zip(subjects, maps, strict=True)]
    parts += one_of([of.label for of in subjects], contents)
    if recipe:
        parts.append(f"<h2>Recipe</h2><pre class=recipe>{html.escape(recipe)}</pre>")
    write_page(path, title, parts)


def _about(scores: xr.Dataset, of: Subject, maps: Maps | None) -> list[Part]:
    """Return the part of the page that is about one subject; ``maps`` are None if no fields were kept."""
    ours = html.escape(str(scores["forecast"].values[0]))
    label = of.label.replace(" speed", "")
    what = html.escape(label[0].upper() + label[1:]) + (", mean of both components," if of.is_wind else ",")
    bounds = interval_of(scores, "crps_fair")
    has_intervals = bounds is not None and np.isfinite(bounds).any()  # with one initial time they are NaN
    intervals = "; bands and brackets hold 95 % of bootstrap samples of the initial times" if has_intervals else ""
    chances: list[Part] = [
        *_row(reliability(scores), "reliability"),
        "<p class=note>How often wind exceeded a threshold, by the forecast probability of it. A reliable forecast lies on the "
        "diagonal. Larger dots stand for more area.</p>",
    ]
    energy = " The energy score compares whole fields of the wind vector, so it also measures how points vary together." * of.is_wind
    return [
        "<h2>Scores by lead time</h2>",
        *_row(score_curves(scores, of), "scores"),
        f"<p class=note>{what} weighted by area, all initial times{intervals}. Fair CRPS does not depend on the number of "
        "members; of one member it is the absolute error. Spread over skill should be 1.</p>",
        summary(scores, of),
        f"<details><summary>All lead times</summary>{by_lead(scores, of)}</details>",
        "<h2>Forecast and truth</h2>",
        *_maps(maps, of),
        "<h2>Is it as uncertain as it says?</h2>",
        *_row(rank_histograms(scores, of), "rank histogram"),
        "<p class=note>Rank of the truth among the members. A reliable ensemble has a flat histogram; high ends show too little "
        "spread.</p>",
        *(chances if of.speed == SPEED else []),
        f"<h2>Does it look like {'wind' if of.is_wind else 'the truth'}?</h2>",
        *_row(spectrum_ratios(scores, of), "spectra"),
        "<p class=note>Mean power of members over mean power of the truth, along latitude circles without the pole rows. It should "
        "be 1; the grey band is from 0.8 to 1.2. Blue is too smooth, red too rough.</p>",
        "<h2>Where?</h2>",
        regions(scores, of),
        f"<p class=note>Fair CRPS {'and energy score ' * of.is_wind}of {ours} in {html.escape(of.score_units)}; below "
        f"{'them' if of.is_wind else 'it'} the skill over climatology, 1 - score / score of climatology.{energy}</p>",
    ]


def _row(row: Row, content: str) -> list[Part]:
    """Return the figures, or a note that there is no ``content``."""
    return figures_row(row) if row.figures else [f"<p class=note>These scores have no {content}.</p>"]


def _maps(maps: Maps | None, of: Subject) -> list[Part]:
    if maps is None:
        return ["<p class=note>No maps: the fields of this forecast were not kept.</p>"]
    what = of.label[0].upper() + of.label[1:]
    if of.value_label != of.label:  # scores are of the geopotential
        what += f", shown as height ({of.units})"
    return [
        "<section><div class=controls>",
        maps.controls,
        "</div>",
        *figures_row(maps.maps),
        f"<p class=note>{html.escape(what)}. Choose a place on any map to see the ensemble there:</p>",
        *figures_row(maps.plume),
        f"</section><p class=note>{html.escape(maps.note)}</p>",
    ]
