"""The function that makes a prior from predicted moments, by the name of the prior."""

from __future__ import annotations

from wsdcast.runs.names import ImagePriorName, PriorName
from wsdcast.warmstart import ablations
from wsdcast.warmstart.prior import InformedPrior, MakePrior, Moments, PriorOf, warm_start


def prior_maker(prior: PriorName | ImagePriorName) -> MakePrior:
    """Return the function that makes a prior of this name from predicted moments.

    It is the function of :mod:`wsdcast.warmstart.ablations` with that name, with ``_`` for ``-``. Every other prior uses the moments as
    they are and blends them by Eq. 4.
    """
    return getattr(ablations, prior.replace("-", "_"), InformedPrior)


def moments_alone(moments: Moments) -> PriorOf:
    """Return the predicted Gaussian itself as the prior, whichever prior the generator starts from."""
    return warm_start(moments)
