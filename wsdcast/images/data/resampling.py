"""Bootstrap samples of contexts. Images are independent of one another; samples for the same image are not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def context_weights(contexts: int, draws: int) -> NDArray[np.float64]:
    """Return the weight of each context in bootstrap samples of the same size (Efron 1979), (draw, context). Each row has the sum 1."""
    return np.random.default_rng(0).multinomial(contexts, np.full(contexts, 1 / contexts), size=draws) / contexts
