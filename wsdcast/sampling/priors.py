"""The function that makes a prior from predicted moments, by the name of the prior."""

from __future__ import annotations

from wsdcast.runs.names import WITHOUT_NETWORK, ImagePriorName, PriorName
from wsdcast.warmstart.prior import InformedPrior, MakePrior, features_only, mean_only, plain_blend, unblended

WITH_NETWORK: dict[str, MakePrior] = {
    "warm": InformedPrior,
    "features-only": features_only,
    "mean-only": mean_only,
    "unblended": unblended,
    "plain-blend": plain_blend,
}
"""What the priors make of the moments that a network predicts."""


def prior_maker(prior: PriorName | ImagePriorName) -> MakePrior:
    """Return the function that makes a prior of this name from predicted moments.

    The warm start, and every prior without a moments network, uses the moments as they are and blends them by Eq. 4.

    Raises:
        KeyError: if no prior has this name.
    """
    return InformedPrior if prior in WITHOUT_NETWORK else WITH_NETWORK[prior]
