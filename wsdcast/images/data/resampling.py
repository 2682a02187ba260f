"""Bootstrap samples of contexts: images are independent of one another, what is made for one of them is not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsdcast.verification.bootstrap import DRAWS


def context_weights(contexts: int, draws: int = DRAWS) -> NDArray[np.float64]:
    """Share of each context in bootstrap samples of as many (Efron 1979), (draw, context), each row of sum 1."""
    return np.random.default_rng(0).multinomial(contexts, np.full(contexts, 1 / contexts), size=draws) / contexts
