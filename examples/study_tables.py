"""Print a study as Markdown tables and draw its figures, for a page of results.

    python examples/study_tables.py RUN/study.nc OUT [NAME]

The input is the result of `wsdcast study nfe`. Prints tables for the best setting of each prior and number of evaluations: scores of one
step, scores of forecasts, and gains over the standard prior with most evaluations. Brackets hold 95 % of bootstrap samples of initial
times (deviations of spectra have none); after the slash is the value of each seed. Writes OUT/NAME-evaluations.png, OUT/NAME-spectra.png
and OUT/NAME-leads.png.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from wsdcast.study.figures import by_evaluations
from wsdcast.study.weather_figures import by_lead, spectra
from wsdcast.study.weather_page import SCORES
from wsdcast.study.weather_summary import saturation


def cell(setting: xr.Dataset, name: str, digits: int, factor: float = 1) -> str:
    """Return a score, its interval if it has one, and its value for each seed as text; empty if there is no score."""
    if name not in setting or not np.isfinite(setting[name].item()):
        return ""
    mean, *seeds = (f"{factor * value:.{digits}f}" for value in (setting[name].item(), *setting[f"{name}_by_seed"].values))
    bounds = [f"{factor * bound:.{digits}f}" for bound in setting[f"{name}_interval"].values] if f"{name}_interval" in setting else []
    return f"{mean}{f' [{bounds[0]}, {bounds[1]}]' if bounds else ''} / {', '.join(seeds)}"


def table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table, without empty columns and without rows that have only a name."""
    filled = [index for index in range(len(head)) if index < 2 or any(row[index] for row in rows)]
    rows = [[row[index] for index in filled] for row in rows if any(row[2:])]
    for row in ([head[index] for index in filled], ["---"] * len(filled), *rows):
        yield f"| {' | '.join(row)} |"
    yield ""


def tables(study: xr.Dataset) -> Iterator[str]:
    """Yield the lines of all tables."""
    shown = study.isel(setting=(study["best"] | (study["nfe"] == 0)).values)
    settings = [shown.isel(setting=index) for index in range(shown.sizes["setting"])]
    names = [[setting["prior"].item() + (f", w = {setting['warmth'].item():g}" if setting["warmth"] != 1 else "")] for setting in settings]
    names = [[*name, str(setting["nfe"].item() or "")] for name, setting in zip(names, settings, strict=True)]
    columns: dict[str, tuple[str, int, float]] = {
        "fair CRPS, m/s": ("crps_6h", 4, 1),
        "CRPS gain, %": ("crps_gain_6h", 1, 100),
        "over features-only, %": ("crps_gain_features_6h", 1, 100),
        "spread/skill": ("spread_skill_6h", 3, 1),
        "spectrum": ("power_deviation_6h", 3, 1),
        "spectrum gain, %": ("power_deviation_gain_6h", 0, 100),
    }
    size = f"{int(study['starts_6h'])} initial times of {study.attrs['members']} members"
    yield f"One step of 6 h, {size}. Gain: over {study.attrs['reference']};"
    yield "over features-only: with as many evaluations."
    yield ""
    yield from table(
        ["prior", "NFE", "cost", *columns],
        [
            [*name, f"{setting['cost'].item():.2f}", *(cell(setting, *column) for column in columns.values())]
            for name, setting in zip(names, settings, strict=True)
        ],
    )
    saturates = (f"{prior} {nfe or 'at no number'}" for prior, nfe in saturation(study).items())
    yield f"Saturates at: {', '.join(saturates)}."
    yield ""
    leads = study["prediction_timedelta"].values if "prediction_timedelta" in study.dims else np.array([], dtype="timedelta64[h]")
    labels = [f"{lead / np.timedelta64(1, 'h'):g} h" for lead in leads]
    by_lead_time = [[setting.sel(prediction_timedelta=lead) for lead in leads] for setting in settings]
    for title, score, digits, factor in (
        (f"Forecasts, {int(study['starts']) if 'starts' in study else 0} initial times, fair CRPS in m/s:", "crps", 3, 1.0),
        ("Forecasts, mean deviation of the spectrum:", "power_deviation", 3, 1.0),
        (f"Forecasts, gain in CRPS over {study.attrs['reference']}, in percent:", "crps_gain", 1, 100.0),
        ("Forecasts, gain in the deviation of the spectrum over the same, in percent:", "power_deviation_gain", 0, 100.0),
    ):
        rows = [[*name, *(cell(setting, score, digits, factor) for setting in row)] for name, row in zip(names, by_lead_time, strict=True)]
        if any(any(row[2:]) for row in rows):
            yield title
            yield ""
            yield from table(["prior", "NFE", *labels], rows)


def main(path: Path, out: Path, name: str) -> None:
    """Print the tables and draw the figures."""
    out.mkdir(parents=True, exist_ok=True)
    with xr.open_dataset(path, decode_timedelta=True) as study:
        recipe, digest = json.loads(study.attrs["wsdcast"])["recipe"]["name"], study.attrs["recipe_hash"]
        print(f"Recipe {recipe}, hash {digest}; training seeds {', '.join(str(seed) for seed in study['seed'].values)}.\n")
        print("\n".join(tables(study)))
        by_evaluations(study, SCORES).savefig(out / f"{name}-evaluations.png", dpi=100)
        spectra(study).savefig(out / f"{name}-spectra.png", dpi=100)
        if "crps" in study:
            by_lead(study).savefig(out / f"{name}-leads.png", dpi=100)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) == 4 else "study")
