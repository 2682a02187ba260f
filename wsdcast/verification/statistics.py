"""Statistics of forecasts that may be averaged, and the metrics computed from their averages.

A statistic is a mean over the sphere for one start and lead time. Starts are only ever averaged, so parts of a forecast scored apart
can be joined along ``time`` without loss; whatever is not linear (roots, ratios) comes after, in :func:`metrics`.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.verification.kernels import debiased_squared_error, fair_crps, standard_crps, variance, zonal_power

Field = NDArray[np.floating]

SPECTRAL_ENERGY = 1e-3
"""Wavenumbers with a smaller share of the truth's energy are left out where spectra are summed up in one number."""


def statistics(ensemble: Field, truth: Field, grid: Grid) -> dict[str, Field]:
    """Area means for one start.

    Args:
        ensemble: (member, lead, channel, latitude, longitude).
        truth: (lead, channel, latitude, longitude).
        grid: gives exact cell areas, as in WeatherBench 2.

    Returns:
        Arrays (lead, channel), and (lead, channel, wavenumber) for the two spectra. Spectra are of members, never of their mean.
    """
    weights = (grid.area_weights / grid.area_weights.sum() / grid.longitude.size)[:, None]

    def area_mean(field: Field) -> Field:
        return (field * weights).sum(axis=(-2, -1))

    return {
        "crps_fair": area_mean(fair_crps(ensemble, truth)),
        "crps_standard": area_mean(standard_crps(ensemble, truth)),
        "squared_error": area_mean((ensemble.mean(axis=0) - truth) ** 2),
        "squared_error_debiased": area_mean(debiased_squared_error(ensemble, truth)),
        "variance": area_mean(variance(ensemble)),
        "power": zonal_power(ensemble, grid).mean(axis=0),
        "power_truth": zonal_power(truth, grid),
    }


def metrics(mean: xr.Dataset) -> xr.Dataset:
    """Metrics from statistics that were averaged over starts (and, where wanted, over variables).

    ``spread_skill`` is sqrt(mean variance) / sqrt(mean debiased squared error); 1 for a reliable ensemble of any size.
    ``power_ratio`` is the mean power of members over the mean power of the truth, by wavenumber from 1.
    ``power_deviation`` is the largest and ``power_deviation_mean`` the mean of |1 - ratio| over the wavenumbers that hold more than
    a thousandth of the truth's energy, of which there are ``energetic_wavenumbers``.
    """
    wavy = mean.isel(wavenumber=slice(1, None))
    ratio = wavy["power"] / wavy["power_truth"]
    energetic = wavy["power_truth"] > SPECTRAL_ENERGY * wavy["power_truth"].sum("wavenumber")
    deviation = abs(1 - ratio).where(energetic)
    spread_skill = (mean["variance"] / mean["squared_error_debiased"]) ** 0.5
    return xr.Dataset(
        {
            "crps_fair": mean["crps_fair"],
            "crps_standard": mean["crps_standard"],
            "rmse": mean["squared_error"] ** 0.5,
            "spread": mean["variance"] ** 0.5,
            # A forecast without members has no spread to judge.
            "spread_skill": spread_skill.where(mean["variance"] > 0),
            "power_ratio": ratio,
            "power_deviation": deviation.max("wavenumber"),
            "power_deviation_mean": deviation.mean("wavenumber"),
            "energetic_wavenumbers": energetic.sum("wavenumber"),
        }
    )
