"""Products of the members of one forecast at one lead time: probabilities, quantiles, mean, spread and the most likely direction."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.variables import DEFAULT
from wsdcast.output.quantities import quantities_of
from wsdcast.verification.members import remaining, share_above
from wsdcast.verification.thresholds import BEAUFORT

Field = NDArray[np.floating]

CALM = BEAUFORT[0]
"""Wind speed in m/s below which a wind has no direction."""
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
        variables: names of the channels of the forecast, in order.
    """

    thresholds: tuple[float, ...]
    quantiles: tuple[float, ...]
    window: np.timedelta64 | None = None
    climate_quantiles: tuple[float, ...] = ()
    climate: Field = field(default_factory=lambda: np.empty(0, np.float32))
    variables: tuple[str, ...] = DEFAULT

    @property
    def has_wind(self) -> bool:
        """Whether the forecast has the 10 m wind, of which there are probabilities and the direction."""
        return set(DEFAULT) <= set(self.variables)


def wind_in(fields: Field, choice: Choice) -> Field:
    """Return the 10 m wind (member, 2, *space) of fields (member, channel, *space)."""
    return fields[:, [choice.variables.index(name) for name in DEFAULT]]


def speed_of(wind: Field) -> Field:
    """Return the wind speed (member, *space) of wind (member, channel, *space)."""
    return np.hypot(wind[:, 0], wind[:, 1])


def products_of(fields: Field, choice: Choice) -> dict[str, Field]:
    """Return the products at one lead time, by name. They are NaN at points without values, and everywhere if no member remains.

    Args:
        fields: (member, channel, *space), in the units of the channels, NaN where a member was stopped.
        choice: the products. A window is not looked at (:func:`exceeding`).

    Returns:
        ``members``, the number of members that remain; of each variable and of the speed of each wind
        (:func:`wsdcast.output.quantities.quantities_of`), here u, ``u_mean``, ``u_spread`` (standard deviation, NaN with one member) and
        ``u_quantile`` (quantile, *space). With a 10 m wind also ``speed_probability`` (threshold, *space) and
        ``speed_climate_probability`` (climate_quantile, *space), shares of the members above each threshold; ``direction``, the centre of
        the sector from which the wind of most members comes, in degrees, ``direction_share``, their share of all members, and
        ``direction_mean``, the direction from which their mean wind comes.
    """
    kept = remaining(fields)
    count = int(kept.sum())
    # Without members, one of missing values gives the products their shapes.
    fields = fields[kept] if count else np.full_like(fields[:1], np.nan)
    products: dict[str, Field] = {"members": np.asarray(count, dtype=np.float32)}
    for name, quantity in quantities_of(choice.variables).items():
        members = quantity.value([fields[:, choice.variables.index(channel)] for channel in quantity.channels])
        products[f"{name}_mean"] = members.mean(axis=0, dtype=np.float64)
        products[f"{name}_spread"] = members.std(axis=0, ddof=1, dtype=np.float64) if count > 1 else np.full(members.shape[1:], np.nan)
        products[f"{name}_quantile"] = quantiles_of(members, choice.quantiles)
    if choice.has_wind:
        wind = wind_in(fields, choice)
        products |= exceeding(speed_of(wind), choice, "speed")
        products["direction"], products["direction_share"] = most_likely_direction(wind)
        products["direction_mean"] = direction_of(products["u_mean"], products["v_mean"])
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
    """Return the shares of the members whose speed exceeds each threshold, by names that begin with ``name``.

    The speeds are those of the members that remain, at least one, (member, *space), m s-1. Where a point has no values, the share is NaN.
    """
    shares = {}
    if choice.thresholds:
        shares[f"{name}_probability"] = np.array([share_above(speed, threshold) for threshold in choice.thresholds], dtype=np.float32)
    if choice.climate_quantiles:
        of_climate = [np.where(np.isnan(threshold), np.nan, share_above(speed, threshold)) for threshold in choice.climate]
        shares[f"{name}_climate_probability"] = np.array(of_climate, dtype=np.float32)
    return shares


def direction_of(u: Field, v: Field) -> Field:
    """Return the direction from which a wind comes, in degrees clockwise from north in [0, 360); NaN below :data:`CALM`."""
    angle = (np.rad2deg(np.arctan2(-u, -v)) % 360).astype(np.float32) % 360  # again, because rounding may end at 360
    return np.where(np.hypot(u, v) >= CALM, angle, np.nan)


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
