"""Make a record with steps of 12 h, to find out whether longer steps make better forecasts.

    python examples/twelve_hour_steps.py RUN/analysis.zarr twelve.nc

wsdcast takes steps of 6 h. This script moves the states of a prepared record to other dates, so that states 12 h apart are 6 h apart there.
Within each split the states at 0 and 12 UTC come first, and those at 6 and 18 UTC follow after a gap. So no state is lost, and no forecast
leaves its split. The script prints the keys `data` of a recipe for the new record. Its lead times are half of the true ones: 12 h in the
recipe is a forecast of 24 h. Climatologies by month and hour have no meaning there.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import xarray as xr

from wsdcast.data.steps import STEP


def twelve_hourly(record: xr.Dataset) -> tuple[xr.Dataset, list[np.datetime64]]:
    """Move the states of a record to the dates of steps of 12 h.

    Args:
        record: variables with the dimension ``time``, and the attributes ``validation_from`` and ``test_from``.

    Returns:
        The states at their new times, and the new first times of the training, the validation and the test split.
    """
    times = record["time"].values
    bounds = [times[0], *(np.datetime64(record.attrs[name], "ns") for name in ("validation_from", "test_from")), times[-1] + STEP]
    pieces, firsts, clock = [], [], times[0]
    for first, last in pairwise(bounds):
        firsts.append(clock)
        for phase in (0, 1):
            states = record.isel(time=(times >= first) & (times < last) & ((times - times[0]) // STEP % 2 == phase))
            if states.sizes["time"]:
                moved = clock + (states["time"].values - states["time"].values[0]) // 2
                pieces.append(states.assign_coords(time=moved))
                clock = moved[-1] + 2 * STEP  # one state is missing, so no sample has states of both
    return xr.concat(pieces, "time"), firsts


def main(store: Path, output: Path) -> None:
    """Write the record and print its keys for a recipe."""
    with xr.open_zarr(store, consolidated=False) as record:
        states = record[[name for name, field in record.data_vars.items() if "time" in field.dims]].astype(np.float32).load()
    moved, (_, validation_from, test_from) = twelve_hourly(states)
    moved.drop_encoding().to_netcdf(output)
    first_times = {"validation_from": validation_from, "test_from": test_from}
    dates = (f"{name}: {time.astype('datetime64[h]')}:00" for name, time in first_times.items())
    print(f"data: {{source: {output}, {', '.join(dates)}}}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
