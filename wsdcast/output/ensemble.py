"""Products of the members of one forecast at one lead time: probabilities, quantiles, mean, spread and the most likely direction."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating]

COMPONENTS = ("u", "v", "speed")
CALM = 0.3
"""Wind speed in m/s below which a wind has no direction. Beaufort 1 begins there (WMO-No. 306, vol. I.1, part A, section E)."""
SECTORS = 8
"""Number of sectors of direction. The first one is centred on north."""


@dataclass(frozen=True)
class Choice:
    """Which products are computed.

    Attributes:
        thresholds: wind speeds in m s-1, (threshold,).
        quantiles: quantiles in [0, 1], (quantile,).
        window: length of the window over which the maximum is taken, or None.
        climate: wind speeds in m s-1 at quantiles of a climatology, (climate_quantile, *space). It may be empty.
        climate_quantiles: these quantiles, (climate_quantile,).
    """

    thresholds: tuple[float, ...]
    quantiles: tuple[float, ...]
    window: np.timedelta64 | None = None
    climate_quantiles: tuple[float, ...] = ()
    climate: Field = field(default_factory=lambda: np.empty(0, np.float32))


def remaining(fields: Field) -> NDArray[np.bool_]:
    """Return which members remain, (member,): those with values at all points at which any member has values.

    This is the rule by which forecasts are scored. A point at which no member has values, such as one that is masked, does not count.

    Args:
        fields: (member, *space), NaN where a member has no value.
    """
    finite = np.isfinite(fields)
    space = tuple(range(1, finite.ndim))
    complete = (finite == finite.any(axis=0)).all(axis=space)
    return np.asarray(complete & finite.any(axis=space))


def speed_of(wind: Field) -> Field:
    """Return the wind speed (member, *space) of wind (member, channel, *space)."""
    return np.hypot(wind[:, 0], wind[:, 1])


def products_of(wind: Field, choice: Choice) -> dict[str, Field]:
    """Return the products at one lead time, by name. They are NaN at points without values, and everywhere if no member remains.

    Args:
        wind: (member, channel, *space), m s-1, NaN where a member was stopped.
        choice: the products. A window is not looked at (:func:`exceeding`).

    Returns:
        ``members``, the number of members that remain; ``u_mean``, ``u_spread`` (standard deviation, NaN with one member) and
        ``u_quantile`` (quantile, *space), the same for v and speed; ``speed_probability`` (threshold, *space) and
        ``speed_climate_probability`` (climate_quantile, *space), shares of the members above each threshold; ``direction``, the centre of
        the sector from which the wind of most members comes, in degrees, and ``direction_share``, their share of all members.
    """
    speed = speed_of(wind)
    kept = remaining(speed)
    count = int(kept.sum())
    # Without members, one of missing values gives the products their shapes.
    wind, speed = (array[kept] if count else np.full_like(array[:1], np.nan) for array in (wind, speed))
    products: dict[str, Field] = {"members": np.asarray(count, dtype=np.float32)}
    for name, members in zip(COMPONENTS, (wind[:, 0], wind[:, 1], speed), strict=True):
        products[f"{name}_mean"] = members.mean(axis=0, dtype=np.float64)
        products[f"{name}_spread"] = members.std(axis=0, ddof=1, dtype=np.float64) if count > 1 else np.full(members.shape[1:], np.nan)
        products[f"{name}_quantile"] = quantiles_of(members, choice.quantiles)
    products |= exceeding(speed, choice, "speed")
    products["direction"], products["direction_share"] = most_likely_direction(wind)
    return {name: values.astype(np.float32) for name, values in products.items()}


def quantiles_of(members: Field, quantiles: tuple[float, ...]) -> Field:
    """Return quantiles over members (member, *space), (quantile, *space), linear between neighbours as those of :func:`numpy.quantile`.

    Sorting is ten times as fast as numpy's function, which looks for missing values first. Here a point misses all members or none.
    """
    in_order = np.sort(members, axis=0)
    positions = np.array(quantiles) * (len(members) - 1)
    lower = np.floor(positions).astype(np.intp)
    upper = np.minimum(lower + 1, len(members) - 1)
    share = (positions - lower).reshape(-1, *[1] * (members.ndim - 1))
    return in_order[lower] * (1 - share) + in_order[upper] * share


def exceeding(speed: Field, choice: Choice, name: str) -> dict[str, Field]:
    """Return the shares of the members (member, *space) whose speed exceeds each threshold, by name; NaN at points without values.

    Args:
        speed: wind speed of the members that remain, m s-1. At least one.
        choice: thresholds.
        name: beginning of the names.
    """
    missing = np.isnan(speed[0])

    def share(threshold: float | Field) -> Field:
        return np.where(missing, np.nan, (speed > threshold).mean(axis=0)).astype(np.float32)

    shares = {}
    if choice.thresholds:
        shares[f"{name}_probability"] = np.array([share(threshold) for threshold in choice.thresholds])
    if choice.climate_quantiles:
        of_climate = [np.where(np.isnan(threshold), np.nan, share(threshold)) for threshold in choice.climate]
        shares[f"{name}_climate_probability"] = np.array(of_climate, dtype=np.float32)
    return shares


def most_likely_direction(wind: Field) -> tuple[Field, Field]:
    """Return the direction from which the wind of most members comes, in degrees clockwise from north, and their share of all members.

    Directions are counted in :data:`SECTORS` sectors. Members with less than :data:`CALM` are in none. Of sectors with as many members, the
    first one from north counts. The direction is NaN where all members are calm, the share also where there are no values.

    Args:
        wind: (member, channel, *space), m s-1.
    """
    u, v = wind[:, 0], wind[:, 1]
    width = 360 / SECTORS
    has_direction = np.hypot(u, v) >= CALM
    angle = np.rad2deg(np.arctan2(np.where(has_direction, -u, 0), np.where(has_direction, -v, 0)))
    sector = np.floor((angle + width / 2) / width).astype(np.int8) % SECTORS
    sector[~has_direction] = -1
    counts = np.stack([(sector == number).sum(axis=0) for number in range(SECTORS)])
    direction = np.where(counts.max(axis=0) > 0, width * counts.argmax(axis=0), np.nan)
    return direction, np.where(np.isnan(u[0]), np.nan, counts.max(axis=0) / wind.shape[0])
