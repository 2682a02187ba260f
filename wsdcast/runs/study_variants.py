"""The key ``study.variants`` of recipes: generators that differ from the recipe's in some keys, each with a name."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from wsdcast.runs.names import MOMENTS_ALONE, PAST_ERRORS

Variants = dict[str, dict[str, Any]]
"""For each name, recipe keys with dots and their values."""


def comparable(variants: Variants, priors: Collection[str], sections: Collection[str]) -> Variants:
    """Return the variants, if they can be compared with priors and with each other.

    ``priors`` are names that variants must not have, and ``sections`` those of the recipe whose keys may differ.

    Raises:
        ValueError: if a variant has such a name or one that cannot name a folder, or changes a key that all generators share.
    """
    for name, changes in variants.items():
        if name in (*priors, MOMENTS_ALONE, PAST_ERRORS) or "/" in name:
            raise ValueError(f"the variant {name!r} needs another name")
        for key in changes:
            if key.split(".")[0] not in sections or key == "generator.steps":
                raise ValueError(f"the variant {name!r} must not change {key}: variants share data and settings, and train at equal cost")
    return variants
