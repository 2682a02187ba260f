"""Writes fields to NetCDF or Zarr, a few lead times of one initial time after the other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import dask.array as da
import netCDF4
import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from wsdcast.data.store.forecasts import LEADS_PER_CHUNK
from wsdcast.data.store.zarr_store import TIME_ATTRIBUTES, close_store
from wsdcast.data.variables import VARIABLES, short_name
from wsdcast.output.blocks import LEAD
from wsdcast.runs.complete import complete, writing_netcdf
from wsdcast.runs.errors import UserError
from wsdcast.runs.inputs import require_no_input
from wsdcast.runs.progress import track

Format = Literal["netcdf", "zarr", "grib2"]
SUFFIXES: dict[Format, tuple[str, ...]] = {
    "netcdf": (".nc", ".nc4"),
    "zarr": (".zarr",),
    "grib2": (".grib2", ".grb2", ".grib", ".grb"),
}
"""Suffixes of the files of each format."""
COMPASS = {
    "latitude": {"standard_name": "latitude", "long_name": "latitude", "units": "degrees_north", "axis": "Y"},
    "longitude": {"standard_name": "longitude", "long_name": "longitude", "units": "degrees_east", "axis": "X"},
}
"""CF attributes of the coordinates in space."""
NETCDF_NAMES = {LEAD: "time", "number": "realization"}
"""Names in NetCDF of dimensions that have other names in our stores."""
REALIZATION = {"standard_name": "realization", "long_name": "ensemble member", "units": "1"}

Blocks = Iterator[tuple[int, xr.Dataset]]


@dataclass(frozen=True)
class Contents:
    """Fields to be written.

    Attributes:
        times: initial times, (time,).
        leads: lead times, (lead,).
        blocks: from the index of an initial time to its blocks. Each is the index of its first lead time, a multiple of
            :data:`LEADS_PER_CHUNK`, and a data set (prediction_timedelta, level, latitude, longitude) whose variables have attributes. All
            have the same variables, as float32.
        coordinates: coordinates of all dimensions but initial and lead time.
        constants: variables without these two dimensions.
        attributes: attributes of the whole.
    """

    times: NDArray[np.datetime64]
    leads: NDArray[np.timedelta64]
    blocks: Callable[[int], Blocks]
    coordinates: dict[str, Any]
    constants: dict[str, xr.DataArray]
    attributes: dict[str, Any]


def targets(path: Path, to: Format, times: NDArray[np.datetime64], inputs: Sequence[object], overwrite: bool) -> list[Path]:
    """Return the paths that are written: of NetCDF one for each initial time, with that time in its name if there are several.

    Raises:
        UserError: if there is no such format, the suffix is not one of the format, or as :func:`require_new`.
    """
    if to not in SUFFIXES:
        raise UserError(f"format '{to}': expected {', '.join(SUFFIXES)}")
    if path.suffix.lower() not in SUFFIXES[to]:
        raise UserError(f"--out {path}: {to} needs a name that ends in {' or '.join(SUFFIXES[to])}; --to chooses another format")
    paths = [path]
    if to == "netcdf" and times.size > 1:
        unit = "h" if (times == times.astype("datetime64[h]")).all() else "m"
        labels = [str(time).replace(":", "") for time in times.astype(f"datetime64[{unit}]")]
        paths = [path.with_name(f"{path.stem}-{label}{path.suffix}") for label in labels]
    require_new(paths, inputs, overwrite)
    return paths


def require_new(paths: list[Path], inputs: Sequence[object], overwrite: bool) -> None:
    """Check that nothing is replaced that should not be.

    Raises:
        UserError: if a path is one of the ``inputs`` (:func:`wsdcast.runs.inputs.require_no_input`), if it exists and ``overwrite`` is
            False, or if it is another kind of thing than what is written.
    """
    require_no_input(paths, inputs)
    for path in paths:
        if path.is_dir() and path.suffix != ".zarr":
            raise UserError(f"--out {path}: is a directory")
        if path.is_dir() and any(path.iterdir()) and not any((path / name).exists() for name in ("zarr.json", ".zgroup")):
            raise UserError(f"--out {path}: is a directory, and no Zarr store")
        if path.exists() and not overwrite:
            raise UserError(f"--out {path}: is there already; choose another name, or replace it with --overwrite")


def write(paths: list[Path], to: Format, contents: Contents) -> None:
    """Write the fields to the :func:`targets` of the format."""
    rows = track(range(contents.times.size), "writing", contents.times.size)
    if to == "zarr":
        with complete(paths[0]) as partial:
            _write_zarr(partial, contents, rows)
        return
    for row in rows:
        with complete(paths[row]) as partial:
            _write_netcdf(partial, contents, row, paths[row])


def _write_netcdf(path: Path, contents: Contents, row: int, final: Path) -> None:
    """Write one initial time by valid time. No variable has the attribute ``coordinates``; the whole file has it.

    CDO 2.1 warns about every coordinate that a variable names. Of a scalar height with CF's ``axis`` or ``positive`` it makes the vertical
    axis in the place of the members, and then reads no variable at all. The file gets the name ``final`` later.
    """
    start = np.datetime_as_string(contents.times[row], "s").replace("T", " ")
    since = {"units": f"hours since {start}", "calendar": "standard"}
    period = {"standard_name": "forecast_period", "long_name": "time since the initial time", "units": "hours"}
    reference = {"standard_name": "forecast_reference_time", "long_name": "initial time", **since}
    for first, block in contents.blocks(row):
        chunk = slice(first, first + block.sizes[LEAD])
        hours = (contents.leads[chunk] / np.timedelta64(1, "h")).astype(np.int32)
        block = block.rename({name: new for name, new in NETCDF_NAMES.items() if name in block.variables or name in block.dims})
        block = block.rename({name: short_name(str(name)) for name in block.data_vars if str(name).partition("@")[0] in VARIABLES})
        if first:
            with writing_netcdf(final), netCDF4.Dataset(path, "a") as file:
                for name, values in {"time": hours, "forecast_period": hours, **block.data_vars}.items():
                    file[str(name)][chunk] = np.asarray(values)
            continue
        axes = {NETCDF_NAMES.get(name, name): (NETCDF_NAMES.get(name, name), *rest) for name, (_, *rest) in contents.coordinates.items()}
        dataset = block.assign(contents.constants).assign_coords(
            axes
            | {
                "time": ("time", hours, {"standard_name": "time", "long_name": "valid time", "axis": "T", **since}),
                "forecast_period": ("time", hours, period),
                "forecast_reference_time": ((), np.int32(0), reference),
            }
        )
        dataset.attrs = {"Conventions": "CF-1.11", **contents.attributes}
        encoding: dict[str, Any] = {str(name): {"_FillValue": None} for name in dataset.coords}
        for name, array in dataset.data_vars.items():
            pieces = tuple(size if dimension in COMPASS else 1 for dimension, size in array.sizes.items())
            encoding[str(name)] = {"zlib": True, "complevel": 1, "shuffle": True, "chunksizes": pieces}
            array.encoding["coordinates"] = None
        with writing_netcdf(final):
            dataset.to_netcdf(path, engine="netcdf4", format="NETCDF4", unlimited_dims=["time"], encoding=encoding)


def _write_zarr(path: Path, contents: Contents, rows: Iterator[int]) -> None:
    """Write all initial times to one store in the layout of our own forecasts."""
    group = None
    for row in rows:
        blocks = contents.blocks(row)
        if group is None:
            first_block = next(blocks)
            _create_zarr(path, contents, first_block[1])
            blocks = itertools.chain([first_block], blocks)
            group = zarr.open_group(path, mode="r+", use_consolidated=False)
        for first, block in blocks:
            chunk = slice(first, first + block.sizes[LEAD])
            for name, array in block.data_vars.items():
                target: Any = group[str(name)]
                if "number" in array.dims:
                    target[row, :, chunk] = array.transpose("number", LEAD, ...).values
                else:
                    target[row, chunk] = array.values
    close_store(path, contents.attributes)


def _create_zarr(path: Path, contents: Contents, block: xr.Dataset) -> None:
    """Create a store whose arrays are as those of ``block``, but for all initial and lead times, and empty."""
    sizes = {"time": contents.times.size, **block.sizes, LEAD: contents.leads.size}
    variables, encoding = dict(contents.constants), dict[str, Any]()
    for name, array in block.data_vars.items():
        front = ("time", "number", LEAD) if "number" in array.dims else ("time", LEAD)
        dimensions = (*front, *(dimension for dimension in array.dims if dimension not in front))
        pieces = {**sizes, "time": 1, LEAD: min(LEADS_PER_CHUNK, sizes[LEAD])}
        chunks = tuple(pieces[dimension] for dimension in dimensions)
        shape = tuple(sizes[dimension] for dimension in dimensions)
        empty = da.full(shape, np.nan, dtype=np.float32, chunks=chunks)
        variables[str(name)] = xr.DataArray(empty, dims=dimensions, attrs=array.attrs)
        encoding[str(name)] = {"chunks": chunks, "fill_value": float("nan")}
    axes = {
        "time": ("time", contents.times, TIME_ATTRIBUTES["time"]),
        LEAD: (LEAD, contents.leads, TIME_ATTRIBUTES[LEAD]),
    } | contents.coordinates
    first = contents.times[0].astype("datetime64[D]")
    encoding["time"] = {"units": f"hours since {first}", "calendar": "proleptic_gregorian", "dtype": "int64"}
    if (contents.times != contents.times.astype("datetime64[h]")).any():
        encoding["time"]["units"] = f"minutes since {first}"
    xr.Dataset(variables, axes).to_zarr(path, zarr_format=3, consolidated=False, compute=False, encoding=encoding)
