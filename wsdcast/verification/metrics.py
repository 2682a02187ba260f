"""Metrics of forecasts, and the statistics that they are computed from.

The words are those of WeatherBench-X. A statistic is computed for each forecast, that is for one initial time and lead time, and averaged
over a region. Statistics are additive: the mean over many forecasts is the mean of their statistics, so parts of a forecast can be scored
apart and joined along ``time`` without loss. A metric is computed from statistics that were averaged over initial times. Everything that is
not linear (roots, ratios) belongs in a metric, in :func:`metrics`.

A new metric is added in this module:

1. A score of each point by itself gets a row in :data:`POINT_STATISTICS`. A score that needs several points, or thresholds, is computed in
   :func:`joint_statistics`; a row in :data:`WITH_INTERVALS` gives it intervals.
2. If the metric is a root or a ratio of means, it gets a row in :func:`metrics`, and its statistic has another name. Else the statistic has
   the name of the metric.
3. :data:`ABOUT` says what the metric is, and its unit.

The ensemble is (member, lead, channel, latitude, longitude) and the truth (lead, channel, latitude, longitude); other shapes raise
ValueError. Channels are the variables that are scored, in their own units; for each wind of which both components are among them, the
functions add its speed as a further one. Statistics have the dimensions ``prediction_timedelta`` (without coordinate), ``variable`` and
``region``. Those of whole wind fields have no ``variable``; with several winds they have the dimension ``wind``
(:func:`wsdcast.data.winds.by_wind`). Those of strong wind are of the 10 m wind, for which the thresholds are defined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.variables import DEFAULT, SPEED, VARIABLES
from wsdcast.data.winds import by_wind, winds_of
from wsdcast.verification.kernels import (
    Ranked,
    bias,
    brier_score,
    energy_scores,
    fair_crps,
    rank_shares,
    ranked,
    squared_error,
    squared_error_debiased,
    standard_crps,
    variance,
    variogram_score,
    zonal_power,
)
from wsdcast.verification.members import require_members
from wsdcast.verification.regions import REGIONS, region_weights
from wsdcast.verification.spectra import compared
from wsdcast.verification.thresholds import THRESHOLDS

Field = NDArray[np.floating]

GLOBE = "globe"
BOTH, VECTOR = winds_of(DEFAULT)[0][3:]
"""Names of two further variables of the 10 m wind, ``both`` and ``vector`` of :class:`wsdcast.data.winds.Wind`."""

PROBABILITIES = np.linspace(0, 1, 11)
"""Centres of the bins of forecast probability."""
LAGS = (1, 4)
"""Distances of the pairs of points of the variogram score, in columns of the grid."""

POINT_STATISTICS: dict[str, Callable[[Ranked], Field]] = {
    "crps_fair": fair_crps,
    "crps_standard": standard_crps,
    "squared_error": squared_error,
    "squared_error_debiased": squared_error_debiased,
    "variance": variance,
    "bias": bias,
}
"""Statistics that treat each point by itself, and their formulas. :func:`statistics` averages them over regions."""
SQUARES = ("squared_error", "squared_error_debiased", "variance", "power", "power_truth")
"""Statistics in the square of the unit. Their sum over u and v is the statistic of the wind vector."""
WITH_INTERVALS = (*POINT_STATISTICS, "energy_score", "variogram_score", "brier_score")
"""Statistics that are drawn in bootstrap samples. The metrics computed from them alone have intervals in ``scores.nc``."""

OF_VARIABLE = "unit of the variable"

ABOUT = {
    "crps_fair": ("continuous ranked probability score, unbiased in the number of members", OF_VARIABLE),
    "crps_standard": ("continuous ranked probability score of the empirical distribution", OF_VARIABLE),
    "bias": ("mean of the ensemble mean less the truth", OF_VARIABLE),
    "rmse": ("root mean squared error of the ensemble mean", OF_VARIABLE),
    "spread": ("root mean variance of the members", OF_VARIABLE),
    "spread_skill": ("spread over the root mean squared error less what the number of members adds to it", "1"),
    "rank_histogram": ("share of area where so many members are below the truth", "1"),
    "energy_score": ("energy score of u and v over the whole region, fair", "m s-1"),
    "variogram_score": ("variogram score of order 1/2 of pairs so many points apart along latitude circles", OF_VARIABLE),
    "brier_score": ("squared error of the probability that speed exceeds a threshold", "1"),
    "reliability": ("area of a forecast probability, with mean forecast and mean observed frequency times that area", "1"),
    "power_ratio": ("zonal power of members over that of the truth", "1"),
    "power_deviation": ("largest |1 - power ratio| of energetic wavenumbers", "1"),
    "power_deviation_mean": ("mean |1 - power ratio| of energetic wavenumbers", "1"),
    "power_deviation_sum": ("sum of |1 - power ratio| of energetic wavenumbers", "1"),
    "kinetic_energy_ratio": ("kinetic energy of members over that of the truth, by spherical-harmonic degree", "1"),
    "kinetic_energy_deviation": ("largest |1 - kinetic energy ratio| of energetic degrees", "1"),
    "kinetic_energy_deviation_mean": ("mean |1 - kinetic energy ratio| of energetic degrees", "1"),
    "kinetic_energy_deviation_sum": ("sum of |1 - kinetic energy ratio| of energetic degrees", "1"),
}
"""Long name and unit of each metric. :data:`OF_VARIABLE` stands for the unit of the variable."""

_AXES = ("prediction_timedelta", "variable", "region")


def statistics(
    ensemble: Field, truth: Field, grid: Grid, inside: NDArray[np.bool_] | None = None, variables: Sequence[str] = DEFAULT
) -> xr.Dataset:
    """Return :data:`POINT_STATISTICS`, ``rank_histogram`` and zonal spectra (``power``, ``power_truth``; of the globe, by ``wavenumber``).

    Args:
        ensemble, truth: shapes as in the module's docstring.
        grid: of both; latitude weights are exact cell areas, as in WeatherBench 2.
        inside: points that count, (latitude, longitude). Values elsewhere are finite and are ignored; spectra are NaN. Default: all points.
        variables: names of the channels.
    """
    require_members(ensemble, truth, grid.shape)
    weights = region_weights(grid, inside).reshape(len(REGIONS), -1)
    names = scored_names(variables)
    shape = (truth.shape[0], len(names))
    means = np.empty((len(POINT_STATISTICS), *shape, len(REGIONS)))
    histogram = np.empty((*shape, len(REGIONS), ensemble.shape[0] + 1))
    power, power_truth = np.full((2, *shape, grid.longitude.size // 2 + 1), np.nan)
    for lead in range(shape[0]):
        members, true = with_speeds(ensemble[:, lead], variables), with_speeds(truth[lead], variables)
        members_ranked = ranked(members, true)
        fields = np.stack([formula(members_ranked) for formula in POINT_STATISTICS.values()])
        means[:, lead] = fields.reshape(len(POINT_STATISTICS), shape[1], -1) @ weights.T
        histogram[lead] = rank_shares(members_ranked, weights.reshape(-1, *grid.shape))
        if inside is None:
            # The mean spectrum of the members, never the spectrum of their mean, which is smooth.
            power[lead], power_truth[lead] = zonal_power(members, grid).mean(axis=0), zonal_power(true, grid)
    histogram[:, :, np.isnan(weights[:, 0])] = np.nan
    spectral_axes = (*_AXES[:2], "wavenumber")
    return xr.Dataset(
        {name: (_AXES, mean) for name, mean in zip(POINT_STATISTICS, means, strict=True)}
        | {
            "rank_histogram": ((*_AXES, "rank"), histogram),
            "power": (spectral_axes, power),
            "power_truth": (spectral_axes, power_truth),
        },
        coords={
            "variable": names,
            "region": list(REGIONS),
            "rank": np.arange(histogram.shape[-1]),
            "wavenumber": np.arange(grid.longitude.size // 2 + 1),
        },
    )


def joint_statistics(
    ensemble: Field, truth: Field, grid: Grid, inside: NDArray[np.bool_] | None = None, variables: Sequence[str] = DEFAULT
) -> xr.Dataset:
    """Return the statistics that CRPS does not cover: of several points together, and of strong wind.

    Arguments are those of :func:`statistics`. A pair of points counts if both points do.

    Returns:
        ``variogram_score`` by ``lag``; where both components of a wind are scored also ``energy_score`` of whole fields of u and v. Of the
        10 m wind speed, if it is scored, ``brier_score`` by ``threshold``, and ``reliability`` of the forecast probability that the speed
        exceeds a threshold. For each bin of that probability, ``reliability`` has the share of the area, and the area integrals of the
        forecast probability and of the outcome (dimension ``of``).
    """
    require_members(ensemble, truth, grid.shape)
    weights = region_weights(grid, inside)
    flat_weights = weights.reshape(len(REGIONS), -1)
    pair_weights = [weights if inside is None else region_weights(grid, inside & np.roll(inside, -lag, axis=-1)) for lag in LAGS]
    names, winds = scored_names(variables), winds_of(variables)
    leads, channels = truth.shape[0], len(names)
    energy, variogram = np.empty((len(winds), leads, len(REGIONS))), np.empty((leads, channels, len(REGIONS), len(LAGS)))
    brier = np.empty((leads, len(REGIONS), len(THRESHOLDS)))
    reliability = np.zeros((leads, len(REGIONS), len(THRESHOLDS), PROBABILITIES.size, 3))
    for lead in range(leads):
        members, true = with_speeds(ensemble[:, lead], variables), with_speeds(truth[lead], variables)
        for number, (lag, weight) in enumerate(zip(LAGS, pair_weights, strict=True)):
            variogram[lead, ..., number] = variogram_score(members, true, lag).reshape(channels, -1) @ weight.reshape(flat_weights.shape).T
        for of_wind, wind in zip(energy, winds, strict=True):
            first, last = sorted((names.index(wind.u), names.index(wind.v)))
            components = slice(first, last + 1, last - first)  # both, without a copy
            of_wind[lead] = energy_scores(members[:, components], true[components], weights)
        if SPEED not in names:
            continue
        speed = names.index(SPEED)
        for number, threshold in enumerate(THRESHOLDS):
            score, probability, observed = brier_score(members[:, speed], true[speed], threshold)
            brier[lead, :, number] = flat_weights @ score.ravel()
            reliability[lead, :, number] = reliability_of(probability.ravel(), observed.ravel(), flat_weights, len(members))
    reliability[:, np.isnan(flat_weights[:, 0])] = np.nan
    regional = (_AXES[0], "region")
    axes, coordinates = ("variable", "region", "lag"), {"variable": names, "region": list(REGIONS), "lag": list(LAGS)}
    result = xr.Dataset({"variogram_score": ((_AXES[0], *axes), variogram)}, coordinates)
    if winds:
        result = result.merge(by_wind(winds, [xr.Dataset({"energy_score": (regional, of_wind)}) for of_wind in energy]))
    if SPEED not in names:
        return result
    of_strong_wind = {
        "brier_score": ((*regional, "threshold"), brier),
        "reliability": ((*regional, "threshold", "probability", "of"), reliability),
    }
    coordinates = {"threshold": list(THRESHOLDS), "probability": PROBABILITIES, "of": ["area", "forecast", "observed"]}
    return result.assign(of_strong_wind).assign_coords(coordinates)


def reliability_of(probability: Field, observed: Field, weights: Field, members: int) -> Field:
    """Return by region and bin of :data:`PROBABILITIES` the area and the area integrals of probability and outcome, (region, bin, 3).

    Args:
        probability: share of the members that have an event, (point,).
        observed: 1 where it happened, else 0, (point,).
        weights: (region, point).
        members: number of members.
    """
    # Areas by outcome and number of members that have the event: there are far fewer of these than points.
    kinds = np.rint(observed * (members + 1) + probability * members).astype(np.intp)
    areas = np.stack([np.bincount(kinds, weight, 2 * (members + 1)) for weight in weights]).reshape(len(weights), 2, -1)
    probabilities = np.arange(members + 1) / members
    area = areas.sum(axis=1)
    in_bin = np.rint(probabilities * (PROBABILITIES.size - 1))[:, None] == np.arange(PROBABILITIES.size)
    return np.moveaxis(np.stack([area, area * probabilities, areas[:, 1]]) @ in_bin, 0, -1)


def scored_names(variables: Sequence[str]) -> list[str]:
    """Return the names of what is scored: the variables, then the speed of each wind of which both components are among them."""
    return [*variables, *(wind.speed for wind in winds_of(variables))]


def variables_of(scores: xr.Dataset) -> list[str]:
    """Return the variables that were scored, without wind speeds and what was computed from both components of a wind."""
    return [name for name in map(str, scores["variable"].values) if name.partition("@")[0] in VARIABLES and "wind_speed" not in name]


def headline_of(scores: xr.Dataset) -> str:
    """Return the variable of scores or statistics that tables and figures show where they show one: that of the attribute ``headline``.

    Without it, that is the mean over u and v of the first wind of :func:`wsdcast.data.winds.winds_of`, or else the first variable.
    """
    variables = variables_of(scores)
    if (chosen := str(scores.attrs.get("headline", ""))) in scores["variable"]:
        return chosen
    winds = winds_of(variables)
    return winds[0].both if winds else variables[0]


def with_speeds(fields: Field, variables: Sequence[str]) -> Field:
    """Return what is scored, of :func:`scored_names`, (..., channel, latitude, longitude), for fields of the variables."""
    channels, winds = len(variables), winds_of(variables)
    scored = np.empty((*fields.shape[:-3], channels + len(winds), *fields.shape[-2:]), fields.dtype)
    scored[..., :channels, :, :] = fields
    for number, wind in enumerate(winds, start=channels):
        u, v = (scored[..., variables.index(name), :, :] for name in (wind.u, wind.v))
        np.sqrt(u * u + v * v, out=scored[..., number, :, :])
    return scored


def with_both(by_time: xr.Dataset) -> xr.Dataset:
    """Return the statistics with two further variables for each wind, ``both`` and ``vector`` of :class:`wsdcast.data.winds.Wind`.

    ``both`` has the mean over u and v of each statistic that has variables, ``vector`` the sum over u and v of the :data:`SQUARES`.
    """
    by_variable = [name for name, field in by_time.data_vars.items() if "variable" in field.dims]
    parts = [by_time[by_variable]]
    for wind in winds_of(variables_of(by_time)):
        components = by_time[by_variable].sel(variable=[wind.u, wind.v])
        squares = components[[name for name in SQUARES if name in components]]
        parts.append(components.mean("variable").expand_dims(variable=[wind.both]))
        parts.append(squares.sum("variable", skipna=False).expand_dims(variable=[wind.vector]))
    joined = xr.concat(parts, dim="variable", join="outer", coords="minimal", compat="override")
    return joined.merge(by_time.drop_vars([*by_variable, "variable"]))


def scored_pairs(by_time: xr.Dataset) -> xr.DataArray:
    """Return at which initial times and lead times all forecasts have statistics, bool (time, prediction_timedelta)."""
    return by_time["crps_fair"].isel(variable=0, region=0, drop=True).notnull().all("forecast")


def metrics(mean: xr.Dataset) -> xr.Dataset:
    """Return the metrics, given the mean of the statistics over initial times (and over variables, if the caller averages them).

    ``spread_skill`` is sqrt(mean variance) / sqrt(mean debiased squared error); it is 1 for a reliable ensemble of any size. The mean of a
    statistic that has the name of a metric in :data:`ABOUT` is that metric. Spectra are compared as in :func:`spectral`.
    """
    spread_skill = (mean["variance"] / mean["squared_error_debiased"]) ** 0.5
    computed = {
        "rmse": mean["squared_error"] ** 0.5,
        "spread": mean["variance"] ** 0.5,
        # Without any spread, as of one member repeated, or without any error, as in a region without rain, there is no ratio.
        "spread_skill": spread_skill.where((mean["variance"] > 0) & (mean["squared_error_debiased"] > 0)),
    }
    scores = xr.Dataset({name: mean[name] for name in ABOUT if name in mean} | computed)
    return scores.merge(spectral(mean)) if "power" in mean else scores


def spectral(mean: xr.Dataset) -> xr.Dataset:
    """Return ``power_ratio``, the mean power of the members over that of the truth, by wavenumber from 1, and how far it is from 1.

    That is the largest, the mean and the sum of |1 - ratio| over the energetic wavenumbers, as in :func:`compared`.
    """
    power = mean[["power", "power_truth"]].isel(wavenumber=slice(1, None))
    return compared(power["power"], power["power_truth"], "wavenumber", "power")
