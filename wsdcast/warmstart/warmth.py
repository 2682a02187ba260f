"""Which warmth to sample with where the moments are less sure than they seem."""

from __future__ import annotations

from torch import Tensor

from wsdcast.warmstart.prior import InformedPrior

HALVINGS = 10


def calibrated_warmth(prior: InformedPrior, target: Tensor, unknown: Tensor | None = None) -> float:
    """The largest warmth at which errors of the mean are no larger than the blended standard deviation says.

    The paper samples at w = 1 throughout. On contexts unlike those of training a moments network errs more than it thinks, and generation
    then starts too near to a wrong mean. Lower warmth widens the prior (Eq. 4), and the generator was trained at every warmth. Found by
    halving [0, 1], as the error falls with w; 1 where the moments are calibrated, and then nothing changes.

    Args:
        prior: of some contexts that no network has seen, as it is at full warmth, (batch, channel, ...).
        target: what followed them, of the same shape.
        unknown: where the context leaves them open, of a shape that broadcasts to that; elsewhere nothing is counted. Default: everywhere.

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
