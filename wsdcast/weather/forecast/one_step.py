"""The Gaussians that the moments model predicts one step after states of a record."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.store.analysis import Analysis
from wsdcast.data.variables import variable
from wsdcast.runs import devices
from wsdcast.sampling.threads import side_by_side
from wsdcast.warmstart.prior import InformedPrior, frozen_prior
from wsdcast.weather.trained import Trained


def prior_at(networks: Trained, record: Analysis, start: np.intp) -> InformedPrior:
    """The Gaussian that the moments predict 6 h after a time of the record, normalised, (1, variable, latitude, longitude).

    Args:
        networks: the trained networks.
        record: has the states at that time, and the past states that the networks read.
        start: index of the time in the record.
    """
    count = len(record.variables)
    states = torch.from_numpy(record.normalise(record.states[start - record.past_states : start + 1])).to(devices.device()).flip(0)
    forcings = networks.forcings.at(record.times[start : start + 1])
    return frozen_prior(networks.moments)(torch.cat([states[:, :count].flatten(0, 1)[None], forcings, states[:1, count:]], dim=1))


def one_step(networks: Trained, record: Analysis, starts: NDArray[np.intp], variables: tuple[str, ...]) -> dict[str, xr.DataArray]:
    """The Gaussian that the moments predict 6 h after each initial time, in the units of the variables.

    Args:
        networks: the trained networks.
        record: has the states at the initial times, and the past states that the networks read.
        starts: indices of the initial times in the record, (start,).
        variables: the variables that are returned.

    Returns:
        For each variable ``<name>_mean`` and ``<name>_std``, (time, latitude, longitude), in its units.
    """
    count = len(record.variables)
    offset, scale = record.mean[:count, None, None], record.std[:count, None, None]

    def fields_of(start: np.intp) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        prior = prior_at(networks, record, start)
        mean, std = (field[0].float().cpu().numpy() for field in (prior.mean, prior.std))
        return mean * scale + offset, std * scale

    with devices.eagerly():
        fields_by_start = side_by_side(fields_of, starts, devices.device())
    return {
        f"{name}_{moment}": xr.DataArray(
            np.stack([fields[number][record.variables.index(name)] for fields in fields_by_start]),
            dims=("time", "latitude", "longitude"),
            attrs={"units": variable(name).units, "long_name": f"{moment} of {name.replace('_', ' ')} 6 h after the initial time"},
        )
        for name in variables
        for number, moment in enumerate(("mean", "std"))
    }
