"""Show where the warm start pays: its gain over the standard prior and over features-only, by how certain the next state is.

    python examples/where_the_warm_start_pays.py OUT [study.nc ...]

Simulates three planets that differ in their stirring, and runs `wsdcast study nfe` on each, with a small recipe and three seeds. Draws
OUT/where.png, together with the results of other studies, such as that of pipelines/gfs.yaml, and prints its values as a table. The
horizontal axis is the moments network's error on test data, in units of the wind's standard deviation. The range of ERA5, 0.10 to 0.15, is
an estimate: this network was not trained on forty years. Continues where it was stopped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

import wsdcast
from wsdcast.report.style import PRIORS
from wsdcast.weather.recipe import Recipe, load_recipe

STIRRINGS = (0.05, 0.35, 0.7)
EVALUATIONS = (2, 4, 10, 20)


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


def gains(study: xr.Dataset, over: str) -> Iterator[tuple[int, list[NDArray[np.floating]]]]:
    """Yield, for each number of evaluations, the gains of the warm start over another prior with as many.

    The gains are those in CRPS and in deviation of the spectrum. Each is (mean, low, high) in percent, with an interval over initial times.
    """
    for nfe in EVALUATIONS:
        chosen = (study["prior"] == "warm") & (study["nfe"] == nfe) & study["best"]
        if chosen.any():
            setting = study.isel(setting=int(chosen.values.argmax()))
            names = (f"{gain}{OVER[over]}_6h" for gain in ("crps_gain", "power_deviation_gain"))
            yield nfe, [100 * np.array([setting[name].item(), *setting[f"{name}_interval"].values]) for name in names]


def main(out: Path, others: list[Path]) -> None:
    """Run the studies that are missing, draw the figure and print the table."""
    studies = {}
    for stirring in STIRRINGS:
        recipe = recipe_of(stirring)
        wsdcast.prepare(recipe, out / recipe.name)
        wsdcast.study_nfe(recipe, out / recipe.name)
        studies[f"planet, {stirring:g}"] = out / recipe.name / "study.nc"
    studies |= {json.loads(xr.open_dataset(path).attrs["wsdcast"])["recipe"]["name"]: path for path in others}
    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    print("| wind | moments' error | over | evaluations | gain in CRPS, % | gain in spectrum, % | recipe hash |")
    print("|---|---|---|---|---|---|---|")
    for name, path in studies.items():
        with xr.open_dataset(path) as study:
            error, digest = study.attrs["moments_error_test"], study.attrs["recipe_hash"]
            for column, over in enumerate(OVER):
                for nfe, pair in gains(study, over):
                    cells = " | ".join(f"{mean:.1f} [{low:.1f}, {high:.1f}]" for mean, low, high in pair)
                    print(f"| {name} | {error:.3f} | {over} | {nfe} | {cells} | {digest} |")
                    number = EVALUATIONS.index(nfe)
                    for row, (mean, low, high) in enumerate(pair):
                        # The points lie side by side, with few evaluations on the left.
                        x = error * (1 + 0.03 * (number - 1.5))
                        shade = 0.3 + 0.7 * number / (len(EVALUATIONS) - 1)
                        label = f"{nfe} evaluations"
                        axes[row, column].plot(x, mean, "o", color=PRIORS[over], alpha=shade, label=label)
                        axes[row, column].vlines(x, low, high, color=PRIORS[over], alpha=shade)
                axes[0, column].annotate(name, (error, 0), rotation=90, fontsize=8, va="bottom", ha="right", color="0.4")
    for (row, column), axis in np.ndenumerate(axes):
        axis.axhline(0, color="black", linewidth=0.8)
        axis.axvspan(0.10, 0.15, color="black", alpha=0.06)
        axis.set(xscale="log", ylabel=("gain in CRPS (%)", "gain in deviation of spectrum (%)")[row])
        axis.grid(alpha=0.3)
        if row == 0:
            axis.set_title(f"warm start over {('standard prior', 'features-only')[column]}; grey: ERA5, estimated")
        else:
            axis.set_xlabel("moments network's error on test data (std of the wind)")
    handles = dict(zip(*reversed(axes[0, 0].get_legend_handles_labels()), strict=True))
    axes[0, 0].legend(handles.values(), handles.keys(), fontsize=8)
    figure.savefig(out / "where.png", dpi=110)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]])
