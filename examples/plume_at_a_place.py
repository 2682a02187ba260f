"""Open a forecast with xarray alone, and draw the ensemble at one place as a plume.

    python examples/plume_at_a_place.py RUN/forecast.zarr 52.5 13.4 plume.png

The plume shows quantiles of wind speed over the members at the nearest grid point by valid time, for the first initial time. Any ensemble
in the layout of WeatherBench 2 will do. (``wsdcast plot plume`` also draws the truth.)
"""

from __future__ import annotations

import sys

import numpy as np
import xarray as xr
from matplotlib.dates import ConciseDateFormatter
from matplotlib.figure import Figure


def plume(store: str, latitude: float, longitude: float) -> Figure:
    """Return the figure; latitude and longitude are in degrees north and east."""
    with xr.open_zarr(store, decode_timedelta=True) as forecast:
        east = abs((forecast["longitude"] - longitude + 180) % 360 - 180)  # longitude is a circle
        nearest = forecast.isel(time=0, longitude=east.argmin(dim="longitude")).sel(latitude=latitude, method="nearest")
        speed = np.hypot(nearest["10m_u_component_of_wind"], nearest["10m_v_component_of_wind"]).compute()
    valid = nearest["time"] + speed["prediction_timedelta"]
    low, lower, median, upper, high = speed.quantile([0.1, 0.25, 0.5, 0.75, 0.9], dim="number")

    figure = Figure(layout="constrained")
    axis = figure.subplots()
    axis.fill_between(valid, low, high, color="#cce3f0", label="10 to 90 %")
    axis.fill_between(valid, lower, upper, color="#85b8d9", label="25 to 75 %")
    axis.plot(valid, median, color="#0072B2", label="median")
    axis.set(xlabel="valid time (UTC)", ylabel="10 m wind speed (m/s)")
    axis.xaxis.set_major_formatter(ConciseDateFormatter(axis.xaxis.get_major_locator()))
    axis.set_title(
        f"{nearest['latitude'].item():g}°N {nearest['longitude'].item():g}°E, from {nearest['time'].dt.strftime('%Y-%m-%d %H').item()} UTC"
    )
    axis.legend()
    return figure


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    plume(sys.argv[1], float(sys.argv[2]), float(sys.argv[3])).savefig(sys.argv[4])
