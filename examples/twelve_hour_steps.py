"""Make a record with steps of 12 h, to find out whether longer steps make better forecasts.

    python examples/twelve_hour_steps.py record RUN/analysis.zarr twelve.nc
    python examples/twelve_hour_steps.py forecast RUN/analysis.zarr TWELVE_RUN/forecast.zarr forecast-of-12-h.zarr

wsdcast takes steps of 6 h. The first command moves the states of a prepared record to other dates, so that states 12 h apart are 6 h apart
there. Within each split the states at 0 and 12 UTC come first, and those at 6 and 18 UTC follow after a gap. So no state is lost, and no
forecast leaves its split. The command prints the keys `data` of a recipe for the new record. Climatologies by month and hour mean nothing
there.

The second command gives a forecast from the new record its true initial times and lead times, which are twice as long. Then `wsdcast score`
can score it against the record that it comes from.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.steps import STEP

Times = NDArray[np.datetime64]


def moved(record: xr.Dataset) -> tuple[Times, list[np.datetime64]]:
    """Find the dates of the states of a record in a record with steps of 12 h.

    Args:
        record: a prepared record with the coordinate ``time`` and the attributes ``validation_from`` and ``test_from``.

    Returns:
        The date of each state there, and the first times of the training, the validation and the test split there.
    """
    times = record["time"].values
    bounds = [times[0], *(np.datetime64(record.attrs[name], "ns") for name in ("validation_from", "test_from")), times[-1] + STEP]
    dates, firsts, clock = times.copy(), [], times[0]
    for first, last in pairwise(bounds):
        firsts.append(clock)
        for phase in (0, 1):
            states = (times >= first) & (times < last) & ((times - times[0]) // STEP % 2 == phase)
            if states.any():
                dates[states] = clock + (times[states] - times[states][0]) // 2
                clock = dates[states][-1] + 2 * STEP  # one state is missing, so no sample has states of both
    return dates, firsts


def make_record(store: Path, output: Path) -> None:
    """Write the record with steps of 12 h, and print its keys for a recipe."""
    with xr.open_zarr(store, consolidated=False) as record:
        dates, (_, validation_from, test_from) = moved(record)
        states = record[[name for name, field in record.data_vars.items() if "time" in field.dims]].astype(np.float32).load()
    states.assign_coords(time=dates).sortby("time").drop_encoding().drop_attrs(deep=False).to_netcdf(output)
    first_times = {"validation_from": validation_from, "test_from": test_from}
    keys = (f"{name}: {time.astype('datetime64[h]')}:00" for name, time in first_times.items())
    print(f"data: {{source: {output}, {', '.join(keys)}}}")


def give_true_times(store: Path, forecast: Path, output: Path) -> None:
    """Write a forecast from the record with steps of 12 h with its true initial times and lead times."""
    with xr.open_zarr(store, consolidated=False) as record, xr.open_zarr(forecast, consolidated=False) as made:
        dates, _ = moved(record)
        if not np.isin(made["time"].values, dates).all():
            sys.exit(f"{forecast} has initial times that the record with steps of 12 h has not")
        order = np.argsort(dates)
        initial = record["time"].values[order[np.searchsorted(dates[order], made["time"].values)]]
        true = made.assign_coords(time=initial, prediction_timedelta=2 * made["prediction_timedelta"].values)
        true.drop_encoding().to_zarr(output, mode="w", consolidated=False)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["record", store, output]:
            make_record(Path(store), Path(output))
        case ["forecast", store, forecast, output]:
            give_true_times(Path(store), Path(forecast), Path(output))
        case _:
            sys.exit(__doc__)
