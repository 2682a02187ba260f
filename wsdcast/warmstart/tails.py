"""The tails of normalised data (appendix D). The prior N(0, 1) has almost no mass where they are heavy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wsdcast.warmstart.prior import InformedPrior

WARMTHS = (0.0, 0.5, 0.9, 1.0)
AS_THEY_ARE = "as they are"
"""Label of the values before normalisation."""
SHARE, FAR = 0.999, 4.0
"""For N(0, 1) this share of the values is within 3.29 of 0, and 0.006 % are farther than 4."""
EDGES = np.linspace(-12, 12, 241)
"""Edges of the bins. Values outside are counted in the first and the last bin."""


@dataclass(frozen=True)
class Tails:
    """Measures of the tails of a set of values.

    Attributes:
        kurtosis: fourth central moment over the squared variance; 3 for every Gaussian, NaN if all values are equal.
        within: the 99.9 % quantile of the absolute values; 3.29 for N(0, 1).
        beyond: the share of values farther than 4 from 0.
        density: probability density in the bins between :data:`EDGES`.
    """

    kurtosis: float
    within: float
    beyond: float
    density: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[np.floating]) -> Tails:
        """The tails of at least one value, in an array of any shape."""
        flat = values.astype(np.float64).ravel()
        distance, width = np.abs(flat), EDGES[1] - EDGES[0]
        squares = np.square(flat - flat.mean())
        kurtosis = np.square(squares).mean() / squares.mean() ** 2 if squares.any() else np.nan
        count = np.histogram(flat.clip(EDGES[0], EDGES[-1]), EDGES)[0]
        return cls(float(kurtosis), float(np.quantile(distance, SHARE)), float((distance > FAR).mean()), count / (flat.size * width))

    def __str__(self) -> str:
        """One line for summaries."""
        return f"kurtosis {self.kurtosis:.3g}, 99.9 % within {self.within:.3g}, {100 * self.beyond:.2g} % beyond 4"


def tails_of(parts: Iterable[tuple[InformedPrior, Tensor, Tensor | None]]) -> dict[str, Tails]:
    """Tails of data before normalisation, then normalised at each of :data:`WARMTHS`.

    Args:
        parts: for each batch the prior at full warmth, the target (batch, channel, ...), and a mask of the values that are counted, of a
            shape that broadcasts to that of the target; None: all.
    """
    parts_by_name: dict[str, list[NDArray[np.float32]]] = {}
    for prior, target, counted in parts:
        normalised = {f"w = {warmth:g}": prior.blended(target.new_full((1,), warmth)).normalise(target) for warmth in WARMTHS}
        for name, values in ({AS_THEY_ARE: target} | normalised).items():
            selected = values if counted is None else values[counted.expand_as(values)]
            parts_by_name.setdefault(name, []).append(selected.flatten().float().cpu().numpy())
    return {name: Tails.of(np.concatenate(values)) for name, values in parts_by_name.items()}
