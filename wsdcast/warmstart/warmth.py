"""The warmth for sampling on contexts where the moments network is overconfident."""

from __future__ import annotations

from torch import Tensor

from wsdcast.warmstart.prior import InformedPrior

BISECTIONS = 10
"""They find the warmth to 1/1024."""


def calibrated_warmth(prior: InformedPrior, target: Tensor, counted: Tensor | None = None) -> float:
    """Return the largest warmth at which the blended prior is wide enough for the errors of the predicted mean.

    Wide enough means that the mean square of the normalised target is at most 1. The paper samples at w = 1 throughout. On contexts unlike
    those of training, a moments network makes larger errors than its standard deviation says, and generation then starts too close to a
    wrong mean. A lower warmth widens the prior (Eq. 4), and the generator was trained at every warmth.

    The warmth is found by bisection of [0, 1], because the mean square grows with w. It is 1 if the prior is wide enough at w = 1.

    Args:
        prior: the prior of contexts that no network was trained on, at full warmth, (batch, channel, ...).
        target: the data that belong to the contexts, of the same shape.
        counted: True where a value counts, of a shape that broadcasts to that of the target: where the context does not show the target.
            Default: all values count.

    Returns:
        w, to 1/1024.
    """

    def is_wide_enough(warmth: float) -> bool:
        squares = prior.blended(target.new_full((1,), warmth)).normalise(target).square()
        return bool((squares if counted is None else squares[counted.expand_as(squares)]).mean() <= 1)

    if is_wide_enough(1.0):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_wide_enough(middle) else (low, middle)
    return low
