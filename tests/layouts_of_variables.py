"""Random weather of several variables, written in the layouts of ERA5, CMIP, wgrib2, cfgrib and WeatherBench."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from conftest import six_hourly

from wsdcast.data.grid import Grid
from wsdcast.data.variables import DEFAULT, GRAVITY, variable

LEVELS = (850, 500)
CHANNELS = (*DEFAULT, "2m_temperature", "mean_sea_level_pressure", "geopotential@500", "temperature@500", "temperature@850")
TYPICAL = {
    "2m_temperature": (280, 10),
    "mean_sea_level_pressure": (101000, 1300),
    "geopotential": (54000, 1500),
    "temperature": (265, 12),
}
GRID = Grid.regular("12x7")


def made_weather() -> xr.Dataset:
    """Return ten days as WeatherBench 2 stores them: longitude before latitude, latitudes rising, levels in hPa."""
    random, times = np.random.default_rng(0), six_hourly("2020-01-01", 40)
    surface, upper = ("time", "longitude", "latitude"), ("time", "level", "longitude", "latitude")
    fields = {name: (surface, random.normal(0, 8, (40, 12, 7))) for name in DEFAULT}
    fields |= {name: (surface, random.normal(*TYPICAL[name], (40, 12, 7))) for name in CHANNELS[2:4]}
    fields |= {name: (upper, random.normal(*TYPICAL[name], (40, 2, 12, 7))) for name in ("geopotential", "temperature")}
    dataset = xr.Dataset(
        {
            name: (axes, values.astype(np.float32), {"units": variable(name if "level" not in axes else f"{name}@500").units})
            for name, (axes, values) in fields.items()
        },
        {"time": times, "level": ("level", [500, 850]), "longitude": GRID.longitude, "latitude": GRID.latitude[::-1]},
    )
    dataset["geopotential"] -= 40000 * (dataset.level == 850)  # 14,000 m2 s-2 at 850 hPa
    dataset["geopotential"].attrs["units"] = "m2 s-2"
    return dataset


SHORT = {
    DEFAULT[0]: "u10",
    DEFAULT[1]: "v10",
    "2m_temperature": "t2m",
    "mean_sea_level_pressure": "msl",
    "geopotential": "z",
    "temperature": "t",
}


def scaled(dataset: xr.Dataset, name: str, units: str, factor: float, shift: float = 0.0) -> xr.Dataset:
    return dataset.assign({name: (dataset[name] * factor + shift).assign_attrs(units=units)})


def cds_old(dataset: xr.Dataset, path: Path) -> None:
    """One file of the surface and one of levels in millibars, packed."""
    short = (
        dataset.rename(SHORT)
        .assign_coords(level=("level", np.int32([500, 850]), {"units": "millibars"}))
        .transpose("time", "level", "latitude", "longitude")
    )
    encoding = {"dtype": "int16", "_FillValue": -32767}
    short[["z", "t"]].to_netcdf(path / "levels.nc", encoding={"t": encoding | {"scale_factor": 0.004, "add_offset": 265.0}})
    short[["u10", "v10", "t2m", "msl"]].to_netcdf(path / "surface.nc")


def cds_new(dataset: xr.Dataset, path: Path) -> None:
    levels = ("pressure_level", [850.0, 500.0], {"units": "hPa", "standard_name": "air_pressure"})
    short = (
        dataset.rename(SHORT)
        .sel(level=[850, 500])
        .rename(level="pressure_level", time="valid_time")
        .assign_coords(pressure_level=levels, number=0)
    )
    short.sel(valid_time=short.valid_time).to_netcdf(path / "all.nc")


def cmip(dataset: xr.Dataset, path: Path) -> None:
    """Levels in Pa, geopotential height, standard names alone, one file for each variable."""
    names = dict.fromkeys(SHORT) | {
        DEFAULT[0]: "uas",
        DEFAULT[1]: "vas",
        "2m_temperature": "tas",
        "mean_sea_level_pressure": "psl",
        "geopotential": "zg",
        "temperature": "a",
    }
    named = (
        scaled(dataset, "geopotential", "m", 1 / GRAVITY)
        .rename(names)
        .rename(level="plev")
        .assign_coords(plev=("plev", [50000.0, 85000.0], {"units": "Pa"}))
    )
    named["a"].attrs["standard_name"] = "air_temperature"
    for name in names.values():
        named[[name]].to_netcdf(path / f"{name}.nc")


def wgrib2(dataset: xr.Dataset, path: Path) -> None:
    """The level is in the name; other units."""
    flat = dataset.drop_dims("level").rename(
        {
            DEFAULT[0]: "UGRD_10maboveground",
            DEFAULT[1]: "VGRD_10maboveground",
            "2m_temperature": "TMP_2maboveground",
            "mean_sea_level_pressure": "PRMSL_meansealevel",
        }
    )
    flat = scaled(flat, "TMP_2maboveground", "degC", 1, -273.15)
    flat = scaled(scaled(flat, "PRMSL_meansealevel", "hPa", 0.01), "UGRD_10maboveground", "knots", 3600 / 1852)
    for level in LEVELS:
        flat[f"HGT_{level}mb"] = (dataset.geopotential.sel(level=level, drop=True) / GRAVITY).assign_attrs(units="gpm")
        flat[f"TMP_{level}mb"] = dataset.temperature.sel(level=level, drop=True).assign_attrs(units="K")
    flat.to_netcdf(path / "all.nc")


def cfgrib(dataset: xr.Dataset, path: Path) -> None:
    """One file for each level, which is a scalar coordinate."""
    short = dataset.rename(SHORT)
    for level in LEVELS:
        short[["z", "t"]].sel(level=level).rename(level="isobaricInhPa").to_netcdf(path / f"{level}.nc")
    short[["u10", "v10", "t2m", "msl"]].to_netcdf(path / "surface.nc")


def arco(dataset: xr.Dataset, path: Path) -> None:
    """Chunks of one time that hold all levels; a time axis that reaches beyond the data."""
    attributes = {"valid_time_start": "2020-01-01", "valid_time_stop": "2020-01-10"}
    dataset = dataset.assign_attrs(attributes).transpose("time", "level", "latitude", "longitude").chunk(time=1)
    for name in dataset.data_vars:
        dataset[name].encoding.clear()
    dataset.to_zarr(path / "arco.zarr", zarr_format=3, consolidated=False)
