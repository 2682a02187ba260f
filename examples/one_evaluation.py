"""Compare networks of one or few evaluations with the flow, in three tables by lead time.

    python examples/one_evaluation.py RUN/study.nc

The input is the result of `wsdcast study nfe` whose first prior is the reference, with forecasts at all numbers of evaluations, and a
variant for each objective. The tables have a row for each prior or variant and number of evaluations:

1. fair CRPS, as difference from the flow of the first prior with most evaluations in percent; positive is worse;
2. spread over skill, and the area in the two outer ranks of the rank histogram over that of a perfect ensemble;
3. the zonal spectrum and the kinetic energy by degree, as mean abs(1 - ratio) of energetic waves; the ratio of kinetic energy at the
   smallest scales, where a tail of noise shows; the energy and the variogram score, again as difference in percent.

Scores and differences are means over the seeds. After a difference, brackets hold 95 % of bootstrap samples of initial times, and the
values of the seeds follow a slash.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

SMALLEST = 4
"""Number of degrees of spherical harmonics that count as the smallest scales."""

Cell = Callable[[xr.Dataset, int], str]
"""The text of a score of a setting at a lead time, given by its position."""


def main(path: Path) -> None:
    """Print the tables of a study."""
    with xr.open_dataset(path, decode_timedelta=True) as dataset:
        study = dataset.load()
    rolled = study.isel(setting=(study["best"] & study["crps"].notnull().any("prediction_timedelta")).values)
    settings = [rolled.isel(setting=index) for index in range(rolled.sizes["setting"])]
    reference = max((one for one in settings if one["prior"] == study["prior"][0]), key=lambda one: one["nfe"].item())
    print(f"{study.attrs['title']}, recipe hash {study.attrs['recipe_hash']}, seeds {study['seed'].values.tolist()},")
    print(f"{int(study['starts'])} initial times. Reference: {reference['prior'].item()}, {reference['nfe'].item()} evaluations.\n")
    hours = [int(lead / np.timedelta64(1, "h")) for lead in study["prediction_timedelta"].values]
    first_and_third_day = [0, hours.index(72)] if 72 in hours else [0, len(hours) - 1]
    every = list(range(len(hours)))
    table(settings, hours, {"CRPS": partial(difference, "crps", "crps_gain_first")}, every)
    table(settings, hours, {"spread/skill": partial(number, "spread_skill", 2), "outer ranks": outer_ranks}, every)
    together: dict[str, Cell] = {
        "spectrum": partial(number, "power_deviation", 3),
        "kinetic energy": partial(number, "kinetic_energy_deviation", 3),
        "smallest scales": smallest_scales,
        "energy score": partial(difference, "energy_score", "energy_score_gain_first"),
        "variogram score": partial(variogram, reference),
    }
    table(settings, hours, together, first_and_third_day)


def table(settings: list[xr.Dataset], hours: list[int], scores: dict[str, Cell], leads: list[int]) -> None:
    """Print a Markdown table: a row for each setting, a column for each score and each of the lead times ``leads``, given by position."""
    columns = [(f"{heading}, {hours[lead]} h", cell, lead) for heading, cell in scores.items() for lead in leads]
    rows = [["start, objective", "NFE", *(heading for heading, _, _ in columns)], ["---"] * (2 + len(columns))]
    for setting in settings:
        rows.append([setting["prior"].item(), str(setting["nfe"].item()), *(cell(setting, lead) for _, cell, lead in columns)])
    print("\n".join(f"| {' | '.join(row)} |" for row in rows), end="\n\n")


def number(score: str, digits: int, setting: xr.Dataset, lead: int) -> str:
    """Return a score, mean over the seeds that have it."""
    return in_words(setting[f"{score}_by_seed"].isel(prediction_timedelta=lead).values, lambda values: f"{values.mean():.{digits}f}")


def difference(score: str, gain: str, setting: xr.Dataset, lead: int) -> str:
    """Return the difference of a score from the reference in percent; of the reference the score."""
    setting = setting.isel(prediction_timedelta=lead)
    by_seed, high_and_low = (-100 * setting[f"{gain}{ending}"].values for ending in ("_by_seed", "_interval"))
    if not np.nan_to_num(by_seed).any():  # the reference, also where a seed of it has no score
        return in_words(setting[f"{score}_by_seed"].values, lambda values: f"{values.mean():.3f} m/s")
    # A seed with members that left the range has no score, and then the mean over all seeds has no interval.
    bounds = "" if np.isnan(high_and_low).any() else f" [{high_and_low[1]:+.1f}, {high_and_low[0]:+.1f}]"
    seeds = ", ".join("-" if np.isnan(value) else f"{value:+.1f}" for value in by_seed)
    return in_words(by_seed, lambda values: f"{values.mean():+.1f}{bounds} / {seeds}")


def in_words(by_seed: NDArray[np.float64], text: Callable[[NDArray[np.float64]], str]) -> str:
    """Return the text for the seeds that have a score, and their number if it is not all of them. Members of the others left the range."""
    finite = by_seed[np.isfinite(by_seed)]
    if not finite.size:
        return "-"
    return text(finite) + ("" if finite.size == by_seed.size else f" ({finite.size} of {by_seed.size} seeds)")


def outer_ranks(setting: xr.Dataset, lead: int) -> str:
    """Return the area in the first and the last rank over that of a perfect ensemble."""
    histogram = setting["rank_histogram"].isel(prediction_timedelta=lead).values
    return f"{(histogram[0] + histogram[-1]) * histogram.size / 2:.2f}"


def smallest_scales(setting: xr.Dataset, lead: int) -> str:
    """Return the kinetic energy of the members over that of the truth, mean of the highest degrees."""
    return f"{setting['kinetic_energy_ratio'].isel(prediction_timedelta=lead).values[-SMALLEST:].mean():.2f}"


def variogram(reference: xr.Dataset, setting: xr.Dataset, lead: int) -> str:
    """Return the difference of the variogram score of neighbouring points from the reference in percent."""
    score, of_reference = (one["variogram_score"].isel(prediction_timedelta=lead, lag=0).item() for one in (setting, reference))
    return f"{100 * (score / of_reference - 1):+.1f}"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
