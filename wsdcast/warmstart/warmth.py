"""The warmth at which overconfident moments are calibrated."""

from __future__ import annotations

from torch import Tensor

from wsdcast.warmstart.prior import InformedPrior

HALVINGS = 10


def calibrated_warmth(prior: InformedPrior, target: Tensor, unknown: Tensor | None = None) -> float:
    """The largest warmth at which the errors of the mean are not larger than the blended standard deviation.

    The paper samples at w = 1 throughout. On contexts unlike those of the training a moments network is overconfident, and generation
    starts too near to a wrong mean. A lower warmth widens the prior (Eq. 4), and the generator is trained at every warmth. The
    standardised error falls as w falls, so the search halves [0, 1]. Calibrated moments give 1.

    Args:
        prior: the prior at full warmth of contexts that no network was trained on, (batch, channel, ...).
        target: their targets, of the same shape.
        unknown: a mask of the values that the context does not show, of a shape that broadcasts to that of the target. Other values are
            not counted. Default: all are counted.

    Returns:
        w, to 1/1024.
    """

    def trusted(warmth: float) -> bool:
        standardised = prior.blended(target.new_full((1,), warmth)).normalise(target)
        squares = standardised.square()
        return bool((squares if unknown is None else squares[unknown.expand_as(squares)]).mean() <= 1)

    if trusted(1.0):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if trusted(middle) else (low, middle)
    return low
