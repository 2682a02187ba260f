"""Print the solvers and grids in time of a study side by side, as Markdown tables.

    wsdcast study nfe --recipe planet --run RUN --priors warm,standard --ablations '' --rollout-nfe '' --nfe 2,4,6,10 \\
        --solvers midpoint,euler,ab2,dpm2,dpm3 --grids-in-time uniform,log-snr
    python examples/solver_tables.py RUN/study.nc

Each cell has the fair CRPS at 6 h and, in parentheses, the mean deviation of the spectrum, averaged over the seeds. Bold marks the best
CRPS for each prior and number of evaluations, and every other that is at least as good with one seed or more (dates and noise are the
same).
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
        settings = study.isel(setting=((study["prior"] == prior) & (study["nfe"] > 0)).values)
        crps = settings["crps_6h_by_seed"].values
        best = {
            nfe: crps[settings["nfe"].values == nfe][settings["crps_6h"].values[settings["nfe"].values == nfe].argmin()] for nfe in numbers
        }
        print(f"\n| {prior} | {' | '.join(f'{nfe} evaluations' for nfe in numbers)} |\n|{'---|' * (len(numbers) + 1)}")
        for solver, grid in dict.fromkeys(zip(settings["solver"].values, settings["grid_in_time"].values, strict=True)):
            cells = []
            for nfe in numbers:
                indices = np.flatnonzero((settings["solver"] == solver) & (settings["grid_in_time"] == grid) & (settings["nfe"] == nfe))
                if not indices.size:
                    cells.append("")
                    continue
                differences = crps[indices[0]] - best[nfe]
                # Bold unless it is worse than the best with every seed.
                mark = "**" if differences.min() <= 0 else ""
                deviation = settings["power_deviation_6h"].values[indices[0]]
                cells.append(f"{mark}{crps[indices[0]].mean():.4f}{mark} ({deviation:.3f})")
            print(f"| {solver}, {grid} | {' | '.join(cells)} |")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with xr.open_dataset(Path(sys.argv[1])) as opened:
        print(f"Recipe {opened.attrs['title'].split()[-1]}, hash {opened.attrs['recipe_hash']}; seeds {opened['seed'].values.tolist()}.")
        tables(opened)
