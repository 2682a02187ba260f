"""Score a forecast of another model, with persistence and climatology for comparison, and print the CRPS by lead time.

    python examples/someone_elses_forecast.py FORECAST TRUTH [RUN]

FORECAST is a Zarr store in the layout of WeatherBench 2 or one near to it, such as that of ECMWF's ensemble,
gs://weatherbench2/datasets/ifs_ens/2018-2022-240x121_equiangular_with_poles_conservative.zarr. TRUTH is any source that `wsdcast prepare`
reads, on the same grid, such as `wb2`. If the two do not fit together, an error says why. Five years of initial times take very long;
select some with xarray first.
"""

from __future__ import annotations

import sys

import wsdcast


def main(forecast: str, truth: str, run: str | None = None) -> list[dict[str, float]]:
    """Print the table, and return its rows."""
    summary = wsdcast.score_forecast(forecast, truth, run, overwrite=True)
    names = [key for key in summary.scores[0] if key.startswith("crps_fair: ")]
    print("lead  ", *(name.removeprefix("crps_fair: ") for name in names))
    for row in summary.scores:
        print(f"{row['lead_hours']:4} h", *(f"{row[name]:.3f}" for name in names))
    return summary.scores


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(*sys.argv[1:])
