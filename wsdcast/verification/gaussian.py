"""Score of a forecast that is a Gaussian at each point, such as one step of the moments network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

Field = NDArray[np.floating]


def gaussian_crps(mean: Field, std: Field, truth: Field) -> Field:
    """CRPS of N(mean, std^2) in closed form (Gneiting and Raftery 2007, Eq. 21), in the unit of the truth; any shapes that broadcast.

    With z = (y - mean) / std it is std (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)); where std is 0, the absolute error.
    """
    error = truth - mean
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(error == 0, 0, error / std)
    return error * erf(z / np.sqrt(2)) + std * (np.sqrt(2 / np.pi) * np.exp(-(z**2) / 2) - 1 / np.sqrt(np.pi))
