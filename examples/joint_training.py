"""Compare joint training of both networks with separate training.

    python examples/joint_training.py OUT

It uses the planet of ``where_the_warm_start_pays.py`` with the recipe's stirring, equal training cost (joint training takes fewer steps,
because each costs more), three seeds, and one step ahead. Prints fair CRPS and the deviation of the spectrum, with the gain over separate
training (``apart``), as mean over the seeds and from lowest to highest. Continues where it was stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from where_the_warm_start_pays import EVALUATIONS, recipe_of

import wsdcast

WAYS: dict[str, dict[str, Any]] = {
    "apart": {},
    "joint": {"generator__moments": "joint"},
    "end-to-end": {"generator__moments": "end-to-end"},
}
"""Changes of the recipe, by name."""


def main(out: Path) -> None:
    """Run the studies that are missing, and print the table."""
    print("| way | evaluations | CRPS 6 h, m/s | CRPS gain, % | spread/skill | spectrum's deviation | spectrum gain, % |")
    print("|---|---|---|---|---|---|---|")
    apart: dict[tuple[str, int], np.ndarray[Any, Any]] = {}
    for way, changes in WAYS.items():
        recipe = recipe_of(0.35).changed(name=way, study__priors=("warm",), **changes)
        wsdcast.prepare(recipe, out / way)
        wsdcast.study_nfe(recipe, out / way)
        with xr.open_dataset(out / way / "study.nc") as study:
            for nfe in EVALUATIONS:
                setting = study.isel(setting=int(((study["prior"] == "warm") & (study["nfe"] == nfe)).values.argmax()))
                cells = []
                for name in ("crps_6h", "power_deviation_6h"):
                    values = setting[f"{name}_by_seed"].values
                    gains = 100 * (1 - values / apart.setdefault((name, nfe), values))
                    cells.append(f"{values.mean():.4f} | {gains.mean():+.1f} ({gains.min():+.1f} to {gains.max():+.1f})")
                print(f"| {way} | {nfe} | {cells[0]} | {setting['spread_skill_6h'].item():.3f} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
