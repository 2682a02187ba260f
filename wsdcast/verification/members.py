"""The members of a forecast at one time: their shape, which of them remain, and what share exceeds a threshold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating]


def require_members(ensemble: Field, truth: Field, space: tuple[int, ...] = ()) -> None:
    """Raise a ValueError unless the ensemble is (member, ...) for a truth (...). Scores of many other shapes would be numbers too.

    Args:
        ensemble, truth: the fields.
        space: last dimensions of the truth, those of its grid.
    """
    if np.shape(ensemble)[1:] != np.shape(truth):
        shapes = f"the truth has the shape {np.shape(truth)}, and a member {np.shape(ensemble)[1:]}"
        raise ValueError(f"{shapes}; the members' dimension comes first")
    if space:
        require_on_grid("the truth", truth, space)


def require_on_grid(what: str, field: Field, space: tuple[int, ...]) -> None:
    """Raise a ValueError unless a field, named ``what``, ends with the dimensions of its grid, ``space``."""
    if np.shape(field)[-len(space) :] != space:
        raise ValueError(f"{what} has the shape {np.shape(field)}, which does not end with that of the grid, {space}")


def remaining(fields: Field) -> NDArray[np.bool_]:
    """Return which members remain, (member,): those with values at all points at which any member has values, in each channel.

    Products use this rule. A point at which no member has values, such as one that is masked, does not count. Scores are stricter
    (:func:`wsdcast.verification.scoring.statistics_of`).

    Args:
        fields: (member, channel, *space) or (member, *space), NaN where a member has no value.
    """
    finite = np.isfinite(fields)
    space = tuple(range(1, finite.ndim))
    complete = (finite == finite.any(axis=0)).all(axis=space)
    return np.asarray(complete & finite.any(axis=space))


def share_above(members: Field, threshold: float | Field) -> Field:
    """Return the share of members (member, *space) that exceed a threshold, (*space); NaN at points without values.

    Args:
        members: values of the members that remain, NaN at the same points of all. At least one member.
        threshold: in their units, one for all points or one for each, (*space).
    """
    return np.asarray(np.where(np.isnan(members[0]), np.nan, (members > threshold).mean(axis=0)))
