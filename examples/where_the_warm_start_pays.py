"""Show where the warm start pays: its gain over the standard prior and over features-only, by how certain the next state is.

    python examples/where_the_warm_start_pays.py OUT [study.nc ...]

Simulates three planets that differ in their stirring, and runs `wsdcast study nfe` on each, with a small recipe and three seeds. Draws
OUT/where.png, together with the results of other studies, such as that of pipelines/gfs.yaml, and prints its values as a table. The
winds are in the order of the moments network's error on test data, in units of the wind's standard deviation. Continues where it was
stopped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

import wsdcast
from wsdcast.report.style import BLUE, GREEN, LOOK, ORANGE, PURPLE, legend_below
from wsdcast.weather.recipe import Recipe, load_recipe

STIRRINGS = (0.05, 0.35, 0.7)
EVALUATIONS = (2, 4, 10, 20)
COLOURS = (ORANGE, GREEN, BLUE, PURPLE)


def recipe_of(stirring: float) -> Recipe:
    """Return the planet recipe with half of the record and half of the training, and without the distilled network."""
    return load_recipe("planet").changed(
        name=f"stirring-{stirring:g}",
        data__stirring=stirring,
        data__days=400,
        moments__steps=750,
        generator__steps=1000,
        generator__objective="flow",
        few_steps__steps=1000,  # not used; the recipe's hash on the page of results has it
        rollout__nfe=10,
        study__nfe=EVALUATIONS,
        study__rollout_nfe=(),
        study__ablations=(),
    )


OVER = {"standard": "_same", "features-only": "_features"}


def gains(study: xr.Dataset, over: str) -> Iterator[tuple[int, NDArray[np.floating], float]]:
    """Yield, for each number of evaluations, the gains of the warm start over another prior with as many, in percent.

    They are the gain in CRPS, (mean, low, high) with an interval over initial times, and that in the deviation of the spectrum.
    """
    for nfe in EVALUATIONS:
        chosen = (study["prior"] == "warm") & (study["nfe"] == nfe) & study["best"]
        if chosen.any():
            setting = study.isel(setting=int(chosen.values.argmax()))
            name = f"crps_gain{OVER[over]}_6h"
            crps = 100 * np.array([setting[name].item(), *setting[f"{name}_interval"].values])
            yield nfe, crps, 100 * setting[f"power_deviation_gain{OVER[over]}_6h"].item()


class Gain(NamedTuple):
    """The gain of the warm start over another prior with as many evaluations, for one wind.

    Attributes:
        wind: name of the wind.
        error: of the moments network on test data, in standard deviations of the wind.
        over: the other prior.
        nfe: number of evaluations.
        crps: gain in CRPS, (mean, low, high) in percent.
        spectrum: gain in the deviation of the spectrum, in percent.
    """

    wind: str
    error: float
    over: str
    nfe: int
    crps: Sequence[float]
    spectrum: float


@matplotlib.rc_context(LOOK)
def draw(gains: Sequence[Gain]) -> Figure:
    """Draw all gains: a column of panels for each other prior, and in each panel the winds, the most certain first."""
    winds = sorted({gain.wind: gain.error for gain in gains}.items(), key=itemgetter(1))
    figure = Figure(figsize=(9.8, 6), layout="constrained")
    axes = figure.subplots(2, len(OVER), sharex=True, sharey="row")
    for gain in gains:
        number = EVALUATIONS.index(gain.nfe)
        x = [wind for wind, _ in winds].index(gain.wind) + 0.15 * (number - (len(EVALUATIONS) - 1) / 2)
        look = {"color": COLOURS[number], "label": f"{gain.nfe} evaluations"}
        of_crps, of_spectrum = axes[:, list(OVER).index(gain.over)]
        of_crps.plot(x, gain.crps[0], ".", markersize=8, **look)
        of_crps.vlines(x, *gain.crps[1:], color=COLOURS[number])
        of_spectrum.plot(x, gain.spectrum, ".", markersize=8, **look)
    for axis in axes.flat:
        axis.axhline(0, color="black", linewidth=0.8)
    for column, over in zip(axes.T, OVER, strict=True):
        column[0].set_title(f"warm start over {over}")
        column[1].set_xticks(range(len(winds)), [f"{wind}\n{error:.3f}" for wind, error in winds])
        column[1].set_xlabel("wind, and error of the moments network (std of the wind)")
    for axis, score in zip(axes[:, 0], ("CRPS", "deviation of the spectrum"), strict=True):
        axis.set_ylabel(f"gain in {score} (%)")
    legend_below(figure)
    return figure


def main(out: Path, others: list[Path]) -> None:
    """Run the studies that are missing, draw the figure and print the table."""
    studies = {}
    for stirring in STIRRINGS:
        recipe = recipe_of(stirring)
        wsdcast.prepare(recipe, out / recipe.name)
        wsdcast.study_nfe(recipe, out / recipe.name)
        studies[f"planet, {stirring:g}"] = out / recipe.name / "study.nc"
    studies |= {json.loads(xr.open_dataset(path).attrs["wsdcast"])["recipe"]["name"]: path for path in others}
    print("| wind | moments' error | over | evaluations | gain in CRPS, % | gain in spectrum, % | recipe hash |")
    print("|---|---|---|---|---|---|---|")
    drawn = []
    for name, path in studies.items():
        with xr.open_dataset(path) as study:
            error, digest = study.attrs["moments_error_test"], study.attrs["recipe_hash"]
            for over in OVER:
                for nfe, crps, spectrum in gains(study, over):
                    cell = "{:.1f} [{:.1f}, {:.1f}]".format(*crps)
                    print(f"| {name} | {error:.3f} | {over} | {nfe} | {cell} | {spectrum:.1f} | {digest} |")
                    drawn.append(Gain(name, error, over, nfe, crps, spectrum))
    draw(drawn).savefig(out / "where.png", dpi=100)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]])
