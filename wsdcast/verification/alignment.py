"""Check from the values alone that a forecast and its truth have the same positions, times and units.

A store can be flipped, rolled, shifted by half a cell or in knots although its coordinates say otherwise. Its scores would be bad for no
visible reason. At the first lead times a forecast is close to the truth. So if it is much closer after one of these changes, the store has
that mistake.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.sources.foreign_forecasts import StoredForecast
from wsdcast.data.winds import winds_of
from wsdcast.runs.errors import UserError
from wsdcast.verification.domain import Inside, defined, domain_of, spread
from wsdcast.verification.truth import Truth

Field = NDArray[np.floating]

CLOSER = 0.7
"""A change is taken to be right if it reduces the mean squared error to less than this share."""
UNITS = {"knots": 0.514444, "km/h": 1 / 3.6, "miles per hour": 0.44704, "cm/s": 0.01}
"""Size of each unit in m/s."""
HOURS = (-24, -18, -12, -6, 6, 12, 18, 24)
"""Shifts of the valid time that are tried."""


def misalignment(forecast: Field, truth: Callable[[int], Field], leads: tuple[int, ...], grid: Grid, of_wind: bool = True) -> str | None:
    """Return what is wrong with a forecast, in words that follow on 'the forecast'; None if no mistake is detected.

    If only a part of the globe is scored, forecast and truth must be zero elsewhere. The error is then exact for changes that move nothing,
    and too large for changes that move the field, so fewer mistakes are detected.

    Args:
        forecast: mean of the members at the first one or two lead times of some initial times, (time, lead, channel, latitude, longitude).
        truth: function from a number of hours to the truth that many hours after the valid times, of the same shape, NaN where it is
            missing.
        leads: the lead times in hours.
        grid: of both.
        of_wind: whether the channels are u and v in m s-1. Mistakes of units, sign and order are looked for in wind alone.
    """
    as_labelled = truth(0)
    known = np.isfinite((as_labelled + forecast).sum(axis=(1, 2, 3, 4)))
    if not known.any():
        return None
    first, true = forecast[known], as_labelled[known]
    weights = grid.area_weights[:, None]

    def error(field: Field, reference: Field) -> float:
        return float((weights * (field - reference) ** 2).mean())

    between = (first[..., :-1, :] + first[..., 1:, :]) / 2
    mistakes_of_wind = {
        "has u and v in each other's place": error(first[:, :, ::-1], true),
        "has the opposite sign": error(-first, true),
        **{f"is in {unit}, not m/s": error(first * size, true) for unit, size in UNITS.items()},
    }
    errors_after = {
        "is upside down: its latitudes run the other way": error(first[..., ::-1, :], true),
        **(mistakes_of_wind if of_wind else {}),
        **_rolled(first, true, grid),
        **{
            f"is half a cell too far {direction}": error(_shifted(first, cells), true)
            for direction, cells in (("east", -0.5), ("west", 0.5))
        },
        "is half a cell too far north": error(np.concatenate([first[..., :1, :], between], axis=-2), true),
        "is half a cell too far south": error(np.concatenate([between, first[..., -1:, :]], axis=-2), true),
    }
    # A change must also be clearly better than a forecast of no wind at all.
    allowed = CLOSER * min(error(first, true), error(np.zeros_like(true), true))
    # A forecast that hardly changes from its initial state is bad, but not misplaced. It does get closer to the truth if it is moved along
    # with the weather, or labelled with an earlier time. So a change counts only if its error is below the error of the last lead time
    # against the truth at the initial time.
    initial = truth(-leads[-1])[known, -1]
    stays = error(first[:, -1], initial) if np.isfinite(initial).all() else np.inf
    errors_after = {name: value for name, value in errors_after.items() if value < stays}
    errors_after |= _at_other_times(first, truth, known, leads, stays, error)
    if not errors_after:
        return None
    best = min(errors_after, key=lambda name: errors_after[name])
    return best if errors_after[best] < allowed else None


def _rolled(forecast: Field, truth: Field, grid: Grid) -> dict[str, float]:
    """Return the best rotation about the Earth's axis and its mean squared error.

    One correlation along longitude gives the errors of all rotations by whole cells.
    """
    weights = grid.area_weights[:, None]
    spectra = [np.fft.rfft(np.sqrt(weights) * field, axis=-1) for field in (forecast, truth)]
    products = np.fft.irfft((spectra[0] * spectra[1].conj()).mean(axis=(0, 1, 2, 3)), n=truth.shape[-1]) / truth.shape[-1]
    squares = float((weights * (forecast**2 + truth**2)).mean())
    errors = squares - 2 * products
    errors[0] = np.inf
    shift = int(np.argmin(errors))
    degrees = 360 / truth.shape[-1] * (shift if shift <= truth.shape[-1] // 2 else shift - truth.shape[-1])
    return {f"is rolled by {abs(degrees):g} degrees of longitude to the {'east' if degrees > 0 else 'west'}": float(errors[shift])}


def _shifted(field: Field, cells: float) -> Field:
    """Return the field moved along longitude by a fraction of a cell, with a phase shift that keeps the amplitude of its waves."""
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
    """Return the errors against the truth of earlier and later times.

    A time counts only if its truth is known and the last lead time of the forecast is closer to it than to the state at the initial time.
    """
    errors = {}
    for hours in HOURS:
        then = truth(hours)[known]
        if hours != -leads[-1] and np.isfinite(then).all() and error(forecast[:, -1], then[:, -1]) < stays:
            name = f"verifies {abs(hours)} h {'after' if hours > 0 else 'before'} the times that it is labelled with"
            errors[name] = error(forecast, then)
    return errors


def require_aligned(forecast: StoredForecast, truth: Truth, source: str) -> Inside | None:
    """Refuse a forecast that fits the truth much better after one of the changes of :func:`misalignment`.

    The first wind of :func:`wsdcast.data.winds.winds_of` is compared; without a wind all variables, each in units of its own deviation.

    Args:
        forecast, truth: on the same grid.
        source: name of the truth, for the message.

    Returns:
        The points where both have values, (latitude, longitude), None if that is everywhere: :func:`domain_of`.

    Raises:
        UserError: if it does; the message says what is wrong.
    """
    rows, leads = spread(forecast.times.size), forecast.leads[:2]
    mean = np.stack([forecast.read(int(row), slice(0, leads.size)).mean(axis=0) for row in rows]).astype(np.float64)
    valid = forecast.times[rows][:, None] + leads
    everywhere = (defined(mean) & defined(truth.at(valid.ravel()))).all()
    inside = None if everywhere else domain_of(forecast, truth)

    winds = winds_of(truth.variables)
    channels = [truth.variables.index(name) for name in winds[0][:2]] if winds else list(range(len(truth.variables)))
    centre, scale = _climate(truth.at(valid.ravel())) if not winds else (0, 1)

    def within(fields: Field) -> Field:
        scaled = (fields - centre) / scale if not winds else fields[:, :, channels]
        return scaled if inside is None else np.where(inside, scaled, 0)

    def at(hours: int) -> Field:
        return within(truth.at((valid + np.timedelta64(hours, "h")).ravel()).reshape(mean.shape))

    hours = tuple(int(lead / np.timedelta64(1, "h")) for lead in leads)
    if wrong := misalignment(within(mean), at, hours, truth.grid, of_wind=bool(winds)):
        raise UserError(
            f"{forecast.name} {wrong}: its first lead times fit the truth {source} much better without this mistake; correct it first"
        )
    return inside


def _climate(fields: Field) -> tuple[Field, Field]:
    """Return the mean and standard deviation of each channel of fields (..., channel, latitude, longitude), each (channel, 1, 1)."""
    by_channel = np.moveaxis(fields, -3, 0).reshape(fields.shape[-3], -1)
    mean, std = np.nanmean(by_channel, axis=1), np.nanstd(by_channel, axis=1)
    return mean[:, None, None], np.where(std > 0, std, 1)[:, None, None]
