"""The warmth for sampling on contexts where the moments network is overconfident."""

from __future__ import annotations

from torch import Tensor

from wsdcast.runs.errors import UserError
from wsdcast.warmstart.prior import InformedPrior

STEPS, BISECTIONS = 32, 5
"""The warmth is found to 1/32 by steps, then to 1/1024 by bisection."""


def calibrated_warmth(prior: InformedPrior, target: Tensor, counted: Tensor | None = None) -> float:
    """Return the largest warmth at which the blended prior is wide enough for the errors of the predicted mean.

    Wide enough means that the mean square of the normalised target is at most 1. The paper samples at w = 1 throughout. On contexts unlike
    those of training, a moments network makes larger errors than its standard deviation says, and generation then starts too close to a
    wrong mean. A lower warmth widens the prior (Eq. 4), and the generator was trained at every warmth.

    The mean square need not grow with w, because a lower warmth narrows a standard deviation above 1. So w goes down from 1 in steps of
    1/32 to the first that is wide enough, and the last step is bisected. If none is, the result is the step with the smallest mean square.

    Args:
        prior: the prior of contexts that no network was trained on, at full warmth, (batch, channel, ...).
        target: the data that belong to the contexts, of the same shape.
        counted: True where a value counts, of a shape that broadcasts to that of the target: where the context does not show the target.
            Default: all values count.

    Returns:
        w, to 1/1024.

    Raises:
        UserError: if no value counts.
    """
    if not (target.numel() if counted is None else counted.any()):
        raise UserError("the warmth cannot be calibrated: no value counts")

    def mean_square(warmth: float) -> float:
        squares = prior.blended(target.new_full((1,), warmth)).normalise(target).square()
        return float((squares if counted is None else squares[counted.expand_as(squares)]).mean())

    tried: dict[float, float] = {}
    for step in range(STEPS, -1, -1):
        tried[step / STEPS] = mean_square(step / STEPS)
        if tried[step / STEPS] <= 1:
            break
    else:
        return min(tried, key=tried.__getitem__)
    if step == STEPS:
        return 1.0
    low, high = step / STEPS, (step + 1) / STEPS
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_square(middle) <= 1 else (low, middle)
    return low
