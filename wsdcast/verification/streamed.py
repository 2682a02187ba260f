"""Stores of the statistics of forecasts that are scored as they are made, and whose fields are not kept."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.store.forecasts import LEADS_PER_CHUNK, STOPPED, Forecasts, loaded
from wsdcast.data.store.zarr_store import open_store
from wsdcast.runs.complete import writing_netcdf
from wsdcast.runs.unfinished import marks_of
from wsdcast.verification.scoring import statistics_of
from wsdcast.verification.truth import Truth

BYTES = 30_000
"""Approximate size of the statistics of one initial time and lead time."""


STRINGS = ("variable", "wind", "region", "of", "part")
"""Coordinates whose values are strings."""


@dataclass(frozen=True)
class ScoredForecasts(Forecasts):
    """An unfinished store of statistics (:mod:`wsdcast.verification.metrics`). It is filled in the same way as a store of fields.

    Attributes:
        truth: the truth against which the forecasts are scored.
    """

    truth: Truth

    def create(self) -> None:
        """Make a directory for the parts. If there is one, its parts stay, and only what :meth:`close` began is removed.

        An unfinished store without that directory is of an older version, which wrote fields. It is begun anew.
        """
        shutil.rmtree(self.path)
        self.path.mkdir()
        if self._parts.exists():
            return
        for row in range(self.times.size):
            (marks_of(self.path) / str(row)).unlink(missing_ok=True)
        self._parts.mkdir()

    @property
    def bytes(self) -> int:
        """Approximate size of the finished store."""
        return BYTES * self.times.size * len(self.leads) * max(1, len(self.variables) // 2)

    def write(self, row: int, first: int, fields: NDArray[np.float32]) -> None:
        """Score some lead times of one initial time, and write the statistics. The arguments are those of :meth:`Forecasts.write`."""
        valid = self.times[row] + self.lead_times[first : first + fields.shape[1]]
        scored = statistics_of(fields, self.truth.at(valid), self.grid, None, self.variables)
        with writing_netcdf(self._part(row, first)):
            scored.to_netcdf(self._part(row, first))

    def close(self, attributes: dict[str, Any]) -> None:
        """Join the statistics of all initial times in one store, and complete it as :meth:`Forecasts.close` does."""
        starts = []
        for row in range(self.times.size):
            parts = [xr.load_dataset(self._part(row, first)) for first in range(0, len(self.leads), LEADS_PER_CHUNK)]
            starts.append(xr.concat(parts, dim="prediction_timedelta"))
        whole = xr.concat(starts, dim="time").assign_coords(time=self.times, prediction_timedelta=self.lead_times)
        names = {name: whole[name].astype(object) for name in STRINGS if name in whole.coords}
        whole.assign_coords(names).to_zarr(self.path, mode="a", zarr_format=3, consolidated=False)
        super().close(attributes)

    @property
    def _parts(self) -> Path:
        return marks_of(self.path) / "parts"

    def _part(self, row: int, first: int) -> Path:
        return self._parts / f"{row}-{first}.nc"


def is_scored(path: Path) -> bool:
    """Whether a store of forecasts has statistics in the place of fields (:class:`ScoredForecasts`)."""
    with open_store(path) as store:
        return "crps_fair" in store


def read_scored(path: Path) -> xr.Dataset:
    """The statistics by initial time in a store of scored forecasts, (time, prediction_timedelta, ...)."""
    with open_store(path) as store:
        statistics = loaded(store[[name for name, field in store.data_vars.items() if "prediction_timedelta" in field.dims]], path)
    return statistics.assign_coords(
        {name: statistics[name].values.astype(object).astype(str) for name in STRINGS if name in statistics.coords}
    )


def lacks_truth(path: Path, times: NDArray[np.datetime64]) -> bool:
    """Whether scored forecasts lack statistics because the record was shorter when they were made. Its times are now ``times``."""
    with open_store(path) as store:
        scored = loaded(store[["crps_fair", STOPPED]].isel(variable=0, region=0), path)
    valid = scored["time"].values[:, None] + scored["prediction_timedelta"].values
    left = scored[STOPPED].isnull() | (scored[STOPPED] > scored["prediction_timedelta"])
    missing = scored["crps_fair"].isnull() & (left.sum("number") > 1)
    return bool((missing.transpose("time", "prediction_timedelta").values & np.isin(valid, times)).any())
