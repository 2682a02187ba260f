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
from wsdcast.data.sources.units import SPEEDS
from wsdcast.data.variables import variable
from wsdcast.data.winds import winds_of
from wsdcast.runs.errors import UserError
from wsdcast.runs.positions import evenly_spread
from wsdcast.verification.domain import POSITIONS_READ, Inside
from wsdcast.verification.truth import Truth

Field = NDArray[np.floating]

CLOSER = 0.7
"""A change is taken to be right if it reduces the mean squared error to less than this share."""
SURE = 0.3
"""Share of the error of no wind below which the error in other units must be. Smaller units shrink the noise of a forecast too: one whose
noise is as strong as the wind gets to 0.5."""
NONSENSE = 10
"""A variable has other units than the truth if its mean squared error is this many times the truth's variance. A forecast without skill
that has the truth's mean and variance gets to 2."""
UNITS = {"knots": SPEEDS["knots"], "km/h": SPEEDS["km/h"], "miles per hour": SPEEDS["mph"], "cm/s": SPEEDS["cm/s"]}
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

    def errors_below(bound: float, corrected: dict[str, Field]) -> dict[str, float]:
        errors = {mistake: error(field, true) for mistake, field in corrected.items()}
        return {mistake: value for mistake, value in errors.items() if value < bound}

    without_wind = error(np.zeros_like(true), true)
    # A forecast that hardly changes from its initial state is bad, but not misplaced. It does get closer to the truth if it is moved along
    # with the weather, or labelled with an earlier time. So a change counts only if its error is below the error of the last lead time
    # against the truth at the initial time.
    initial = truth(-leads[-1])[known, -1]
    of_initial = error(first[:, -1], initial) if np.isfinite(initial).all() else np.inf
    # A mean of two rows has less noise, wherever it stands. So it must be better than a mean of three rows, which has less still.
    north = np.concatenate([first[..., :1, :], (first[..., :-1, :] + first[..., 1:, :]) / 2], axis=-2)
    south = np.concatenate([(first[..., :-1, :] + first[..., 1:, :]) / 2, first[..., -1:, :]], axis=-2)
    of_smoothed = error((north + south) / 2, true)

    errors = errors_below(of_initial, {"is upside down: its latitudes run the other way": first[..., ::-1, :]})
    errors |= errors_below(
        of_initial, {"is half a cell too far east": _shifted(first, -0.5), "is half a cell too far west": _shifted(first, 0.5)}
    )
    errors |= errors_below(
        min(of_initial, CLOSER * of_smoothed), {"is half a cell too far north": north, "is half a cell too far south": south}
    )
    errors |= {mistake: value for mistake, value in _rolled(first, true, grid).items() if value < of_initial}
    if of_wind:
        errors |= errors_below(of_initial, {"has u and v in each other's place": first[:, :, ::-1], "has the opposite sign": -first})
        in_other_units = {f"is in {unit}, not m/s": first * size for unit, size in UNITS.items()}
        errors |= errors_below(min(of_initial, SURE * without_wind), in_other_units)
    errors |= _at_other_times(first, truth, known, leads, of_initial, error)
    # A change must also be clearly better than a forecast of no wind at all.
    allowed = CLOSER * min(error(first, true), without_wind)
    best = min(errors, key=lambda mistake: errors[mistake], default=None)
    return best if best is not None and errors[best] < allowed else None


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
    of_initial: float,
    error: Callable[[Field, Field], float],
) -> dict[str, float]:
    """Return the errors against the truth of earlier and later times.

    A time counts only if its truth is known and the last lead time of the forecast is closer to it than to the state at the initial time.
    """
    errors = {}
    for hours in HOURS:
        then = truth(hours)[known]
        if hours != -leads[-1] and np.isfinite(then).all() and error(forecast[:, -1], then[:, -1]) < of_initial:
            name = f"verifies {abs(hours)} h {'after' if hours > 0 else 'before'} the times that it is labelled with"
            errors[name] = error(forecast, then)
    return errors


def require_aligned(forecast: StoredForecast, truth: Truth, source: str, scored: NDArray[np.bool_], inside: Inside | None) -> None:
    """Refuse a forecast that fits the truth much better after one of the changes of :func:`misalignment`.

    The first wind of :func:`wsdcast.data.winds.winds_of` is compared; without a wind all variables, each in units of its own deviation.

    Args:
        forecast, truth: on the same grid.
        source: name of the truth, for the message.
        scored: which channels are scored, (channel,).
        inside: the points where both have values of these channels, (latitude, longitude); None if that is everywhere or nowhere.

    Raises:
        UserError: if it does, or a variable without units does not fit the truth's; the message says what is wrong.
    """
    rows, leads = evenly_spread(forecast.times.size, POSITIONS_READ), forecast.leads[:2]
    mean = np.stack([forecast.read(int(row), slice(0, leads.size)).mean(axis=0) for row in rows]).astype(np.float64)
    valid = forecast.times[rows][:, None] + leads
    _require_units(forecast, truth, mean, truth.at(valid.ravel()).reshape(mean.shape), np.flatnonzero(scored))
    names = [name for name, is_scored in zip(truth.variables, scored, strict=True) if is_scored]
    winds = winds_of(names)
    channels = [truth.variables.index(name) for name in (winds[0][:2] if winds else names)]
    centre, scale = _climate(truth.at(valid.ravel())[:, channels]) if not winds else (0, 1)

    def within(fields: Field) -> Field:
        scaled = (fields[:, :, channels] - centre) / scale
        return scaled if inside is None else np.where(inside, scaled, 0)

    def truth_later_by(hours: int) -> Field:
        return within(truth.at((valid + np.timedelta64(hours, "h")).ravel()).reshape(mean.shape))

    hours = tuple(int(lead / np.timedelta64(1, "h")) for lead in leads)
    if wrong := misalignment(within(mean), truth_later_by, hours, truth.grid, of_wind=bool(winds)):
        raise UserError(
            f"{forecast.name} {wrong}: its first lead times fit the truth {source} much better without this mistake; correct it first"
        )


def _require_units(forecast: StoredForecast, truth: Truth, mean: Field, true: Field, channels: NDArray[np.intp]) -> None:
    """Check that each of the ``channels`` that does not state its units has values like those of the truth.

    Raises:
        UserError: if one has not.
    """
    for channel in channels:
        name, known = truth.variables[channel], np.isfinite(mean[:, :, channel] + true[:, :, channel])
        if "units" in forecast.wind[name].attrs or not known.any():
            continue
        ours, theirs = mean[:, :, channel][known], true[:, :, channel][known]
        if ((ours - theirs) ** 2).mean() > NONSENSE * theirs.var():
            units = variable(name).units
            means = f"its mean of {ours.mean():.3g} does not fit the truth's {theirs.mean():.3g} {units}"
            raise UserError(f"{forecast.name}: {name} has no units, and {means}; bring it to {units} first")


def _climate(fields: Field) -> tuple[Field, Field]:
    """Return the mean and standard deviation of each channel of fields (..., channel, latitude, longitude), each (channel, 1, 1)."""
    by_channel = np.moveaxis(fields, -3, 0).reshape(fields.shape[-3], -1)
    mean, std = np.nanmean(by_channel, axis=1), np.nanstd(by_channel, axis=1)
    return mean[:, None, None], np.where(std > 0, std, 1)[:, None, None]
