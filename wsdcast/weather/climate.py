"""Statistics of the training split: the climatology at each point, the change in 6 h, and the amplitude of zonal waves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsdcast.data.store.analysis import Analysis
from wsdcast.runs.errors import UserError
from wsdcast.warmstart.moments import MINIMUM_STD

STATES_IN_MEMORY = 64
"""States that are in memory at a time."""

SMALLEST_SHARE = 1 / 40
"""Lower bound of a predicted standard deviation, as a share of the change in 6 h. 10 m wind changes by 0.4 to 0.6 of its standard deviation
in 6 h (GFS), so for it the bound of the paper is lower. 2 m temperature changes by 0.12, and geopotential and snow by less; their errors
are smaller than the paper's bound."""
ROUNDING = 1e-4
"""Size of the unit of the integers in which a record is stored, in normalised units. No standard deviation needs to be smaller."""


def climatology(record: Analysis) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the normalised training split at each point, each (variable, latitude, longitude).

    Sums are in double precision. Only :data:`STATES_IN_MEMORY` states are in memory at a time.
    """
    count, (total, squares) = record.part("train").sum(), np.zeros((2, *record.states.shape[1:]))
    for single in _training_states(record):
        states = single.astype(np.float64)
        total += states.sum(axis=0)
        squares += (states**2).sum(axis=0)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, MINIMUM_STD**2))
    forecast = slice(len(record.variables))
    return torch.from_numpy(mean[forecast].astype(np.float32)), torch.from_numpy(std[forecast].astype(np.float32))


def change_std(record: Analysis) -> Tensor:
    """Root mean square change of normalised states in 6 h, (variable, 1, 1), from the statistics of the store.

    Raises:
        UserError: if the store does not have it, because an older version prepared it or no two states are 6 h apart.
    """
    change = _change(record)
    if unknown := [name for name, value in zip(record.variables, change, strict=True) if not np.isfinite(value)]:
        raise UserError(f"the store does not have the size of the change in 6 h of {', '.join(unknown)}; prepare again, in another --run")
    return torch.from_numpy(change.clip(min=ROUNDING))[:, None, None]


def minimum_std(record: Analysis) -> tuple[float, ...]:
    """Return the lower bound of the predicted standard deviation of each channel that is forecast, in normalised units.

    It is that of the paper, or lower for a channel that changes little in 6 h (:data:`SMALLEST_SHARE`). If the change is not known, it is
    that of the paper.
    """
    return tuple(np.fmin(SMALLEST_SHARE * _change(record), MINIMUM_STD).clip(min=ROUNDING).tolist())


def _change(record: Analysis) -> NDArray[np.float32]:
    """Return the root mean square change of normalised states in 6 h, (variable,); NaN where the store does not have it."""
    return (record.difference_std / record.std)[: len(record.variables)]


def zonal_amplitude(record: Analysis) -> Tensor:
    """Root mean square of the zonal Fourier coefficients of normalised states, over the training split and the area.

    Returns:
        (variable, wavenumber), for orthonormal waves.
    """
    weights = record.grid.area_weights[:, None]
    total = np.zeros((record.states.shape[1], record.grid.shape[1] // 2 + 1))
    for states in _training_states(record):
        total += (weights * np.abs(np.fft.rfft(states, norm="ortho")) ** 2).mean(axis=2).sum(axis=0)
    return torch.from_numpy(np.sqrt(total / record.part("train").sum())[: len(record.variables)].astype(np.float32))


def _training_states(record: Analysis) -> Iterator[NDArray[np.float32]]:
    """Yield the normalised states of the training split, at most :data:`STATES_IN_MEMORY` at a time."""
    indices = np.flatnonzero(record.part("train"))
    for first in range(0, indices.size, STATES_IN_MEMORY):
        yield record.normalise(record.states[indices[first : first + STATES_IN_MEMORY]])
