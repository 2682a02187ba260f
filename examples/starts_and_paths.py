"""Compare starts and paths in one short table for each study, and draw sample quality by blur-to-noise ratio.

    python examples/starts_and_paths.py OUT RUN/study.nc [RUN/study.nc ...]

The inputs are results of `wsdcast study nfe`. Each table has one row for each prior or variant: its gain in fair CRPS over the standard
prior with most evaluations, by number of evaluations, then the deviation of its spectrum and its spread/skill. Brackets hold 95 % of
bootstrap samples of initial times; after the slash are the values of the seeds. Variants named `PRIOR, bnr R` are drawn against R in
OUT/NAME-bnr.png, with the prior itself at 0, where NAME is the name of the recipe.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

MEASURES = {"crps_gain_6h": ("gain in CRPS (%)", 100.0), "power_deviation_6h": ("deviation of the spectrum", 1.0)}


def setting_of(study: xr.Dataset, prior: str, nfe: int) -> xr.Dataset | None:
    """Return the best setting of a prior or variant with this number of evaluations; None if there is none."""
    chosen = (study["prior"] == prior) & (study["nfe"] == nfe) & study["best"]
    return study.isel(setting=int(chosen.values.argmax())) if chosen.any() else None


def cell(setting: xr.Dataset | None, name: str, digits: int, factor: float = 1.0, whole: bool = True) -> str:
    """Return a score as text, with its interval and the values of the seeds if ``whole``."""
    if setting is None or not np.isfinite(setting[name].item()):
        return ""
    mean = f"{factor * setting[name].item():.{digits}f}"
    if not whole:
        return mean
    low, high = (f"{factor * bound:.{digits}f}" for bound in setting[f"{name}_interval"].values)
    seeds = ", ".join(f"{factor * value:.{digits}f}" for value in setting[f"{name}_by_seed"].values)
    return f"{mean} [{low}, {high}] / {seeds}"


def table(study: xr.Dataset) -> None:
    """Print the table of a study."""
    numbers = sorted({int(nfe) for nfe in study["nfe"].values if nfe})
    few, most = numbers[0], numbers[-1]
    head = ["start, path", *(f"gain in CRPS, NFE {nfe}, %" for nfe in numbers)]
    head += [f"spectrum, NFE {few}", f"NFE {most}", f"spread/skill, NFE {few}", f"NFE {most}"]
    print(f"| {' | '.join(head)} |")
    print(f"|{'---|' * len(head)}")
    for prior in dict.fromkeys(study["prior"].values[study["nfe"].values > 0].tolist()):
        settings = {nfe: setting_of(study, prior, nfe) for nfe in numbers}
        row = [prior, *(cell(settings[nfe], "crps_gain_6h", 1, 100) for nfe in numbers)]
        row += [cell(settings[nfe], "power_deviation_6h", 3, whole=False) for nfe in (few, most)]
        row += [cell(settings[nfe], "spread_skill_6h", 2, whole=False) for nfe in (few, most)]
        print(f"| {' | '.join(row)} |")


def by_ratio(study: xr.Dataset) -> Figure | None:
    """Return sample quality by blur-to-noise ratio and number of evaluations, for each prior; None if the study has no such variants."""
    ratios = {prior: {0.0: prior} for prior in ("warm", "standard")}
    for name in dict.fromkeys(study["prior"].values.tolist()):
        if match := re.fullmatch(r"(warm|standard), bnr ([\d.]+)", name):
            ratios[match[1]][float(match[2])] = name
    if len(ratios["warm"]) < 3:
        return None
    numbers = sorted({int(nfe) for nfe in study["nfe"].values if nfe})
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey="row")
    for (row, measure), (column, prior) in ((one, other) for one in enumerate(MEASURES) for other in enumerate(ratios)):
        label, factor = MEASURES[measure]
        axis = axes[row, column]
        for number, nfe in enumerate(numbers):
            places = sorted(ratios[prior])
            settings = [setting_of(study, ratios[prior][ratio], nfe) for ratio in places]
            values = [np.nan if one is None else factor * one[measure].item() for one in settings]
            axis.plot(places, values, "o-", color="C0", alpha=0.3 + 0.7 * number / max(1, len(numbers) - 1), label=f"{nfe} evaluations")
        axis.grid(alpha=0.3)
        axis.set(title=f"from the {prior} prior" if row == 0 else "", ylabel=label if column == 0 else "")
        if row == 1:
            axis.set(xlabel="blur-to-noise ratio", yscale="log")
    gains = [line.get_ydata() for axis in axes[0] for line in axis.lines]
    axes[0, 0].set_ylim(max(np.nanmin(gains), -10) - 1, np.nanmax(gains) + 1)  # few evaluations of a strong blur are far below
    axes[0, 0].legend(fontsize=8)
    return figure


def main(out: Path, paths: list[Path]) -> None:
    """Print the tables and write the figures."""
    out.mkdir(parents=True, exist_ok=True)
    for path in paths:
        with xr.open_dataset(path, decode_timedelta=True) as study:
            name = json.loads(study.attrs["wsdcast"])["recipe"]["name"]
            print(f"Recipe {name}, hash {study.attrs['recipe_hash']}; seeds {study['seed'].values.tolist()}.")
            print(f"Gain: over {study.attrs['reference']}.")
            print()
            table(study.load())
            print()
            if figure := by_ratio(study):
                figure.savefig(out / f"{name}-bnr.png", dpi=110)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]])
