"""Statistics of forecasts that may be averaged, and the metrics computed from their averages.

A statistic is a mean over a region for one start and lead time. Starts are only ever averaged, so parts of a forecast scored apart
can be joined along ``time`` without loss; whatever is not linear (roots, ratios) comes after, in :func:`metrics`.

Ensembles are (member, lead, channel, latitude, longitude) and truth is (lead, channel, latitude, longitude), u and v in m s-1; speed is
made of them here. Statistics have the dimensions ``prediction_timedelta`` (without coordinate), ``variable`` and ``region``.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.store.zarr_store import SPEED, VARIABLES
from wsdcast.verification.kernels import (
    brier_score,
    debiased_squared_error,
    energy_scores,
    fair_crps,
    ranked,
    ranks,
    squared_error,
    standard_crps,
    variance,
    variogram_score,
    zonal_power,
)
from wsdcast.verification.regions import REGIONS, region_weights
from wsdcast.verification.spectra import compared

Field = NDArray[np.floating]

GLOBE = "globe"
BOTH, VECTOR = "both", "vector"
"""The mean over u and v, and the length of the vector, beside the variables by their own names."""

THRESHOLDS = (10.8, 17.2, 24.5)
"""m/s: where Beaufort 6, 8 and 10 begin."""
PROBABILITIES = np.linspace(0, 1, 11)
"""Middles of the bins of forecast probability."""
LAGS = (1, 4)
"""Distances in points of the pairs of the variogram score."""

ABOUT = {
    "crps_fair": ("continuous ranked probability score, unbiased in the number of members", "m s-1"),
    "crps_standard": ("continuous ranked probability score of the empirical distribution", "m s-1"),
    "bias": ("mean of the ensemble mean less the truth", "m s-1"),
    "rmse": ("root mean squared error of the ensemble mean", "m s-1"),
    "spread": ("root mean variance of the members", "m s-1"),
    "spread_skill": ("spread over the root mean squared error less what the number of members adds to it", "1"),
    "rank_histogram": ("share of area where so many members are below the truth", "1"),
    "energy_score": ("energy score of u and v over the whole region, fair", "m s-1"),
    "variogram_score": ("variogram score of order 1/2 of pairs so many points apart along latitude circles", "m s-1"),
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
"""What metrics are, and their units."""

_AXES = ("prediction_timedelta", "variable", "region")


def statistics(ensemble: Field, truth: Field, grid: Grid, inside: NDArray[np.bool_] | None = None) -> xr.Dataset:
    """What marginal distributions and spectra tell; ``power`` and ``power_truth`` are of the globe, by ``wavenumber``.

    Args:
        ensemble, truth, grid: as above; latitude weights are exact cell areas, as in WeatherBench 2.
        inside: points that count, (latitude, longitude); elsewhere values are finite and of no matter, and spectra are NaN. Default: all.
    """
    weights = region_weights(grid, inside).reshape(len(REGIONS), -1)
    names = ("crps_fair", "crps_standard", "squared_error", "squared_error_debiased", "variance", "bias")
    shape = (truth.shape[0], truth.shape[1] + 1)
    means = np.empty((len(names), *shape, len(REGIONS)))
    histogram = np.empty((*shape, len(REGIONS), ensemble.shape[0] + 1))
    power, power_truth = np.full((2, *shape, grid.longitude.size // 2 + 1), np.nan)
    for lead in range(shape[0]):
        members, true = _with_speed(ensemble[:, lead]), _with_speed(truth[lead])
        of = ranked(members, true)
        fields = (
            fair_crps(of),
            standard_crps(of),
            squared_error(of, true),
            debiased_squared_error(of, true),
            variance(of),
            of.mean - true,
        )
        means[:, lead] = np.stack(fields).reshape(len(names), shape[1], -1) @ weights.T
        for channel, rank in enumerate(ranks(of).reshape(shape[1], -1)):
            for region, weight in enumerate(weights):
                histogram[lead, channel, region] = np.bincount(rank, weights=weight, minlength=ensemble.shape[0] + 1)
        if inside is None:
            # Of members, never of their mean.
            power[lead], power_truth[lead] = zonal_power(members, grid).mean(axis=0), zonal_power(true, grid)
    histogram[:, :, np.isnan(weights[:, 0])] = np.nan
    wavy = (*_AXES[:2], "wavenumber")
    return xr.Dataset(
        {name: (_AXES, mean) for name, mean in zip(names, means, strict=True)}
        | {
            "rank_histogram": ((*_AXES, "rank"), histogram),
            "power": (wavy, power),
            "power_truth": (wavy, power_truth),
        },
        coords={
            "variable": [*VARIABLES, SPEED],
            "region": list(REGIONS),
            "rank": np.arange(histogram.shape[-1]),
            "wavenumber": np.arange(grid.longitude.size // 2 + 1),
        },
    )


def joint_statistics(ensemble: Field, truth: Field, grid: Grid, inside: NDArray[np.bool_] | None = None) -> xr.Dataset:
    """What CRPS does not see: whether members are right as whole fields (``energy_score``, of u and v together) and from place to
    place (``variogram_score``, by ``lag`` in points), and whether strong wind is (``brier_score`` of speed by ``threshold``).

    ``reliability`` has, by bin of forecast probability, how much area was in it, and the sums of that probability and of what was observed.
    Arguments as for :func:`statistics`; of pairs those count whose points both do.
    """
    weights = region_weights(grid, inside)
    flat = weights.reshape(len(REGIONS), -1)
    pairs = [weights if inside is None else region_weights(grid, inside & np.roll(inside, -lag, axis=-1)) for lag in LAGS]
    leads, channels = truth.shape[0], truth.shape[1] + 1
    energy, variogram = np.empty((leads, len(REGIONS))), np.empty((leads, channels, len(REGIONS), len(LAGS)))
    brier = np.empty((leads, len(REGIONS), len(THRESHOLDS)))
    reliability = np.zeros((leads, len(REGIONS), len(THRESHOLDS), PROBABILITIES.size, 3))
    for lead in range(leads):
        members, true = _with_speed(ensemble[:, lead]), _with_speed(truth[lead])
        energy[lead] = energy_scores(members[:, :2], true[:2], weights)
        for number, (lag, of_pairs) in enumerate(zip(LAGS, pairs, strict=True)):
            variogram[lead, ..., number] = variogram_score(members, true, lag).reshape(channels, -1) @ of_pairs.reshape(flat.shape).T
        for number, threshold in enumerate(THRESHOLDS):
            score, probability, observed = brier_score(members[:, 2], true[2], threshold)
            brier[lead, :, number] = flat @ score.ravel()
            bins = np.rint(probability * (PROBABILITIES.size - 1)).astype(np.intp).ravel()
            for region, weight in enumerate(flat):
                for what, value in enumerate((np.ones_like(score), probability, observed)):
                    total = np.bincount(bins, weights=weight * value.ravel(), minlength=PROBABILITIES.size)
                    reliability[lead, region, number, :, what] = total
    reliability[:, np.isnan(flat[:, 0])] = np.nan
    regional = (_AXES[0], "region")
    return xr.Dataset(
        {
            "energy_score": (regional, energy),
            "variogram_score": ((*_AXES, "lag"), variogram),
            "brier_score": ((*regional, "threshold"), brier),
            "reliability": ((*regional, "threshold", "probability", "of"), reliability),
        },
        coords={
            "variable": [*VARIABLES, SPEED],
            "region": list(REGIONS),
            "lag": list(LAGS),
            "threshold": list(THRESHOLDS),
            "probability": PROBABILITIES,
            "of": ["area", "forecast", "observed"],
        },
    )


def _with_speed(wind: Field) -> Field:
    """u, v and speed in the place of u and v, (..., channel, latitude, longitude)."""
    return np.concatenate([wind, np.sqrt(np.square(wind).sum(axis=-3, keepdims=True))], axis=-3)


def with_both(sums: xr.Dataset) -> xr.Dataset:
    """Statistics with further variables: the mean of u and v, and the vector that they are, whose squares are sums of theirs."""
    components = sums.sel(variable=list(VARIABLES))
    both = components.mean("variable").expand_dims(variable=[BOTH])
    squares = ["squared_error", "squared_error_debiased", "variance", "power", "power_truth"]
    vector = components[squares].sum("variable", skipna=False).expand_dims(variable=[VECTOR])
    varying = [name for name, field in sums.data_vars.items() if "variable" in field.dims]
    parts = [sums[varying], both[varying], vector]
    return xr.concat(parts, dim="variable", join="outer", coords="minimal", compat="override").merge(sums.drop_vars([*varying, "variable"]))


def scored_pairs(sums: xr.Dataset) -> xr.DataArray:
    """Which starts and lead times have scores of all forecasts, (time, prediction_timedelta)."""
    return sums["crps_fair"].isel(variable=0, region=0, drop=True).notnull().all("forecast")


def metrics(mean: xr.Dataset) -> xr.Dataset:
    """Metrics from statistics that were averaged over starts (and, where wanted, over variables).

    ``spread_skill`` is sqrt(mean variance) / sqrt(mean debiased squared error); 1 for a reliable ensemble of any size.
    Spectra as in :func:`spectral`; a statistic under the name of a metric is that metric once it is averaged.
    """
    spread_skill = (mean["variance"] / mean["squared_error_debiased"]) ** 0.5
    found = {
        "rmse": mean["squared_error"] ** 0.5,
        "spread": mean["variance"] ** 0.5,
        # A forecast without members has no spread to judge.
        "spread_skill": spread_skill.where(mean["variance"] > 0),
    }
    scores = xr.Dataset({name: mean[name] for name in ABOUT if name in mean} | found)
    return scores.merge(spectral(mean)) if "power" in mean else scores


def spectral(mean: xr.Dataset) -> xr.Dataset:
    """``power_ratio``, the mean power of members over that of the truth, by wavenumber from 1, and its deviations from 1: the largest, the
    mean and the sum over ``energetic_wavenumbers``, as in :func:`compared`.
    """
    wavy = mean[["power", "power_truth"]].isel(wavenumber=slice(1, None))
    return compared(wavy["power"], wavy["power_truth"], "wavenumber", "power")
