"""Run the four stages from Python on a tiny planet, in about a minute, and open the results with xarray.

    python examples/quick_start.py RUN

Prints fair CRPS by lead time, for the forecast and the baselines. The networks are too small for useful forecasts; those need the recipe
``planet`` without the changes below.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import xarray as xr

import wsdcast

SMALL = {
    "name": "quick",
    "data__grid": "16x8",
    "data__days": 100,
    "moments__widths": [8, 8],
    "moments__steps": 200,
    "generator__objective": "flow",
    "generator__widths": [8, 8],
    "generator__steps": 200,
}
"""Changes of the recipe, as ``section__key``; sections and keys are those of its YAML file."""


def main(run: Path) -> None:
    """Run the stages that are missing in a run directory, and print the scores."""
    wsdcast.prepare(wsdcast.load_recipe("planet").changed(**SMALL), run)
    wsdcast.train(run=run)  # uses the recipe that is stored in the run directory
    wsdcast.rollout(run=run, members=10, nfe=4, starts=4, days=1)
    wsdcast.score(run=run)

    with xr.open_zarr(run / "forecast.zarr", decode_timedelta=True) as forecast:
        print(dict(forecast.sizes))
        speed = np.hypot(forecast["10m_u_component_of_wind"], forecast["10m_v_component_of_wind"])
        print(f"strongest wind of all members: {float(speed.max()):.1f} m/s")
    with xr.open_dataset(run / "scores.nc", decode_timedelta=True) as scores:
        crps = scores["crps_fair"].sel(variable="both", region="globe", drop=True)
        print(crps.transpose("prediction_timedelta", "forecast").to_pandas().round(3).to_string())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
