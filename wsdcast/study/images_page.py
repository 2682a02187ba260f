"""The page of an image study: its figures, and their values as tables."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import xarray as xr

from wsdcast.images.score_page import DIGITS, LABELS
from wsdcast.report.shell import picture, write_plain_page
from wsdcast.report.tables import html_table
from wsdcast.study.figures import by_evaluations, by_solver, solvers_of
from wsdcast.study.images_figures import by_visible_share
from wsdcast.study.page import note, of, saturation_table, score, settings_table

MAIN_SCORES = ("fid", "classifier_distance", "crps", "crps_standard")


def write_image_study_page(path: Path, study: xr.Dataset, name: str, recipe: str, saturates: Mapping[str, int | None]) -> None:
    """Write the page of a study (``study.nc``, docs/inpaint.md), with the text of the recipe at the end. Scores that it lacks are left out.

    ``saturates`` has for each prior the smallest number of evaluations that is as good as any.
    """
    scores = [name for name in LABELS if name in study]
    main, others = ([name for name in scores if (name in MAIN_SCORES) == is_main] for is_main in (True, False))
    curves, sensitivity = (study.isel(setting=(study["kind"] == kind).values) for kind in ("curve", "sensitivity"))
    chosen_on = html.escape(study.attrs["chosen_on"])
    parts = [
        note(html.escape(study.attrs["about"])),
        note(
            "Scores are means over training seeds; bands and brackets are 95 % intervals, dots single seeds. Distances have intervals "
            f"where they are best or compared. {_floors(study, main)}Recipe hash {html.escape(study.attrs['recipe_hash'])}."
        ),
    ]
    if curves.sizes["setting"]:
        parts += [
            "<h2>By number of evaluations</h2>",
            picture(by_evaluations(curves, main), "Distances and CRPS against evaluations, best solver and warmth of each prior"),
            note(
                "Each line shows the best solver, grid of flow times and warmth of a prior at each number of evaluations, chosen on "
                f"{chosen_on}. The cost includes the moments network for the priors that use it. Solid: the warm start; dotted: "
                "standard flow matching; dashed: the others."
            ),
            _half(study),
            saturation_table(saturates),
            note(
                "The smallest number whose CRPS is within 1 % and whose classifier distance is within 5 % of the prior's lowest, on "
                "validation images."
            ),
        ]
        if others:
            parts += [picture(by_evaluations(curves, others), "Other scores against evaluations, best solver and warmth of each prior")]
        if len(solvers_of(curves)) > 1:
            parts += [
                "<h2>By solver</h2>",
                picture(by_solver(curves, main), "Scores by solver and grid in time"),
                note("Rings: the points of the figures above. They lie off the lines where another warmth was best."),
            ]
    if sensitivity.sizes["setting"]:
        parts += [
            "<h2>By share of visible pixels</h2>",
            picture(by_visible_share(sensitivity, main), "Scores against the share of visible pixels by warmth and evaluations"),
            note("The warm start at several warmths, the other priors at full warmth. Warmth does not change the standard prior."),
        ]
        if "standard" in sensitivity["prior"]:
            parts += [
                picture(by_visible_share(sensitivity, main, relative=True), "The same over the scores of the standard prior"),
                note("The same, divided by the score of the standard prior: below 1 another prior gains."),
            ]
    parts += ["<h2>All settings</h2>", _table(study, scores, chosen_on)]
    write_plain_page(path, f"Function evaluations on images: {name}", parts, recipe)


def _floors(study: xr.Dataset, scores: Sequence[str]) -> str:
    known = [f"{LABELS[name]} {study.attrs[f'floor_{name}']:.{DIGITS[name]}f}" for name in scores if f"floor_{name}" in study.attrs]
    return f"Dotted black line: {study.attrs['floor_of']} as if they were samples: {', '.join(known)}. " if known else ""


def _half(study: xr.Dataset) -> str:
    """A table of the first prior with half of the evaluations less the standard prior, if the study compares them."""
    scores = [name for name in LABELS if f"{name}_difference" in study]
    if not scores:
        return ""
    first = f"{study.attrs['compared']} (w = {study.attrs['compared_warmth']:g}), evaluations"
    head = [first, "standard, evaluations", *(f"{LABELS[name]}{kind}" for name in scores for kind in (", difference", ", by seed"))]
    rows = []
    for nfe in study["standard_nfe"].values:
        pair, row = study.sel(standard_nfe=nfe), [f"{nfe // 2}", f"{nfe}"]
        for name in scores:
            by_seed = ", ".join(f"{value:.{DIGITS[name]}f}" for value in pair[f"{name}_difference_by_seed"].values)
            row += [score(f"{name}_difference", DIGITS[name])(pair), by_seed]
        rows.append(row)
    return html_table(head, rows) + note(
        "The first prior less the standard prior with twice as many evaluations, with the recipe's first solver and warmth, which were not "
        "chosen by any score. For distances and CRPS lower is better."
    )


def _table(study: xr.Dataset, scores: Sequence[str], chosen_on: str) -> str:
    columns = [
        *((heading, of(name)) for heading, name in (("kind", "kind"), ("prior", "prior"), ("solver", "solver"), ("times", "grid_in_time"))),
        ("warmth", lambda setting: f"{setting['warmth'].item():g}"),
        ("visible %", lambda setting: f"{100 * setting['visible'].item():g}"),
        ("evaluations", of("nfe")),
        ("cost", score("cost", 2)),
        *((LABELS[name], score(name, DIGITS[name])) for name in scores),
        ("classifier distance, validation", score("classifier_distance_validation", DIGITS["classifier_distance"])),
        ("diverged", diverged),
    ]
    return settings_table(study, columns) + note(
        f"Bold: best of its prior and evaluations, chosen on {chosen_on}. For distances, CRPS, the spectrum and errors lower is better. "
        "Diverged: samples that are not finite. A setting with such samples has no scores and is never chosen."
    )


def diverged(setting: xr.Dataset) -> str:
    """The shares of samples of a setting that were not finite, in words; empty if all were finite."""
    shares = {" at validation": setting["diverged_validation"].item(), "": setting["diverged"].item()}
    return ", ".join(f"{100 * share:.2g} % of samples{where}" for where, share in shares.items() if share > 0)
