"""The page of a study of images: its figures and what they show as tables."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from wsdcast.images.score_page import DIGITS, LABELS, score_cell
from wsdcast.report.page import STYLE, picture
from wsdcast.study.images_figures import by_evaluations, by_solver, by_visible_share, solvers_of

MAIN_SCORES = ("fid", "classifier_distance", "crps", "crps_standard")


def write_image_study_page(path: Path, study: xr.Dataset, name: str, recipe_text: str, saturates: Mapping[str, int | None]) -> None:
    """Write the page of a study.

    Args:
        path: of the HTML file.
        study: along ``setting`` the coordinates ``prior``, ``solver``, ``grid_in_time``, ``warmth``, ``visible`` (share of pixels), ``nfe``
            and ``kind`` (curve or sensitivity), the variables ``cost`` in evaluations, ``best`` of its prior and evaluations, and of
            :data:`LABELS` those it has, means over seeds, with ``_interval`` (setting, bound) and ``_by_seed`` (setting, seed). Attributes:
            ``about`` and ``chosen_on`` in words, ``recipe_hash``, and ``floor_`` and a score's name: that of true images, ``floor_of``.
            ``diverged`` and ``diverged_validation`` are shares of samples.
        name: of the recipe.
        recipe_text: shown at the end.
        saturates: for each prior the number of evaluations that is enough, if one is.
    """
    scores = [score for score in LABELS if score in study]
    main, others = ([score for score in scores if (score in MAIN_SCORES) == wanted] for wanted in (True, False))
    curves, sensitivity = (study.isel(setting=(study["kind"] == kind).values) for kind in ("curve", "sensitivity"))
    parts = [
        f"<h1>Function evaluations on images: {html.escape(name)}</h1><p class=note>{html.escape(study.attrs['about'])}</p>",
        "<p class=note>Scores are means over training seeds; bands and brackets are 95 % intervals, which "
        "distances have where they are best or compared, dots single seeds. "
        f"{_floors(study, main)}Recipe hash {html.escape(study.attrs['recipe_hash'])}.</p>",
    ]
    if curves.sizes["setting"]:
        parts += [
            "<h2>By number of evaluations</h2>",
            picture(by_evaluations(curves, main), "Distances and CRPS against evaluations, best solver and warmth of each prior"),
            "<p class=note>The best solver, grid in time and warmth of each prior at each number of evaluations, chosen on "
            f"{html.escape(study.attrs['chosen_on'])}. The moments network's share of an evaluation counts for those that use it. Solid: "
            "the warm start and standard flow matching; dashed: ablations.</p>",
            _half(study),
            _saturation(saturates),
        ]
        if others:
            parts += [picture(by_evaluations(curves, others), "Other scores against evaluations, best solver and warmth of each prior")]
        if len(solvers_of(curves)) > 1:
            parts += [
                "<h2>By solver</h2>",
                picture(by_solver(curves, main), "Scores by solver and grid in time"),
                "<p class=note>Rings: taken as best, the points of the figures above; off the lines where another warmth was best.</p>",
            ]
    if sensitivity.sizes["setting"]:
        parts += [
            "<h2>By share of visible pixels</h2>",
            picture(by_visible_share(sensitivity, main), "Scores against the share of visible pixels by warmth and evaluations"),
            "<p class=note>The warm start at several warmths, and standard flow matching, which has none.</p>",
            picture(by_visible_share(sensitivity, main, relative=True), "The same over the scores of the standard prior"),
            "<p class=note>The same over the standard prior's score: below 1 the warm start gains.</p>",
        ]
    parts += [f"<h2>All settings</h2>{_table(study, scores)}<h2>Recipe</h2><pre>{html.escape(recipe_text)}</pre>"]
    page = f"<!doctype html><html lang=en><head><meta charset=utf-8><title>wsdcast inpaint study: {html.escape(name)}</title>"
    style = f"{STYLE} .wide table {{ font-size: .8125rem; white-space: nowrap; }} .wide td, .wide th {{ padding: .15rem .4rem; }}"
    path.write_text(f"{page}<style>{style}</style></head><body>{''.join(parts)}</body></html>", encoding="utf-8")


def _floors(study: xr.Dataset, scores: Sequence[str]) -> str:
    known = [f"{LABELS[score]} {study.attrs[f'floor_{score}']:.{DIGITS[score]}f}" for score in scores if f"floor_{score}" in study.attrs]
    return f"{study.attrs['floor_of']} themselves, dotted: {', '.join(known)}. " if known else ""


def _half(study: xr.Dataset) -> str:
    """A table of the first prior with half of the evaluations less the standard prior, if a study compares them."""
    scores = [score for score in LABELS if f"{score}_difference" in study]
    if not scores:
        return ""
    names = (
        f"{study.attrs['compared']} (w = {study.attrs['compared_warmth']:g}), evaluations",
        "standard, evaluations",
        *(f"{LABELS[score]}{what}" for score in scores for what in (", difference", ", by seed")),
    )
    rows = [names]
    for nfe in study["standard_nfe"].values:
        pair, cells = study.sel(standard_nfe=nfe), [f"{nfe // 2}", f"{nfe}"]
        for score in scores:
            difference, bounds, by_seed = (pair[f"{score}_difference{what}"].values.tolist() for what in ("", "_interval", "_by_seed"))
            cells += [score_cell(score, difference, bounds), ", ".join(f"{value:.{DIGITS[score]}f}" for value in by_seed)]
        rows.append(tuple(cells))
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    note = "The first prior less the standard one with twice as many evaluations, at the first solver and warmth of the recipe, which no "
    return f"<div class=wide><table>{body}</table></div><p class=note>{note}score has chosen: of distances and CRPS less is better.</p>"


def _saturation(saturates: Mapping[str, int | None]) -> str:
    cells = "".join(f"<tr><td>{html.escape(prior)}</td><td>{nfe or 'no number is both'}</td></tr>" for prior, nfe in saturates.items())
    note = "The smallest number whose CRPS is within 1 % and whose classifier distance is within 5 % of the prior's least, on validation"
    note = f"{note} images."
    return f"<table><tr><th>prior</th><th>saturates at</th></tr>{cells}</table><p class=note>{note}</p>"


def _table(study: xr.Dataset, scores: Sequence[str]) -> str:
    names = ["kind", "prior", "solver", "times", "warmth", "visible %", "evaluations", "cost", *(LABELS[score] for score in scores)]
    names += ["classifier distance, validation", "diverged"]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = []
    for index in range(study.sizes["setting"]):
        setting = study.isel(setting=index)
        cells = [html.escape(str(setting[name].item())) for name in ("kind", "prior", "solver", "grid_in_time")]
        cells += [f"{setting['warmth'].item():g}", f"{100 * setting['visible'].item():g}", str(setting["nfe"].item())]
        cells.append(f"{setting['cost'].item():.2f}")
        cells += [score_cell(score, setting[score].item(), setting[f"{score}_interval"].values.tolist()) for score in scores]
        cells += [score_cell("classifier_distance", setting["classifier_distance_validation"].item(), [np.nan]), diverged(setting)]
        bold = " style=font-weight:600" if setting["best"].item() else ""
        body.append(f"<tr{bold}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    note = f"Bold: best of its prior and evaluations, chosen on {html.escape(study.attrs['chosen_on'])}. Of distances, CRPS, the spectrum "
    note = f"<p class=note>{note}and errors less is better. Diverged: samples that are not finite; where there are any, a setting has no "
    note += "scores and is never chosen.</p>"
    return f"<div class=wide><table><tr>{head}</tr>{''.join(body)}</table></div>{note}"


def diverged(setting: xr.Dataset) -> str:
    """Where samples of a setting were not finite, in words; nothing if all were finite."""
    shares = {" at validation": setting["diverged_validation"].item(), "": setting["diverged"].item()}
    return ", ".join(f"{100 * share:.2g} % of samples{where}" for where, share in shares.items() if share > 0)
