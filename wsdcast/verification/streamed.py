"""Stores of the statistics of forecasts that are scored as they are made, and whose fields are not kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.store.forecasts import LEADS_PER_CHUNK, Forecasts
from wsdcast.runs.unfinished import marks_of
from wsdcast.verification.scoring import statistics_of
from wsdcast.verification.truth import Truth

BYTES = 30_000
"""Approximate size of the statistics of one initial time and lead time."""


STRINGS = ("variable", "region", "of", "part")
"""Coordinates whose values are strings."""


@dataclass(frozen=True)
class ScoredForecasts(Forecasts):
    """An unfinished store of statistics (:mod:`wsdcast.verification.statistics`). It is filled in the same way as a store of fields.

    Attributes:
        truth: the truth against which the forecasts are scored.
    """

    truth: Truth

    def create(self) -> None:
        """Make room beside the store. What there is already stays."""
        self._parts.mkdir(exist_ok=True)

    @property
    def bytes(self) -> int:
        """Approximate size of the finished store."""
        return BYTES * self.times.size * len(self.leads)

    def write(self, row: int, first: int, wind: NDArray[np.float32]) -> None:
        """Score some lead times of one initial time, and write the statistics. The arguments are those of :meth:`Forecasts.write`."""
        valid = self.times[row] + self._leads[first : first + wind.shape[1]]
        found = statistics_of(wind, self.truth.at(valid), self.grid)
        found.to_netcdf(self._part(row, first))

    def close(self, attributes: dict[str, Any]) -> None:
        """Join the statistics of all initial times in one store, and complete it as :meth:`Forecasts.close` does."""
        starts = []
        for row in range(self.times.size):
            parts = [xr.load_dataset(self._part(row, first)) for first in range(0, len(self.leads), LEADS_PER_CHUNK)]
            starts.append(xr.concat(parts, dim="prediction_timedelta"))
        whole = xr.concat(starts, dim="time").assign_coords(time=self.times, prediction_timedelta=self._leads)
        names = {name: whole[name].astype(object) for name in STRINGS}
        whole.assign_coords(names).to_zarr(self.path, mode="a", zarr_format=3, consolidated=False)
        super().close(attributes)

    @property
    def _leads(self) -> NDArray[np.timedelta64]:
        return (np.array(self.leads) * np.timedelta64(1, "h")).astype("timedelta64[ns]")

    @property
    def _parts(self) -> Path:
        return marks_of(self.path) / "parts"

    def _part(self, row: int, first: int) -> Path:
        return self._parts / f"{row}-{first}.nc"
