"""The tails of the data before and after conditional normalisation (appendix D).

Normalisation removes the mean and the standard deviation, and what remains has heavier tails than a Gaussian. The prior N(0, 1) has almost
no probability in those tails. Warmth blending (Eq. 4) is the paper's remedy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wsdcast.warmstart.prior import InformedPrior

WARMTHS = (0.0, 0.5, 0.9, 1.0)
AS_THEY_ARE = "as they are"
"""The name of the values before normalisation, in the results of :func:`tails_of`."""
SHARE, FAR = 0.999, 4.0
"""The share of values that :attr:`Tails.within` covers, and the distance of :attr:`Tails.beyond`. For N(0, 1), the share lies within 3.29,
and 0.006 % lies beyond 4."""
EDGES = np.linspace(-12, 12, 241)
"""The edges of the bins of :attr:`Tails.density`. Values outside are counted in the first and the last bin."""


@dataclass(frozen=True)
class Tails:
    """Measures of the tails of a set of values.

    Attributes:
        kurtosis: the fourth central moment divided by the squared variance. It is 3 for every Gaussian, and NaN if all values are equal.
        within: the 99.9th percentile of the absolute values; 3.29 for N(0, 1).
        beyond: the share of values whose absolute value is larger than 4.
        density: the density in each bin between :data:`EDGES`, (240,).
    """

    kurtosis: float
    within: float
    beyond: float
    density: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[np.floating]) -> Tails:
        """Return the tails of values of any shape; there must be at least one value."""
        flat = values.astype(np.float64).ravel()
        magnitude, width = np.abs(flat), EDGES[1] - EDGES[0]
        squares = np.square(flat - flat.mean())
        kurtosis = np.square(squares).mean() / squares.mean() ** 2 if squares.any() else np.nan
        count = np.histogram(flat.clip(EDGES[0], EDGES[-1]), EDGES)[0]
        return cls(float(kurtosis), float(np.quantile(magnitude, SHARE)), float((magnitude > FAR).mean()), count / (flat.size * width))

    def __str__(self) -> str:
        """Return kurtosis, ``within`` and ``beyond`` in words."""
        return f"kurtosis {self.kurtosis:.3g}, 99.9 % within {self.within:.3g}, {100 * self.beyond:.2g} % beyond 4"


def tails_of(parts: Iterable[tuple[InformedPrior, Tensor, Tensor | None]]) -> dict[str, Tails]:
    """Return the tails of targets before normalisation and normalised at each of :data:`WARMTHS`, by name, in this order.

    Args:
        parts: for each batch of contexts, their prior at full warmth; the targets, (batch, channel, ...); and a mask of the values that
            count, of a shape that broadcasts to that of the targets, or None if all values count.
    """
    values_by_name: dict[str, list[NDArray[np.float32]]] = {}
    for prior, target, counted in parts:
        normalised = {f"w = {warmth:g}": prior.blended(target.new_full((1,), warmth)).normalise(target) for warmth in WARMTHS}
        for name, values in ({AS_THEY_ARE: target} | normalised).items():
            chosen = values if counted is None else values[counted.expand_as(values)]
            values_by_name.setdefault(name, []).append(chosen.flatten().float().cpu().numpy())
    return {name: Tails.of(np.concatenate(values)) for name, values in values_by_name.items()}
