"""The function that makes a prior from predicted moments, by the name of the prior."""

from __future__ import annotations

from typing import get_args

from wsdcast.runs.names import WITHOUT_NETWORK, ImagePriorName, PriorName
from wsdcast.warmstart import prior as priors
from wsdcast.warmstart.prior import InformedPrior, MakePrior, Moments, PriorOf, warm_start


def prior_maker(prior: PriorName | ImagePriorName) -> MakePrior:
    """Return the function that makes a prior of this name from predicted moments.

    The warm start, and every prior without a moments network, uses the moments as they are and blends them by Eq. 4. Every other prior
    has a function in :mod:`wsdcast.warmstart.prior` with its name, with ``_`` for ``-``.

    Raises:
        ValueError: if no prior has this name.
    """
    if prior not in (*get_args(PriorName), *get_args(ImagePriorName)):
        raise ValueError(f"no prior is called '{prior}'")
    if prior == "warm" or prior in WITHOUT_NETWORK:
        return InformedPrior
    return getattr(priors, prior.replace("-", "_"))


def moments_alone(moments: Moments) -> PriorOf:
    """Return the predicted Gaussian itself as the prior, whichever prior the generator starts from."""
    return warm_start(moments)
