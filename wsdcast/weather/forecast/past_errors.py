"""Past errors of the moments network, from which an ensemble without a generator gets its noise."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wsdcast.data.store.analysis import Analysis
from wsdcast.runs import devices
from wsdcast.runs.errors import UserError
from wsdcast.runs.positions import evenly_spread
from wsdcast.sampling.threads import side_by_side
from wsdcast.weather.forecast.one_step import prior_at
from wsdcast.weather.trained import Trained

MOST = 100
"""The most errors that are used. With N independent ones the CRPS of one step is higher by 1 / (8 N): 0.1 % with 100
(docs/results/one-evaluation.md)."""


def require_errors(record: Analysis) -> None:
    """Raise a UserError if a forecast without a generator cannot have its noise because the record has no validation split."""
    if not record.now("validation").size:
        raise UserError("generator.objective none: the noise is made from past errors on the validation split, and the record has none")


def past_errors(networks: Trained, record: Analysis) -> Tensor:
    """Return (target - mean) / std of samples that are spread evenly over the validation split.

    No network was trained on this split. There are at most :data:`MOST` errors, and no more than a state has numbers.

    Args:
        networks: their moments predict mean and std of the state 6 h later.
        record: the record that they were trained on.

    Returns:
        (error, variable, latitude, longitude), on the device; no errors if the split has no sample.
    """
    now, shape = record.now("validation"), (len(record.variables), *record.grid.shape)
    chosen = now[evenly_spread(now.size, min(MOST, torch.Size(shape).numel()))]

    def error_of(start: np.intp) -> Tensor:
        target = torch.from_numpy(record.normalise(record.states[start + 1])[: shape[0]])
        return prior_at(networks, record, start).normalise(target.to(devices.device())[None])[0]

    with devices.eagerly():
        errors = side_by_side(error_of, chosen, devices.device())
    return torch.stack(errors) if errors else torch.empty(0, *shape, device=devices.device())
