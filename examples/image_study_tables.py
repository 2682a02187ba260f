"""Print a study of images as Markdown tables and draw its figures, for a page of results.

    python examples/image_study_tables.py RUN/study.nc OUT [NAME]

The input is the result of `wsdcast inpaint study`. Prints three tables: the best setting of each prior and number of evaluations; the
difference between the first prior and the standard one with twice the evaluations; and scores by share of visible pixels, relative to those
of the standard prior. Brackets hold 95 % of bootstrap samples of contexts; after the slash is the value of each training seed. Writes
OUT/NAME-evaluations.png and OUT/NAME-visible.png.
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
"""A study with one sample per context has ``crps_standard``, any other has ``crps``."""


def cell(setting: xr.Dataset, name: str, digits: int) -> str:
    """Return a score, its interval and its value for each seed as text."""
    values = [setting[name].item(), *setting[f"{name}_interval"].values, *setting[f"{name}_by_seed"].values]
    mean, low, high, *seeds = (f"{value:.{digits}f}" for value in values)
    return f"{mean} [{low}, {high}] / {', '.join(seeds)}"


def table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"
    yield ""


def curves(study: xr.Dataset) -> Iterator[str]:
    """Yield the table of scores by prior and number of evaluations."""
    best = study.isel(setting=study["best"].values)
    priors = list(dict.fromkeys(best["prior"].values))
    order = sorted(range(best.sizes["setting"]), key=lambda index: (priors.index(best["prior"].values[index]), best["nfe"].values[index]))
    rows, shown = [], {name: label for name, label in SHOWN.items() if name in study}
    for setting in (best.isel(setting=index) for index in order):
        scores = [cell(setting, name, digits) for name, (_, digits) in shown.items()]
        scores.append(f"{setting['power_deviation'].item():.3f}")
        rows.append(
            [setting["prior"].item(), str(setting["nfe"].item() or ""), f"{setting['cost'].item():.2f}", setting["solver"].item(), *scores]
        )
    yield from table(["prior", "NFE", "cost", "solver", *(label for label, _ in shown.values()), "spectrum"], rows)


def halves(study: xr.Dataset) -> Iterator[str]:
    """Yield the table of differences between the first prior and the standard one with twice the evaluations."""
    shown = {name: SHOWN[name] for name in DRAWN if f"{name}_difference" in study}
    rows = []
    for nfe in study["standard_nfe"].values:
        setting = study.sel(standard_nfe=nfe)
        rows.append([f"{nfe // 2}", f"{nfe}", *(cell(setting, f"{name}_difference", digits + 1) for name, (_, digits) in shown.items())])
    labels = [f"difference of {label}" for label, _ in shown.values()]
    yield from table([f"{study.attrs['compared']}, NFE", "standard, NFE", *labels], rows)


def sensitivity(study: xr.Dataset) -> Iterator[str]:
    """Yield the tables of scores by visible share, relative to those of the standard prior with as many evaluations."""
    settings = [study.isel(setting=index) for index in np.flatnonzero(study["kind"] == "sensitivity")]
    standard = {(setting["visible"].item(), setting["nfe"].item()): setting for setting in settings if setting["prior"] == "standard"}
    for name in (name for name in DRAWN if name in study):
        label, digits = SHOWN[name]
        columns: dict[str, dict[tuple[float, int], str]] = {}
        for setting in settings:
            key, prior, warmth = (setting["visible"].item(), setting["nfe"].item()), setting["prior"].item(), setting["warmth"].item()
            if prior != "standard" and key in standard:
                ratios = setting[f"{name}_by_seed"].values / standard[key][f"{name}_by_seed"].values
                text = f"{ratios.mean():.2f} / {', '.join(f'{ratio:.2f}' for ratio in ratios)}"
                of_prior = columns.setdefault(f"warm, w {warmth:g}" if prior == "warm" else prior, {})
                of_prior[key] = text + (f" (w {warmth:.2f})" if prior.endswith("calibrated") else "")
        rows = [
            [f"{100 * key[0]:g}", str(key[1]), f"{setting[name].item():.{digits}f}", *(of_prior[key] for of_prior in columns.values())]
            for key, setting in standard.items()
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
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "images")
