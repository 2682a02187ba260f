"""Helpers of the tests: statistics of made-up settings of a study."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

Scores = dict[tuple[str, int], tuple[float, float]]
"""CRPS, and the factor by which the power is wrong, of each prior and number of evaluations."""
SHARES = {"standard": 0, "warm": 0.5, "features-only": 0.5}
"""Cost of the moments network of each prior, in evaluations of the generator."""


def made_settings(
    scores: Scores, power_by_seed: dict[int, float] | None = None, solver: str = "midpoint"
) -> list[tuple[dict[str, Any], dict[str, xr.Dataset]]]:
    """Return settings with their statistics on ten dates, as :func:`wsdcast.study.weather_summary.combine` takes them.

    Args:
        scores: CRPS and factor of the power of each setting.
        power_by_seed: another factor of the power for each seed; without it there is one seed with factor 1.
        solver: the solver of all settings.
    """
    times = np.datetime64("2020-01-01", "ns") + np.arange(10) * np.timedelta64(5, "D")
    dates = np.linspace(0.5, 1.5, 10)[:, None, None]
    coordinates = {"time": times, "prediction_timedelta": [np.timedelta64(6, "h").astype("timedelta64[ns]")], "variable": ["u"]}
    axes = tuple(coordinates)
    truth = np.ones((10, 1, 1, 4))
    settings = []
    for seed, seed_factor in (power_by_seed or {0: 1.0}).items():
        for (prior, nfe), (crps, factor) in scores.items():
            names = ("crps_fair", "crps_standard", "squared_error", "squared_error_debiased", "variance")
            fields: dict[str, Any] = dict.fromkeys(names, (axes, crps * dates))
            fields["runaway"] = (axes, np.zeros((10, 1, 1)))
            fields["power"] = ((*axes, "wavenumber"), seed_factor * factor * truth)
            fields["power_truth"] = ((*axes, "wavenumber"), truth)
            setting = {"prior": prior, "seed": seed, "solver": solver, "grid_in_time": "uniform", "warmth": 1.0, "nfe": nfe}
            dataset = xr.Dataset(fields, coords=coordinates)
            settings.append((setting, {"one step": dataset, "validation": dataset}))
    return settings
