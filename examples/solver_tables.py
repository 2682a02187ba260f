"""Solvers and grids in time of a study, side by side, as Markdown.

    wsdcast study nfe --recipe planet --run RUN --priors warm,standard --ablations '' --rollout-nfe '' --nfe 2,4,6,10 \\
        --solvers midpoint,euler,ab2,dpm2,dpm3 --grids-in-time uniform,log-snr
    python examples/solver_tables.py RUN/study.nc

Fair CRPS at 6 h by number of evaluations, and in parentheses the spectrum's mean deviation, mean over the seeds. Bold: the best CRPS of
a prior and number, and those that are not worse with every seed (dates and noise are the same).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import xarray as xr


def tables(study: xr.Dataset) -> None:
    """Print one table for each prior."""
    numbers = sorted({int(nfe) for nfe in study["nfe"].values if nfe})
    for prior in dict.fromkeys(study["prior"].values[study["nfe"].values > 0]):
        mine = study.isel(setting=((study["prior"] == prior) & (study["nfe"] > 0)).values)
        crps = mine["crps_6h_by_seed"].values
        best = {nfe: crps[mine["nfe"].values == nfe][mine["crps_6h"].values[mine["nfe"].values == nfe].argmin()] for nfe in numbers}
        print(f"\n| {prior} | {' | '.join(f'{nfe} evaluations' for nfe in numbers)} |\n|{'---|' * (len(numbers) + 1)}")
        for solver, grid in dict.fromkeys(zip(mine["solver"].values, mine["grid_in_time"].values, strict=True)):
            cells = []
            for nfe in numbers:
                where = np.flatnonzero((mine["solver"] == solver) & (mine["grid_in_time"] == grid) & (mine["nfe"] == nfe))
                if not where.size:
                    cells.append("")
                    continue
                differences = crps[where[0]] - best[nfe]
                # As good as the best, if it is not worse with every seed.
                mark = "**" if differences.min() <= 0 else ""
                deviation = mine["power_deviation_6h"].values[where[0]]
                cells.append(f"{mark}{crps[where[0]].mean():.4f}{mark} ({deviation:.3f})")
            print(f"| {solver}, {grid} | {' | '.join(cells)} |")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with xr.open_dataset(Path(sys.argv[1])) as opened:
        print(f"Recipe {opened.attrs['title'].split()[-1]}, hash {opened.attrs['recipe_hash']}; seeds {opened['seed'].values.tolist()}.")
        tables(opened)
