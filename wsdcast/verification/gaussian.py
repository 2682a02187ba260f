"""CRPS of a forecast that is a Gaussian at each point, such as one step of the moments network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.steps import STEP
from wsdcast.data.store.forecasts import loaded
from wsdcast.data.store.zarr_store import open_store
from wsdcast.data.winds import winds_of
from wsdcast.runs.names import PAST_ERRORS
from wsdcast.verification.intervals import BY_START, attributes_of
from wsdcast.verification.regions import REGIONS, region_weights
from wsdcast.verification.truth import Truth

Field = NDArray[np.floating]


def gaussian_crps(mean: Field, std: Field, truth: Field) -> Field:
    """Return the CRPS of N(mean, std^2) in closed form (Gneiting and Raftery 2007, section 4.2), in the unit of the truth.

    With z = (y - mean) / std it is std (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)). Where std is 0 it is the absolute error. The shapes of
    the arguments must broadcast.
    """
    import properscoring  # not before it is needed: importing it compiles functions for a second

    with np.errstate(divide="ignore", invalid="ignore"):
        score = properscoring.crps_gaussian(truth, mean, std)
    return np.where(std == 0, np.abs(truth - mean), score)


def one_step_scores(forecast: xr.Dataset, truth: Truth, scored: NDArray[np.bool_]) -> xr.DataArray:
    """Return the closed-form CRPS of a Gaussian forecast one time step ahead, averaged over initial times, (variable, region).

    It is in the units of the variables; ``both`` of a wind is the mean over u and v.

    Args:
        forecast: has ``<variable>_mean`` and ``<variable>_std``, (time, latitude, longitude), by initial time.
        truth: of the same grid.
        scored: the initial times that count, (time,).
    """
    initial_times: NDArray[np.datetime64] = forecast["time"].values
    true = truth.at(initial_times + STEP)
    weights = region_weights(truth.grid).reshape(len(REGIONS), -1)
    mean, std = (np.stack([forecast[f"{name}_{moment}"].values for name in truth.variables], axis=1) for moment in ("mean", "std"))
    scores = gaussian_crps(mean, std, true).reshape(*mean.shape[:2], -1) @ weights.T
    dimensions, coordinates = ("time", "variable", "region"), {"variable": list(truth.variables), "region": list(REGIONS)}
    components = xr.DataArray(scores, dims=dimensions, coords=coordinates).isel(time=scored).mean("time")
    winds = winds_of(truth.variables)
    both = [components.sel(variable=[wind.u, wind.v]).mean("variable").expand_dims(variable=[wind.both]) for wind in winds]
    return xr.concat([components, *both], dim="variable")


def gaussian_scores(path: Path | None, truth: Truth, scores: xr.Dataset) -> xr.DataArray | None:
    """CRPS in closed form of the Gaussian that the moments model predicts 6 h ahead, on the axes of ``scores``; NaN elsewhere.

    It is the mean over the initial times at which all forecasts have scores. It is of the predicted std itself: the members of the moments
    with past errors have that std times the root mean square of the errors at a point.

    None if ``path`` is None (no moments model), if 6 h is not one of the lead times, or if an older version wrote that forecast and did not
    store the predicted moments.
    """
    if path is None or STEP not in scores["prediction_timedelta"].values:
        return None
    with open_store(path) as store:
        if any(f"{name}_mean" not in store for name in truth.variables):
            return None
        fields = loaded(store[[f"{name}_{moment}" for name in truth.variables for moment in ("mean", "std")]], path)
        scored = scores[f"crps_fair{BY_START}"].isel(forecast=0, variable=0, region=0).sel(prediction_timedelta=STEP, time=fields["time"])
        crps = one_step_scores(fields, truth, scored.notnull().values).expand_dims(
            forecast=[PAST_ERRORS], prediction_timedelta=[STEP.astype("timedelta64[ns]")]
        )
    axes = ("forecast", "prediction_timedelta", "variable", "region")
    aligned = crps.reindex({name: scores[name] for name in axes})
    return aligned.assign_attrs(attributes_of("crps_gaussian", list(map(str, scores["variable"].values))))
