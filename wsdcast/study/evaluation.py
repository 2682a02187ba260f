"""Ensembles from many start dates at once, reduced to statistics as they are made."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from wsdcast import models
from wsdcast.data.analysis import STEP, Analysis
from wsdcast.data.blocks import STRONGEST_WIND
from wsdcast.data.store import VARIABLES
from wsdcast.ensemble import Sampler, batch_size, forecast, in_batches, member_noise
from wsdcast.errors import UserError
from wsdcast.priors import Trained
from wsdcast.progress import track
from wsdcast.verification.statistics import statistics


@torch.inference_mode()
def evaluate(
    record: Analysis,
    networks: Trained,
    sampler: Sampler,
    starts: NDArray[np.intp],
    leads: tuple[int, ...],
    members: int,
    seed: int,
    label: str = "forecasting",
    batch: int | None = None,
) -> xr.Dataset:
    """Statistics of ensembles, (time, prediction_timedelta, variable[, wavenumber]).

    ``runaway`` is the share of members that have had winds that no wind has.

    Args:
        record: truth and first states.
        networks: for what contexts have beside the wind.
        sampler: makes the next state.
        starts: indices of the record.
        leads: hours that are scored.
        members: of each ensemble.
        seed: of their noise.
        label: for the progress bar.
        batch: samples per call of the sampler; default: what suits the device.

    Raises:
        UserError: if a forecast is no longer finite.
    """
    device = models.device()
    sampler = in_batches(sampler, batch or batch_size(record.grid.latitude.size * record.grid.longitude.size, device))
    steps, shape = max(leads) // 6, record.wind.shape[1:]
    first = torch.from_numpy(record.normalise(np.stack([record.wind[starts - 1], record.wind[starts]]))).to(device)
    before, now = first.repeat_interleave(members, dim=1)
    times = np.repeat(record.times[starts], members)
    around = (networks.beside.at(times + lead * STEP) for lead in range(steps))
    noises = zip(*(member_noise(seed, record.times[start], members, steps, shape) for start in starts), strict=True)
    states = forecast(sampler, now, before, (torch.cat(noise).to(device) for noise in noises), around)
    parts: list[list[dict[str, NDArray[np.floating]]]] = [[] for _ in starts]
    runaway = np.zeros((starts.size, members), dtype=bool)
    for lead, state in enumerate(track(states, label, steps), start=1):
        if not torch.isfinite(state).all():
            raise UserError(f"{label}: a forecast is no longer finite at {6 * lead} h")
        ensembles = record.denormalise(state.cpu().numpy()).reshape(starts.size, members, 1, *shape)
        runaway |= np.abs(ensembles).max(axis=(2, 3, 4, 5)) > STRONGEST_WIND
        if 6 * lead not in leads:
            continue
        for part, start, ensemble, away in zip(parts, starts, ensembles, runaway, strict=True):
            share = np.full((1, len(VARIABLES)), away.mean())
            part.append(statistics(ensemble, record.wind[start + lead][None], record.grid) | {"runaway": share})
    axes = ("time", "prediction_timedelta", "variable")
    fields = {
        name: ((*axes, "wavenumber")[: first_value.ndim + 1], np.stack([np.concatenate([at[name] for at in part]) for part in parts]))
        for name, first_value in parts[0][0].items()
    }
    coordinates = {
        "time": record.times[starts],
        "prediction_timedelta": (np.array(leads) * np.timedelta64(1, "h")).astype("timedelta64[ns]"),
        "variable": list(VARIABLES),
        "wavenumber": np.arange(record.grid.longitude.size // 2 + 1),
    }
    return xr.Dataset(fields, coords=coordinates)
