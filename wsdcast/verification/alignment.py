"""Check from the values alone that a forecast and its truth have the same positions, times and units.

A store can be flipped, rolled, shifted by half a cell or in knots although its coordinates say otherwise. Its scores would be bad for no
visible reason. At the first lead times a forecast is close to the truth. So if it is much closer after one of these changes, the store has
that mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.sources.foreign_forecasts import StoredForecast
from wsdcast.data.sources.units import SPEEDS
from wsdcast.data.winds import winds_of
from wsdcast.runs.errors import UserError
from wsdcast.verification.domain import Inside, a_few
from wsdcast.verification.truth import Truth

Field = NDArray[np.floating]

CLOSER = 0.7
"""A change is taken to be right if it reduces the mean squared error to less than this share."""
GROSS, SCALED, NEAR = 0.5, 0.3, 0.22
"""Without its mistake, a forecast must have less than this share of the error that the mistake gives to the truth itself, and of that of
no wind, at each lead time. The share is small for mistakes that a bad forecast resembles. Noise resembles wind in larger units: noise as
strong as the wind gets to 0.5 (``SCALED``). Weather that moves too slowly resembles a shift by a few cells or hours: a forecast that is
3 h behind after 6 h gets to 0.25 (``NEAR``)."""
FEW_CELLS = 2
"""Weather moves by about so many cells of 1.5 degrees in 6 h."""
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

    def errors(field: Field, reference: Field) -> NDArray[np.floating]:
        """Mean squared errors by lead time."""
        return np.asarray((weights * (field - reference) ** 2).mean(axis=(0, 2, 3, 4)))

    def candidates() -> Iterator[Candidate]:
        yield from _moved(first, true, grid)
        if of_wind:
            yield from _of_wind(first, true)
        for hours in HOURS:
            then = truth(hours)[known]
            if hours != -leads[-1] and np.isfinite(then).all():
                name = f"verifies {abs(hours)} h {'after' if hours > 0 else 'before'} the times that it is labelled with"
                yield Candidate(name, first, then, then, NEAR)

    as_it_is, without_wind = errors(first, true).mean(), errors(np.zeros_like(true), true)
    # A forecast that hardly changes from its initial state is bad, but not misplaced. It does get closer to the truth if it is moved along
    # with the weather, or labelled with an earlier time.
    initial = truth(-leads[-1])[known, -1]
    of_initial = errors(first[:, -1:], initial[:, None]).mean() if np.isfinite(initial).all() else np.inf

    best, least = None, min(of_initial, CLOSER * as_it_is, CLOSER * without_wind.mean())
    for name, corrected, reference, mistaken, share in candidates():
        after = errors(corrected, reference)
        if after.mean() < least and (after < share * np.minimum(errors(mistaken, true), without_wind)).all():
            best, least = name, after.mean()
    return best


class Candidate(NamedTuple):
    """What shows a mistake.

    Attributes:
        name: of the mistake, in words that follow on 'the forecast'.
        corrected: the forecast without it.
        reference: what this must fit.
        mistaken: what the mistake makes of the truth.
        share: one of :data:`GROSS`, :data:`SCALED` and :data:`NEAR`.
    """

    name: str
    corrected: Field
    reference: Field
    mistaken: Field
    share: float


def _moved(first: Field, true: Field, grid: Grid) -> Iterator[Candidate]:
    """Yield the mistakes of place."""
    yield Candidate("is upside down: its latitudes run the other way", first[..., ::-1, :], true, true[..., ::-1, :], GROSS)
    shift = _best_roll(first, true, grid)
    degrees = 360 / grid.longitude.size * shift
    name = f"is rolled by {abs(degrees):g} degrees of longitude to the {'east' if degrees > 0 else 'west'}"
    share = NEAR if abs(shift) <= FEW_CELLS else GROSS
    yield Candidate(name, np.roll(first, -shift, axis=-1), true, np.roll(true, shift, axis=-1), share)
    yield Candidate("is half a cell too far east", _shifted(first, -0.5), true, _shifted(true, 0.5), NEAR)
    yield Candidate("is half a cell too far west", _shifted(first, 0.5), true, _shifted(true, -0.5), NEAR)
    # Moving back and forth smooths a field, so the truth that must fit is smoothed too.
    north, south = (_halfway(true, to_north=to_north) for to_north in (True, False))
    smoothed = _halfway(north, to_north=False)
    yield Candidate("is half a cell too far north", _halfway(first, to_north=False), smoothed, north, NEAR)
    yield Candidate("is half a cell too far south", _halfway(first, to_north=True), smoothed, south, NEAR)


def _of_wind(first: Field, true: Field) -> Iterator[Candidate]:
    """Yield the mistakes of units, sign and order of u and v."""
    yield Candidate("has u and v in each other's place", first[:, :, ::-1], true, true[:, :, ::-1], GROSS)
    yield Candidate("has the opposite sign", -first, true, -true, GROSS)
    # The size of the wind decides which unit. By the error alone, miles per hour may fit better than knots, because they shrink the error.
    ratio = np.sqrt(np.square(true).mean() / max(np.square(first).mean(), np.finfo(float).tiny))
    unit = min(UNITS, key=lambda name: abs(np.log(UNITS[name] / ratio)))
    yield Candidate(f"is in {unit}, not m/s", first * UNITS[unit], true, true / UNITS[unit], SCALED)


def _best_roll(forecast: Field, truth: Field, grid: Grid) -> int:
    """Return by how many cells the forecast is farther east than the truth, from -n/2 to n/2 but not 0.

    One correlation along longitude gives the errors of all rotations by whole cells.
    """
    count, weights = truth.shape[-1], np.sqrt(grid.area_weights[:, None])
    spectra = [np.fft.rfft(weights * field, axis=-1) for field in (forecast, truth)]
    products = np.fft.irfft((spectra[0] * spectra[1].conj()).mean(axis=(0, 1, 2, 3)), n=count)
    products[0] = -np.inf
    shift = int(np.argmax(products))
    return shift if shift <= count // 2 else shift - count


def _shifted(field: Field, cells: float) -> Field:
    """Return the field moved along longitude by a fraction of a cell, with a phase shift that keeps the amplitude of its waves."""
    coefficients = np.fft.rfft(field, axis=-1)
    wavenumbers = np.arange(coefficients.shape[-1])
    return np.fft.irfft(coefficients * np.exp(-2j * np.pi * wavenumbers * cells / field.shape[-1]), n=field.shape[-1])


def _halfway(field: Field, *, to_north: bool) -> Field:
    """Return the field moved by half a row: each row becomes its mean with the next one, and the row at that pole stays."""
    between = (field[..., :-1, :] + field[..., 1:, :]) / 2
    return np.concatenate([between, field[..., -1:, :]] if to_north else [field[..., :1, :], between], axis=-2)


def require_aligned(forecast: StoredForecast, truth: Truth, source: str, scored: NDArray[np.bool_], inside: Inside | None) -> None:
    """Refuse a forecast that fits the truth much better after one of the changes of :func:`misalignment`.

    The first wind of :func:`wsdcast.data.winds.winds_of` is compared; without a wind all variables, each in units of its own deviation.

    Args:
        forecast, truth: on the same grid.
        source: name of the truth, for the message.
        scored: which channels are scored, (channel,).
        inside: the points where both have values of these channels, (latitude, longitude); None if that is everywhere or nowhere.

    Raises:
        UserError: if it does; the message says what is wrong.
    """
    has_truth = np.isin(forecast.times[:, None] + forecast.leads, truth.times)
    if not has_truth.any():
        return
    # The initial time that has truth soonest shows which lead times are compared. Others may have none, or only later.
    soonest = np.where(has_truth.any(axis=1), has_truth.argmax(axis=1), forecast.leads.size).argmin()
    positions = np.flatnonzero(has_truth[soonest])[:2]
    chosen, leads = slice(positions[0], positions[-1] + 1, max(1, np.ptp(positions))), forecast.leads[positions]
    rows = a_few(has_truth[:, positions].all(axis=1))
    mean = np.stack([forecast.read(int(row), chosen).mean(axis=0) for row in rows]).astype(np.float64)
    valid = forecast.times[rows][:, None] + leads
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


def _climate(fields: Field) -> tuple[Field, Field]:
    """Return the mean and standard deviation of each channel of fields (..., channel, latitude, longitude), each (channel, 1, 1)."""
    by_channel = np.moveaxis(fields, -3, 0).reshape(fields.shape[-3], -1)
    mean, std = np.nanmean(by_channel, axis=1), np.nanstd(by_channel, axis=1)
    return mean[:, None, None], np.where(std > 0, std, 1)[:, None, None]
