"""A study of images as Markdown and pictures, for a page of results.

    python examples/image_study_tables.py RUN/study.nc OUT [NAME]

Prints what `wsdcast inpaint study` found: the best setting of each prior and number of evaluations, the first prior with half of the
evaluations of the standard one, and scores by the share of visible pixels over those of the standard prior. Brackets hold 95 % of
bootstrap samples of contexts; after the slash are the seeds of training. Writes OUT/NAME-evaluations.png and OUT/NAME-visible.png.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from wsdcast.study.figures import by_evaluations
from wsdcast.study.images_figures import by_visible_share

SHOWN = {
    "classifier_distance": ("classifier distance", 3),
    "crps": ("CRPS", 4),
    "crps_standard": ("absolute error", 4),
    "psnr": ("PSNR, dB", 2),
    "spread_skill": ("spread/skill", 2),
}
DRAWN = ("classifier_distance", "crps", "crps_standard")
"""Of these a study of one sample of a context has the last, others the second."""


def cell(here: xr.Dataset, name: str, digits: int) -> str:
    """A score, its interval and its values by seed."""
    values = [here[name].item(), *here[f"{name}_interval"].values, *here[f"{name}_by_seed"].values]
    mean, low, high, *seeds = (f"{value:.{digits}f}" for value in values)
    return f"{mean} [{low}, {high}] / {', '.join(seeds)}"


def table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    """A table in Markdown."""
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"
    yield ""


def curves(study: xr.Dataset) -> Iterator[str]:
    """Scores by prior and number of evaluations."""
    best = study.isel(setting=study["best"].values)
    priors = list(dict.fromkeys(best["prior"].values))
    order = sorted(range(best.sizes["setting"]), key=lambda index: (priors.index(best["prior"].values[index]), best["nfe"].values[index]))
    rows, shown = [], {name: how for name, how in SHOWN.items() if name in study}
    for here in (best.isel(setting=index) for index in order):
        scores = [cell(here, name, digits) for name, (_, digits) in shown.items()]
        scores.append(f"{here['power_deviation'].item():.3f}")
        rows.append([here["prior"].item(), str(here["nfe"].item() or ""), f"{here['cost'].item():.2f}", here["solver"].item(), *scores])
    yield from table(["prior", "NFE", "cost", "solver", *(label for label, _ in shown.values()), "spectrum"], rows)


def halves(study: xr.Dataset) -> Iterator[str]:
    """Differences of the first prior with half of the evaluations and the standard one."""
    shown = {name: SHOWN[name] for name in DRAWN if f"{name}_difference" in study}
    rows = []
    for nfe in study["standard_nfe"].values:
        here = study.sel(standard_nfe=nfe)
        rows.append([f"{nfe // 2}", f"{nfe}", *(cell(here, f"{name}_difference", digits + 1) for name, (_, digits) in shown.items())])
    labels = [f"difference of {label}" for label, _ in shown.values()]
    yield from table([f"{study.attrs['compared']}, NFE", "standard, NFE", *labels], rows)


def sensitivity(study: xr.Dataset) -> Iterator[str]:
    """Scores by visible share, over those of the standard prior with as many evaluations."""
    every = [study.isel(setting=index) for index in np.flatnonzero(study["kind"] == "sensitivity")]
    standard = {(here["visible"].item(), here["nfe"].item()): here for here in every if here["prior"] == "standard"}
    for name in (name for name in DRAWN if name in study):
        label, digits = SHOWN[name]
        columns: dict[str, dict[tuple[float, int], str]] = {}
        for here in every:
            key, prior, warmth = (here["visible"].item(), here["nfe"].item()), here["prior"].item(), here["warmth"].item()
            if prior != "standard" and key in standard:
                ratios = here[f"{name}_by_seed"].values / standard[key][f"{name}_by_seed"].values
                text = f"{ratios.mean():.2f} / {', '.join(f'{ratio:.2f}' for ratio in ratios)}"
                of_prior = columns.setdefault(f"warm, w {warmth:g}" if prior == "warm" else prior, {})
                of_prior[key] = text + (f" (w {warmth:.2f})" if prior.endswith("calibrated") else "")
        rows = [
            [f"{100 * key[0]:g}", str(key[1]), f"{here[name].item():.{digits}f}", *(of_prior[key] for of_prior in columns.values())]
            for key, here in standard.items()
        ]
        yield f"{label}, over the standard prior's:"
        yield ""
        yield from table(["visible, %", "NFE", "standard", *columns], rows)


def main(path: Path, out: Path, name: str) -> None:
    """Print the tables and draw the figures."""
    with xr.open_dataset(path) as opened:
        study = opened.load()
    out.mkdir(parents=True, exist_ok=True)
    print(f"{study.attrs['about']}. Recipe hash {study.attrs['recipe_hash']}.")
    print(f"Distance of {study.attrs['floor_of']} themselves: {study.attrs['floor_classifier_distance']:.3f}. ", end="")
    print(f"The moments network costs {study.attrs['moments_share']:.2f} evaluations of the generator per sample.\n")
    print("\n".join([*curves(study), *halves(study), *sensitivity(study)]))
    kinds = {kind: study.isel(setting=(study["kind"] == kind).values) for kind in ("curve", "sensitivity")}
    drawn = [name for name in DRAWN if name in study]
    by_evaluations(kinds["curve"], [*drawn, "psnr", "power_deviation"]).savefig(out / f"{name}-evaluations.png")
    if kinds["sensitivity"].sizes["setting"]:
        by_visible_share(kinds["sensitivity"], drawn, relative=True).savefig(out / f"{name}-visible.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "images")
