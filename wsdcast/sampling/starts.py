"""What each prior makes of predicted moments, by its name."""

from __future__ import annotations

from wsdcast.runs.names import ImagePriorName, PriorName
from wsdcast.warmstart import ablations
from wsdcast.warmstart.correlated import informed_prior
from wsdcast.warmstart.prior import Moments, PriorOf, Start, warm_start


def start_of(prior: PriorName | ImagePriorName) -> Start:
    """What a prior makes of predicted moments.

    That is the function of :mod:`wsdcast.warmstart.ablations` of its name, with ``_`` for ``-``. All others start from the moments as they
    are, blended by Eq. 4.
    """
    return getattr(ablations, prior.replace("-", "_"), informed_prior)


def moments_alone(moments: Moments) -> PriorOf:
    """The predicted Gaussian itself, whatever the recipe makes of it for its generator."""
    return warm_start(moments, informed_prior)
