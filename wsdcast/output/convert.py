"""``wsdcast convert``: the members of a forecast as NetCDF, Zarr or GRIB 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from wsdcast.data.sources.foreign_forecasts import addresses_of, readable_channels
from wsdcast.data.steps import time_text
from wsdcast.data.store.forecasts import LEADS_PER_CHUNK, store_of
from wsdcast.data.store.zarr_store import TIME_ATTRIBUTES
from wsdcast.data.variables import DEFAULT, attributes
from wsdcast.output.blocks import LEAD
from wsdcast.output.fields import Box, Fields, open_fields
from wsdcast.output.writing import COMPASS, REALIZATION, Blocks, Contents, Format, targets, write
from wsdcast.runs.complete import complete
from wsdcast.runs.summary import Summary


def convert(forecast: str | Path, to: Format, out: str | Path, *, region: Box | None = None, overwrite: bool = False) -> Summary:
    """Write the members of a forecast of any origin in another format, with all of its variables that can be read.

    Args:
        forecast: path or URL of a store of forecasts, in any layout that :func:`wsdcast.score_forecast` reads; or a run directory with one.
        to: ``netcdf``, ``zarr`` or ``grib2`` (docs/products.md).
        out: file or store to write. If there are several initial times, NetCDF is one file for each, with the time in its name.
        region: west, south, east and north bound, degrees; default: all points. If east is less than west, it crosses the date line.
        overwrite: replace what is there.

    Raises:
        UserError: if the forecast cannot be read, no point lies in the region, ``out`` is there already or is the forecast, or the format
            cannot hold it.
    """
    fields, refused = open_all(forecast, region)
    paths = targets(Path(out), to, fields.times, addresses_of(fields.name), overwrite)
    fields.require_memory()
    summary = Summary("convert", facts=facts_of(fields) | refused)
    if to == "grib2":
        from wsdcast.output import grib2

        grib2.check(fields)
        with complete(paths[0]) as partial:
            left_out = grib2.write_grib(partial, fields)
        summary.facts["packing"] = f"{grib2.BITS} bits, error at most 0.001 m/s where a field of wind spans less than 128 m/s"
        if left_out:
            summary.facts["left out"] = f"{left_out} fields of members that were stopped"
    else:
        write(paths, to, _contents(fields))
    summary.written = {str(path): f"members, {to}" for path in paths}
    return summary


def open_all(forecast: str | Path, region: Box | None) -> tuple[Fields, dict[str, str]]:
    """Return all variables of a forecast that can be read, and a fact about the others for the summary, if there are any.

    Raises:
        UserError: as :func:`wsdcast.output.fields.open_fields`.
    """
    address = store_of(forecast)
    variables, refused = readable_channels(address)
    return open_fields(address, region, variables), {"not read": "; ".join(refused.values())} if refused else {}


def facts_of(fields: Fields) -> dict[str, Any]:
    """Return what the summary says about a forecast."""
    ends = [time_text(fields.times[end]) for end in (0, -1)]
    hours = (fields.leads / np.timedelta64(1, "h")).astype(int)
    return {
        "forecast": fields.name,
        "grid": fields.extent,
        "initial times": ends[0] if fields.times.size == 1 else f"{fields.times.size}, {ends[0]} to {ends[1]}",
        "members": fields.members,
        "lead times": f"{hours.size}, {hours[0]} to {hours[-1]} h",
    }


def origin_of(fields: Fields, what: str = "") -> dict[str, Any]:
    """Return the attributes of a file made from a forecast. Its title begins with ``what``."""
    title = f"{what}ensemble forecast{' of 10 m wind' * (fields.variables == DEFAULT)}"
    return {"title": title, "forecast": fields.name, **fields.channels.attrs}


def space_of(fields: Fields) -> dict[str, Any]:
    """Return the coordinates in space with their attributes."""
    return {name: (name, getattr(fields, name), attributes) for name, attributes in COMPASS.items()}


def _contents(fields: Fields) -> Contents:
    dimensions = (LEAD, "number", "latitude", "longitude")

    def blocks(row: int) -> Blocks:
        for first in range(0, fields.leads.size, LEADS_PER_CHUNK):
            values = fields.read(row, slice(first, first + LEADS_PER_CHUNK)).transpose(1, 0, 2, 3, 4)
            arrays = {}
            for channel, name in enumerate(fields.variables):
                arrays[name] = xr.DataArray(values[:, :, channel], dims=dimensions, attrs=attributes(name))
            yield first, xr.Dataset(arrays)

    coordinates = {"number": ("number", fields.numbers, REALIZATION | TIME_ATTRIBUTES["number"])} | space_of(fields)
    return Contents(fields.times, fields.leads, blocks, coordinates, {}, origin_of(fields))
