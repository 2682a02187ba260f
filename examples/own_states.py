"""Use the trained networks of a run in a loop of your own: an ensemble from any states and date, and what the networks predict on the way.

    python examples/own_states.py RUN

The states are an xarray data set on the grid of the record; here they are the last ones of RUN's record. They could be changed states, or
those of another model. Prints spread and extremes of the members by lead time, next to the spread that the moments network predicts for the
first step. For recipes without forcing variables (data.forcings).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from wsdcast.data.store.zarr_store import open_store
from wsdcast.runs import devices
from wsdcast.weather.forecast.autoregression import forecast
from wsdcast.weather.forecast.origin import of_run
from wsdcast.weather.samplers import noise_count_of, sampler_of

STEP = np.timedelta64(6, "h")


def ensemble(run: Path, states: xr.Dataset, noise: torch.Tensor) -> xr.Dataset:
    """Return the members (prediction_timedelta, number, latitude, longitude) of each variable, in its units.

    Args:
        run: run directory with trained networks.
        states: the state now and the states 6 h, ... before it, as many as the networks read, (time, latitude, longitude) in increasing
            time, on the record's grid: latitudes fall, and longitudes rise from 0.
        noise: standard normal, (step, number, channel, latitude, longitude).
    """
    trained = of_run(None, run, {}, None)
    record, networks, device = trained.record, trained.networks, devices.device()
    sampler = sampler_of(networks, trained.recipe.rollout)
    values = np.stack([states[name].transpose("time", "latitude", "longitude").values for name in record.variables], axis=1)
    normalised = torch.from_numpy(record.normalise(values).astype(np.float32)).to(device)
    members = noise.shape[1]
    # The networks read the state now first, then the states before it; every member has the same.
    context = [state.expand(members, -1, -1, -1) for state in normalised.flip(0)]
    now = states["time"].values[-1:]
    forcings = (networks.forcings.at(now + step * STEP).expand(members, -1, -1, -1) for step in range(len(noise)))
    with torch.inference_mode():
        _, std = networks.moments(torch.cat([*context, networks.forcings.at(now).expand(members, -1, -1, -1)], dim=1))
        print("predicted spread after 6 h:", std.mean(dim=(0, 2, 3)).cpu().numpy() * record.std)
        steps = [state.cpu().numpy() for state in forecast(sampler, context, noise.to(device), forcings)]
    fields = record.denormalise(np.stack(steps))
    dimensions = ("prediction_timedelta", "number", "latitude", "longitude")
    return xr.Dataset(
        {name: (dimensions, fields[:, :, channel]) for channel, name in enumerate(record.variables)},
        coords={"prediction_timedelta": STEP * np.arange(1, len(noise) + 1), "latitude": states.latitude, "longitude": states.longitude},
    )


def main(run: Path, members: int = 10, steps: int = 4) -> None:
    """Print the table for the last states of the record."""
    trained = of_run(None, run, {}, None)
    with open_store(run / "analysis.zarr") as record:
        states = record.isel(time=slice(-1 - trained.record.past_states, None)).load()
    channels = noise_count_of(trained.networks, trained.recipe.rollout) * len(trained.record.variables)
    drawn = ensemble(run, states, torch.randn(steps, members, channels, *trained.record.grid.shape))
    for name, field in drawn.items():
        print(name)
        for lead in field:
            hours = lead.prediction_timedelta.values / np.timedelta64(1, "h")
            print(f"  {hours:3.0f} h  spread {float(lead.std('number').mean()):6.2f}  {float(lead.min()):6.1f} to {float(lead.max()):6.1f}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
