"""Measure the memory that `wsdcast prepare` needs for the 24 channels of the recipe era5-upper.

    python examples/memory_of_preparing.py STEPS DIRECTORY

It writes a Zarr store of made fields with as many times to DIRECTORY (3 MB a time), prepares it, and prints the largest resident memory of
the process. A chunk holds 8 times and all levels. Linux only.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import numpy as np
import xarray as xr
import zarr
from scipy.ndimage import gaussian_filter

import wsdcast
from wsdcast.data.grid import Grid
from wsdcast.data.steps import STEP
from wsdcast.data.variables import variable
from wsdcast.weather.recipe import load_recipe

GRID = "240x121"
LEVELS = (850, 700, 500, 250)
STEPS_PER_CHUNK = 8
CLIMATE = {
    "2m_temperature": (280.0, 10.0),
    "mean_sea_level_pressure": (101_000.0, 1300.0),
    "geopotential": (54_000.0, 1500.0),
    "temperature": (265.0, 12.0),
    "specific_humidity": (0.006, 0.0008),
}
"""Mean and standard deviation of the made fields; those of wind are 0 and 8 m/s."""


def write_source(path: Path, steps: int, channels: list[str]) -> None:
    """Write smooth random fields of the channels."""
    grid, levels = Grid.regular(GRID), np.array(LEVELS)
    smooth = gaussian_filter(np.random.default_rng(0).standard_normal((64, *grid.shape)), (0, 3, 3), mode="wrap")
    smooth = np.clip(smooth / smooth.std(), -3, 3).astype(np.float32)
    times = np.datetime64("1980-01-01", "ns") + STEP * np.arange(steps)
    coordinates = {"time": times, "level": levels, "latitude": grid.latitude, "longitude": grid.longitude}
    xr.Dataset(coords=coordinates).to_zarr(path, zarr_format=3, consolidated=False)
    group = zarr.open_group(path, mode="r+")
    for name in dict.fromkeys(channel.split("@")[0] for channel in channels):
        of_name = [channel for channel in channels if channel.split("@")[0] == name]
        extent, dimensions = ((levels.size,), ("level",)) if "@" in of_name[0] else ((), ())
        shape = (*extent, *grid.shape)
        array = group.create_array(
            name,
            shape=(steps, *shape),
            chunks=(STEPS_PER_CHUNK, *shape),
            dtype="float32",
            dimension_names=("time", *dimensions, "latitude", "longitude"),
            attributes={"units": variable(of_name[0]).units},
        )
        mean, std = CLIMATE.get(name, (0.0, 8.0))
        # An isothermal atmosphere of 255 K has this geopotential above 500 hPa.
        heights = 287 * 255 * np.log(500 / levels) if name == "geopotential" else np.zeros(levels.size)
        for first in range(0, steps, STEPS_PER_CHUNK):
            numbers = np.arange(first, min(steps, first + STEPS_PER_CHUNK))
            fields = mean + std * smooth[(7 * numbers[:, None] + np.arange(levels.size)) % 64] + heights[:, None, None]
            array[first : first + numbers.size] = fields[:, : levels.size if extent else 1].reshape(-1, *shape)


def main(steps: int, directory: Path) -> None:
    """Write the source, prepare it and print the peak."""
    channels = load_recipe("era5-upper").data.variables
    write_source(directory / "source.zarr", steps, channels)
    recipe = load_recipe("planet").changed(data__source=str(directory / "source.zarr"), data__grid=GRID, data__variables=channels)
    wsdcast.prepare(recipe, directory / "run")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{steps} times of {len(channels)} channels, {GRID}: peak {peak:.2f} GiB")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(int(sys.argv[1]), Path(sys.argv[2]))
