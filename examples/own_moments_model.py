"""Use your own moments model instead of the network: a ridge regression at each grid point, on a tiny planet.

    python examples/own_moments_model.py RUN

A moments model is any function ``h(context) -> mean, std``. The context (batch, channel, latitude, longitude) is the wind now and 6 h
before. Mean and std are those of u and v 6 h later. All are in units of the wind's own standard deviation. The generator is trained to
start from N(mean, std) and gets both as inputs. Prints fair CRPS by lead time, also for the regression without a generator ("moments,
past errors").
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import xarray as xr
from torch import Tensor

import wsdcast
from wsdcast.data.store.analysis import Analysis, open_analysis
from wsdcast.warmstart.prior import Moments

SMALL = {
    "name": "ridge",
    "data__grid": "16x8",
    "data__days": 100,
    "generator__objective": "flow",
    "generator__widths": [8, 8],
    "generator__steps": 200,
}


def predictors(context: Tensor) -> Tensor:
    """Return the predictors of each point: its u and v, now and 6 h before, and a constant, (latitude, longitude, batch, 5)."""
    return torch.cat([context[:, :4], torch.ones_like(context[:, :1])], dim=1).permute(2, 3, 0, 1)


def ridge(record: Analysis, penalty: float = 10.0) -> Moments:
    """Return the regression fitted to the training split. Its std is that of its errors on this split, the same for all states."""
    now = record.now("train")
    before, current, after = (torch.from_numpy(record.normalise(record.states[now + step])) for step in (-1, 0, 1))
    x, y = predictors(torch.cat([current, before], dim=1)), after.permute(2, 3, 0, 1)
    weights = torch.linalg.solve(x.mT @ x + penalty * torch.eye(5), x.mT @ y)  # (latitude, longitude, 5, 2)
    std = (y - x @ weights).std(dim=2).permute(2, 0, 1)

    def moments(context: Tensor) -> tuple[Tensor, Tensor]:
        mean = (predictors(context) @ weights.to(context)).permute(2, 3, 0, 1)
        return mean, std.to(context).expand_as(mean)

    return moments


def main(run: Path) -> None:
    """Run the stages that are missing in a run directory, and print the scores."""
    wsdcast.prepare(wsdcast.load_recipe("planet").changed(**SMALL), run)
    model = ridge(open_analysis(run / "analysis.zarr"))
    wsdcast.train(run=run, prior="given", moments=model)
    wsdcast.rollout(run=run, moments=model, members=10, nfe=4, starts=4, days=1)
    wsdcast.score(run=run)
    with xr.open_dataset(run / "scores.nc", decode_timedelta=True) as scores:
        crps = scores["crps_fair"].sel(variable="both", region="globe", drop=True)
        print(crps.transpose("prediction_timedelta", "forecast").to_pandas().round(3).to_string())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
