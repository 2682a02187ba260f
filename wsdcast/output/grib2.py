"""Writes members as GRIB 2, one message for each field, with the template of individual ensemble forecasts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.store.forecasts import LEADS_PER_CHUNK
from wsdcast.data.variables import name_and_level, variable
from wsdcast.output.fields import Fields
from wsdcast.runs.errors import UserError
from wsdcast.runs.progress import track

BITS = 16
"""Bits of a packed value. Values are packed in steps of a power of 2: half a step, the largest error, is 0.001 m/s or less for a field that
spans less than 128 m/s."""
MOST_MEMBERS = 255
"""The template counts members in one byte, and 255 means that the number is missing."""

PARAMETERS = {
    "100m_u_component_of_wind": (1, 2, 2, 103, 100),
    "100m_v_component_of_wind": (1, 2, 3, 103, 100),
    "total_precipitation_6hr": (11, 1, 52, 1, 0),
}
"""Product definition template, category and number of the parameter, type and value of its surface (WMO-No. 306, volume I.2, code tables
4.0, 4.2 and 4.5), of variables for which ecCodes has no short name that it can write. Those of the others follow from their short names."""
FACTORS = {"total_cloud_cover": 100.0, "total_precipitation_6hr": 1000.0}
"""From the units here to those of code table 4.2: percent, and kg m-2 of water."""
SUMMED = {"total_precipitation_6hr": 6, "toa_incident_solar_radiation": 1}
"""Hours before the valid time over which a variable is summed."""


def check(fields: Fields) -> None:
    """Check that GRIB 2 can hold the forecasts.

    Raises:
        UserError: if ecCodes is not installed, the grid is not of equal steps, or there are too many members.
    """
    try:
        import eccodes  # noqa: F401
    except ImportError:
        raise UserError("--to grib2 needs `pip install 'wsdcast[grib]'`") from None
    for name, axis in (("latitudes", fields.latitude), ("longitudes", fields.longitude)):
        steps = np.diff(axis)
        if steps.size and np.abs(steps - steps.mean()).max() > 1e-3 * np.abs(steps.mean()):
            raise UserError(f"{fields.name}: its {name} are not in equal steps, as this GRIB 2 grid needs; write NetCDF or Zarr")
    for name in SUMMED.keys() & {*fields.variables}:
        if fields.leads.min() < np.timedelta64(SUMMED[name], "h"):
            raise UserError(f"{fields.name}: {name} goes over {SUMMED[name]} h, more than its first lead time; write NetCDF or Zarr")
    count = fields.members
    if count >= MOST_MEMBERS:
        raise UserError(f"{fields.name}: has {count} members; GRIB 2 counts at most {MOST_MEMBERS - 1}; write NetCDF or Zarr")


def write_grib(path: Path, fields: Fields) -> int:
    """Write all members at all initial and lead times to one file, and return how many fields without any value were left out.

    The caller has called :func:`check`.
    """
    import eccodes

    numbers, left_out = fields.numbers, 0
    if numbers.min() < 0 or numbers.max() >= MOST_MEMBERS:
        numbers = np.arange(numbers.size)
    template = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
    try:
        for key, value in _keys_of_all(fields).items():
            eccodes.codes_set(template, key, value)
        with path.open("wb") as file:
            for row in track(range(fields.times.size), "writing", fields.times.size):
                for key, value in _keys_of_time(fields.times[row]).items():
                    eccodes.codes_set(template, key, value)
                for first in range(0, fields.leads.size, LEADS_PER_CHUNK):
                    leads = fields.leads[first : first + LEADS_PER_CHUNK]
                    values = fields.read(row, slice(first, first + leads.size))
                    for position, lead in enumerate(leads):
                        hours = int(lead / np.timedelta64(1, "h"))
                        eccodes.codes_set(template, "forecastTime", hours)
                        for member, number in enumerate(numbers):
                            eccodes.codes_set(template, "perturbationNumber", int(number))
                            for channel, name in enumerate(fields.variables):
                                field = values[member, position, channel]
                                if np.isfinite(field).any():
                                    file.write(_message(template, name, hours, field))
                                else:
                                    left_out += 1
    finally:
        eccodes.codes_release(template)
    return left_out


def _keys_of_all(fields: Fields) -> dict[str, Any]:
    """The keys that all messages share: the template, the level, the grid and the packing."""
    latitude, longitude = fields.latitude, fields.longitude
    keys: dict[str, Any] = {
        "centre": 255,  # no centre
        "significanceOfReferenceTime": 1,  # start of the forecast
        "productionStatusOfProcessedData": 2,  # research
        "typeOfProcessedData": 4,  # perturbed forecast
        "productDefinitionTemplateNumber": 1,  # individual ensemble forecast at a point in time
        "typeOfGeneratingProcess": 4,  # ensemble forecast
        "typeOfEnsembleForecast": 255,  # members are equal; none is a control
        "numberOfForecastsInEnsemble": fields.members,
        "indicatorOfUnitOfTimeRange": 1,  # hours
        "Ni": longitude.size,
        "Nj": latitude.size,
        "latitudeOfFirstGridPointInDegrees": latitude[0],
        "latitudeOfLastGridPointInDegrees": latitude[-1],
        "longitudeOfFirstGridPointInDegrees": longitude[0] % 360,
        "longitudeOfLastGridPointInDegrees": longitude[-1] % 360,
        "iScansNegatively": 0,
        "jScansPositively": 0,
        "packingType": "grid_simple",
        "bitsPerValue": BITS,
    }
    for key, axis in (("iDirectionIncrementInDegrees", longitude), ("jDirectionIncrementInDegrees", latitude)):
        keys[key] = abs(axis[-1] - axis[0]) / (axis.size - 1) if axis.size > 1 else 1.0  # the size of a single cell is not known
    return keys


def _keys_of_time(time: np.datetime64) -> dict[str, int]:
    moment = time.astype("datetime64[m]").item()
    return {"dataDate": int(f"{moment:%Y%m%d}"), "dataTime": int(f"{moment:%H%M}")}


def _message(template: int, name: str, hours: int, field: NDArray[np.float32]) -> bytes:
    """Return one message of a channel at a lead time in hours. Points without a value are marked in a bitmap."""
    import eccodes

    level = name_and_level(name)[1]
    handle = eccodes.codes_clone(template)
    try:
        if level is not None:
            eccodes.codes_set(handle, "typeOfLevel", "isobaricInhPa")
            eccodes.codes_set(handle, "level", level)
        if name in PARAMETERS:
            _set_parameter(handle, *PARAMETERS[name])
        else:
            eccodes.codes_set(handle, "shortName", variable(name).grib[0])
        if name in SUMMED:
            eccodes.codes_set(handle, "stepRange", f"{hours - SUMMED[name]}-{hours}")
        values = field.ravel().astype(np.float64) * FACTORS.get(name, 1.0)
        missing = ~np.isfinite(values)
        if missing.any():
            eccodes.codes_set(handle, "bitmapPresent", 1)
            eccodes.codes_set(handle, "missingValue", 1e30)
            values[missing] = 1e30
        eccodes.codes_set_values(handle, values)
        message: bytes = eccodes.codes_get_message(handle)
        return message
    finally:
        eccodes.codes_release(handle)


def _set_parameter(handle: int, template: int, category: int, number: int, surface: int, value: int) -> None:
    import eccodes

    eccodes.codes_set(handle, "productDefinitionTemplateNumber", template)
    if template == 11:
        eccodes.codes_set(handle, "typeOfStatisticalProcessing", 1)  # a sum
    keys = {"parameterCategory": category, "parameterNumber": number, "typeOfFirstFixedSurface": surface}
    for key, content in (keys | {"scaleFactorOfFirstFixedSurface": 0, "scaledValueOfFirstFixedSurface": value}).items():
        eccodes.codes_set(handle, key, content)
