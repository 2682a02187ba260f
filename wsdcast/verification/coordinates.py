"""What the coordinates of scores are, in the words of CF, and how they are written."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

COORDINATES = {
    "forecast": {"long_name": "name of the forecast"},
    "time": {"standard_name": "forecast_reference_time", "long_name": "initial time"},
    "prediction_timedelta": {"standard_name": "forecast_period", "long_name": "lead time"},
    "variable": {"long_name": "name of the variable"},
    "units": {"long_name": "unit of the variable"},
    "wind": {"long_name": "name of the wind vector"},
    "region": {"long_name": "name of the region"},
    "station": {"long_name": "name of the station"},
    "latitude": {"standard_name": "latitude", "long_name": "latitude", "units": "degrees_north"},
    "longitude": {"standard_name": "longitude", "long_name": "longitude", "units": "degrees_east"},
    "rank": {"long_name": "number of members below the truth", "units": "1"},
    "lag": {"long_name": "distance of two points along a latitude circle in grid points", "units": "1"},
    "threshold": {"standard_name": "wind_speed", "long_name": "wind speed that an event exceeds", "units": "m s-1"},
    "probability": {"long_name": "middle of a bin of forecast probability", "units": "1"},
    "of": {"long_name": "what a value of the reliability counts"},
    "wavenumber": {"long_name": "waves around a latitude circle", "units": "1"},
    "degree": {"long_name": "degree of the spherical harmonics", "units": "1"},
    "part": {"long_name": "part of the kinetic energy"},
    "wavelength_of_wavenumber": {"long_name": "wavelength of a wavenumber along the equator", "units": "km"},
    "wavelength_of_degree": {"long_name": "wavelength of a degree", "units": "km"},
    "bound": {"long_name": "end of an interval"},
    "reference": {"long_name": "name of the forecast that a skill is over"},
}
"""Attributes of each coordinate. The units of times are added when they are written."""


def with_attributes(scores: xr.Dataset) -> xr.Dataset:
    """Return the scores with the attributes of :data:`COORDINATES`."""
    return scores.assign_coords({name: field.assign_attrs(COORDINATES[str(name)]) for name, field in scores.coords.items()})


def write_netcdf(scores: xr.Dataset, path: Path) -> None:
    """Write scores to NetCDF. The coordinates of dimensions have no value that stands for a missing one: CF allows none."""
    scores.to_netcdf(path, encoding={str(name): {"_FillValue": None} for name in scores.indexes})
