"""GRIB messages of 10 m wind made with ecCodes."""

from __future__ import annotations

import tempfile
from typing import Any

import eccodes
import numpy as np

COLUMNS, ROWS = 8, 5


def message(values: np.ndarray | None = None, edition: int = 2, sample: str = "regular_ll_sfc", **keys: Any) -> bytes:
    """A message of 10 m wind, by default on a grid of 45 degrees from the north pole."""
    handle = eccodes.codes_grib_new_from_samples(f"{sample}_grib{edition}")
    usual: dict[str, Any] = {"dataDate": 20200101, "dataTime": 0, "shortName": "10u", "bitsPerValue": 24}
    if sample == "regular_ll_sfc":
        usual |= {"Ni": COLUMNS, "Nj": ROWS, "latitudeOfFirstGridPointInDegrees": 90, "latitudeOfLastGridPointInDegrees": -90}
        usual |= {"longitudeOfFirstGridPointInDegrees": 0, "longitudeOfLastGridPointInDegrees": 315}
        usual |= {"iDirectionIncrementInDegrees": 45, "jDirectionIncrementInDegrees": 45}
    for key, value in (usual | keys).items():
        eccodes.codes_set(handle, key, value)
    if values is not None:
        eccodes.codes_set_values(handle, values.ravel().astype(float))
    content: bytes = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return content


def sharing(*messages: bytes) -> bytes:
    """One message that the fields of several messages share. They must be on one grid and at one time."""
    multi = eccodes.codes_grib_multi_new()
    for content in messages:
        handle = eccodes.codes_new_from_message(content)
        eccodes.codes_grib_multi_append(handle, 4, multi)
        eccodes.codes_release(handle)
    with tempfile.TemporaryFile() as file:
        eccodes.codes_grib_multi_write(multi, file)
        eccodes.codes_grib_multi_release(multi)
        file.seek(0)
        return file.read()
