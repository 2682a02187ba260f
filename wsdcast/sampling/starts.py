"""What each prior makes of predicted moments, by its name."""

from __future__ import annotations

from functools import partial

from wsdcast.runs.names import ImagePriorName, PriorName
from wsdcast.warmstart.ablations import features_only, mean_only, no_blending, plain_blending
from wsdcast.warmstart.correlated import informed_prior
from wsdcast.warmstart.prior import Moments, PriorOf, Start, warm_start

STARTS: dict[str, Start] = {
    "mean-only": mean_only,
    "features-only": features_only,
    "unblended": partial(informed_prior, blend=no_blending),
    "plain-blend": partial(informed_prior, blend=plain_blending),
}
"""What is made of the moments; all others start from them as they are, blended by Eq. 4."""


def start_of(prior: PriorName | ImagePriorName) -> Start:
    """What a prior makes of predicted moments."""
    return STARTS.get(prior, informed_prior)


def moments_alone(moments: Moments) -> PriorOf:
    """The predicted Gaussian itself, whatever the recipe makes of it for its generator."""
    return warm_start(moments, informed_prior)
