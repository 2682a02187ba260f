"""Helpers of the tests: random wind on a small grid, and the record that a file or store of it gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from conftest import six_hourly, wind_dataset

from wsdcast.data.sources.pieces import SourceRecord
from wsdcast.data.sources.record import open_record

LATITUDES, LONGITUDES = np.linspace(90, -90, 7), np.arange(0, 360, 30.0)


def wind(count: int = 40) -> xr.Dataset:
    return wind_dataset(six_hourly("2020-01-01", count), LATITUDES, LONGITUDES)


def looked_at(path: Path) -> SourceRecord:
    return open_record(str(path), path.parent / "scratch")
