"""How heavy the tails are that normalisation leaves (appendix D): the prior N(0, 1) has next to nothing where they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wsdcast.warmstart.prior import InformedPrior

WARMTHS = (0.0, 0.5, 0.9, 1.0)
AS_THEY_ARE = "as they are"
"""Values before normalisation, beside those normalised at each warmth."""
SHARE, FAR = 0.999, 4.0
"""Of N(0, 1) this share lies within 3.29, and 0.006 % beyond four."""
EDGES = np.linspace(-12, 12, 241)
"""Of bins; what lies beyond is counted in the first and the last."""


@dataclass(frozen=True)
class Tails:
    """Of some values.

    Attributes:
        kurtosis: fourth central moment over the squared variance; 3 for a Gaussian, whatever its width; NaN if all values are the same.
        within: 99.9 % of their absolute values are no larger; 3.29 for N(0, 1).
        beyond: share of them that are farther than 4 from 0.
        density: in the bins between :data:`EDGES`.
    """

    kurtosis: float
    within: float
    beyond: float
    density: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[np.floating]) -> Tails:
        """Those of any values, of any shape, at least one."""
        flat = values.astype(np.float64).ravel()
        away, width = np.abs(flat), EDGES[1] - EDGES[0]
        squares = np.square(flat - flat.mean())
        kurtosis = np.square(squares).mean() / squares.mean() ** 2 if squares.any() else np.nan
        count = np.histogram(flat.clip(EDGES[0], EDGES[-1]), EDGES)[0]
        return cls(float(kurtosis), float(np.quantile(away, SHARE)), float((away > FAR).mean()), count / (flat.size * width))

    def __str__(self) -> str:
        """In words."""
        return f"kurtosis {self.kurtosis:.3g}, 99.9 % within {self.within:.3g}, {100 * self.beyond:.2g} % beyond 4"


def tails_of(parts: Iterable[tuple[InformedPrior, Tensor, Tensor | None]]) -> dict[str, Tails]:
    """Tails of data as they are and normalised at each of :data:`WARMTHS`, in this order.

    Args:
        parts: the prior of some contexts at full warmth, what followed, (batch, channel, ...), and which of its values count, of a shape
            that broadcasts to that; all if None.
    """
    found: dict[str, list[NDArray[np.float32]]] = {}
    for prior, target, counted in parts:
        normalised = {f"w = {warmth:g}": prior.blended(target.new_full((1,), warmth)).normalise(target) for warmth in WARMTHS}
        for name, values in ({AS_THEY_ARE: target} | normalised).items():
            chosen = values if counted is None else values[counted.expand_as(values)]
            found.setdefault(name, []).append(chosen.flatten().float().cpu().numpy())
    return {name: Tails.of(np.concatenate(values)) for name, values in found.items()}
