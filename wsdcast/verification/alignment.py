"""Finds out whether a forecast and its truth are of the same places, times and units, from the values alone.

A store can be flipped, rolled, half a cell off or in knots while its coordinates say otherwise; its scores would be bad, and nobody would
know why. At the first lead times a forecast is close to the truth, so if another placing of it is much closer, that is what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.sources.ensembles import StoredForecast
from wsdcast.runs.errors import UserError
from wsdcast.verification.domain import Inside, defined, domain_of, spread
from wsdcast.verification.truth import Truth

Field = NDArray[np.floating]

CLOSER = 0.7
"""A placing is taken to be the right one if the mean squared error is this share of what it is as labelled, or less."""
UNITS = {"knots": 0.514444, "km/h": 1 / 3.6, "miles per hour": 0.44704, "cm/s": 0.01}
"""In m/s."""
HOURS = (-24, -18, -12, -6, 6, 12, 18, 24)


def misalignment(forecast: Field, truth: Callable[[int], Field], leads: tuple[int, ...], grid: Grid) -> str | None:
    """What is wrong with a forecast, in words that follow on 'the forecast'; None if nothing is seen to be.

    Of a part of the globe, both are zero elsewhere: errors are then exact for what stays in its place, and too large for what is moved.

    Args:
        forecast: mean of the members at the first one or two lead times of some starts, (start, lead, channel, latitude, longitude).
        truth: at these lead times and so many hours later, of the same shape, NaN where it is missing.
        leads: the lead times in hours.
        grid: of both.
    """
    here = truth(0)
    known = np.isfinite((here + forecast).sum(axis=(1, 2, 3, 4)))
    if not known.any():
        return None
    first, true = forecast[known], here[known]
    weights = grid.area_weights[:, None]

    def error(one: Field, other: Field) -> float:
        return float((weights * (one - other) ** 2).mean())

    between = (first[..., :-1, :] + first[..., 1:, :]) / 2
    placings = {
        "is upside down: its latitudes run the other way": error(first[..., ::-1, :], true),
        "has u and v in each other's place": error(first[:, :, ::-1], true),
        "has the opposite sign": error(-first, true),
        **{f"is in {unit}, not m/s": error(first * size, true) for unit, size in UNITS.items()},
        **_rolled(first, true, grid),
        **{
            f"is half a cell too far {direction}": error(_shifted(first, cells), true)
            for direction, cells in (("east", -0.5), ("west", 0.5))
        },
        "is half a cell too far north": error(np.concatenate([first[..., :1, :], between], axis=-2), true),
        "is half a cell too far south": error(np.concatenate([between, first[..., -1:, :]], axis=-2), true),
    }
    # Of no use either is a placing that is no better than no wind at all.
    allowed = CLOSER * min(error(first, true), error(np.zeros_like(true), true))
    # A forecast that changes little is close to the truth of its start. That is no mistake, though moving it along with the weather, or
    # labelling it with an earlier time, would bring it closer: no placing counts that is not better at the last of the lead times than
    # the state at the start is.
    start = truth(-leads[-1])[known, -1]
    stays = error(first[:, -1], start) if np.isfinite(start).all() else np.inf
    placings = {name: value for name, value in placings.items() if value < stays}
    placings |= _at_other_times(first, truth, known, leads, stays, error)
    if not placings:
        return None
    best = min(placings, key=lambda name: placings[name])
    return best if placings[best] < allowed else None


def _rolled(forecast: Field, truth: Field, grid: Grid) -> dict[str, float]:
    """The best of all turns about the axis, by the mean squared error of each from one correlation along longitude."""
    weights = grid.area_weights[:, None]
    spectra = [np.fft.rfft(np.sqrt(weights) * field, axis=-1) for field in (forecast, truth)]
    products = np.fft.irfft((spectra[0] * spectra[1].conj()).mean(axis=(0, 1, 2, 3)), n=truth.shape[-1]) / truth.shape[-1]
    squares = float((weights * (forecast**2 + truth**2)).mean())
    errors = squares - 2 * products
    errors[0] = np.inf
    turn = int(np.argmin(errors))
    degrees = 360 / truth.shape[-1] * (turn if turn <= truth.shape[-1] // 2 else turn - truth.shape[-1])
    return {f"is rolled by {abs(degrees):g} degrees of longitude to the {'east' if degrees > 0 else 'west'}": float(errors[turn])}


def _shifted(field: Field, cells: float) -> Field:
    """Moved along longitude by a part of a cell, without loss of its waves."""
    coefficients = np.fft.rfft(field, axis=-1)
    wavenumbers = np.arange(coefficients.shape[-1])
    return np.fft.irfft(coefficients * np.exp(-2j * np.pi * wavenumbers * cells / field.shape[-1]), n=field.shape[-1])


def _at_other_times(
    forecast: Field,
    truth: Callable[[int], Field],
    known: NDArray[np.bool_],
    leads: tuple[int, ...],
    stays: float,
    error: Callable[[Field, Field], float],
) -> dict[str, float]:
    """Errors against the truth of earlier or later, where it is there and the last lead time is closer to it than to the start."""
    found = {}
    for hours in HOURS:
        then = truth(hours)[known]
        if hours != -leads[-1] and np.isfinite(then).all() and error(forecast[:, -1], then[:, -1]) < stays:
            name = f"verifies {abs(hours)} h {'after' if hours > 0 else 'before'} the times that it is labelled with"
            found[name] = error(forecast, then)
    return found


def require_aligned(forecast: StoredForecast, truth: Truth, source: str) -> Inside | None:
    """Refuse a forecast that fits the truth better in another place.

    Args:
        forecast, truth: on the same grid.
        source: of the truth, for the message.

    Returns:
        The points where both have values, (latitude, longitude), None if that is everywhere: :func:`domain_of`.

    Raises:
        UserError: if so, saying what is wrong.
    """
    rows, leads = spread(forecast.times.size), forecast.leads[:2]
    mean = np.stack([forecast.read(int(row), slice(0, leads.size)).mean(axis=0) for row in rows]).astype(np.float64)
    valid = forecast.times[rows][:, None] + leads
    everywhere = (defined(mean) & defined(truth.at(valid.ravel()))).all()
    inside = None if everywhere else domain_of(forecast, truth)

    def within(fields: Field) -> Field:
        return fields if inside is None else np.where(inside, fields, 0)

    def at(hours: int) -> Field:
        return within(truth.at((valid + np.timedelta64(hours, "h")).ravel()).reshape(mean.shape))

    hours = tuple(int(lead / np.timedelta64(1, "h")) for lead in leads)
    if wrong := misalignment(within(mean), at, hours, truth.grid):
        raise UserError(f"{forecast.name} {wrong}, as its first lead times beside the truth {source} tell; correct it first")
    return inside
