"""Stage 1: from a source of wind to the prepared store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from wsdcast.artefact import ANALYSIS, Summary, complete, is_current, make_stamp, require_space, resolve
from wsdcast.data.analysis import CHUNK, STEP, RunningMoments, open_analysis
from wsdcast.data.grid import Grid
from wsdcast.data.harmonics import SphericalHarmonics
from wsdcast.data.planet import LOWER, Planet
from wsdcast.data.regrid import conservative
from wsdcast.data.store import VARIABLES, close_store, create_store
from wsdcast.data.wind_files import fingerprint, open_wind_files
from wsdcast.errors import UserError
from wsdcast.progress import track
from wsdcast.recipe import Data, Recipe

Blocks = Iterator[NDArray[np.float32]]

PLANET_EPOCH = np.datetime64("2000-01-01", "ns")


def prepare(
    recipe: str | Path | None = None,
    run: str | Path | None = None,
    *,
    source: str | None = None,
    grid: str | None = None,
    overwrite: bool = False,
) -> Summary:
    """Bring 10 m wind to the recipe's grid and 6 h, in ``RUN/analysis.zarr``.

    Args:
        recipe: path or name of a recipe; default ``planet``.
        run: run directory; default ``runs/<recipe name>``.
        source: ``planet``, or a file, directory or glob of NetCDF files; default from the recipe.
        grid: LONGITUDESxLATITUDES; default from the recipe.
        overwrite: replace a store made from another recipe.

    Raises:
        UserError: if the source cannot be used, or a store of another recipe is in the way.
    """
    resolved, directory = resolve(recipe, run, data__source=source, data__grid=grid)
    path = directory / ANALYSIS
    files = "" if resolved.data.source == "planet" else fingerprint(resolved.data.source)
    if is_current(resolved, directory, ANALYSIS, overwrite, files):
        return Summary("prepare", facts={"current": str(path)})
    target = Grid.regular(resolved.data.grid)
    times, blocks = _planet(resolved.data, target) if resolved.data.source == "planet" else _files(resolved.data, target)
    validation_from, test_from = _split(resolved.data, times)
    require_space(directory, 2 * 4 * times.size * target.shape[0] * target.shape[1])
    with complete(path) as partial:
        arrays = create_store(partial, {"time": times}, target, (CHUNK,))
        training = RunningMoments(target)
        start = 0
        for block in track(blocks, "preparing", total=-(-times.size // CHUNK)):
            end = start + block.shape[0]
            for channel, array in enumerate(arrays):
                array[start:end] = block[:, channel]
            training.add(block[times[start:end] < validation_from])
            start = end
        attributes = {
            "title": "10 m wind prepared by wsdcast",
            "source": resolved.data.source,
            "validation_from": str(validation_from.astype("datetime64[s]")),
            "test_from": str(test_from.astype("datetime64[s]")),
            "normalisation": dict(zip(VARIABLES, training.result(), strict=True)),
            "wsdcast": json.dumps(make_stamp(resolved, directory, ANALYSIS, files)),
        }
        close_store(partial, attributes)
    return _summary(resolved, path)


def _planet(data: Data, target: Grid) -> tuple[NDArray[np.datetime64], Blocks]:
    """Wind of the lower layer of the simulated planet, read at the points of the target grid."""
    # One thread throughout, as in Planet.run: the same seed is to give the same bits.
    with threadpool_limits(limits=1):
        planet = Planet(seed=data.planet_seed)
        points = SphericalHarmonics(planet.settings.truncation, target.latitude, target.longitude.size, dtype=np.float32)
    times = PLANET_EPOCH + STEP * np.arange(data.days * 4)

    def blocks() -> Blocks:
        states = islice(planet.run(seed=data.planet_seed), times.size)
        while chunk := list(islice(states, CHUNK)):
            with threadpool_limits(limits=1):
                wind = [planet.wind(planet.streamfunction(state)[..., LOWER], points) for state in chunk]
            yield np.stack([np.stack([u.T, v.T]) for u, v in wind])

    return times, blocks()


def _files(data: Data, target: Grid) -> tuple[NDArray[np.datetime64], Blocks]:
    """Wind of files, regridded."""
    files = open_wind_files(data.source)
    return files.times, (conservative(block, files.grid, target) for block in files.blocks(CHUNK))


def _split(data: Data, times: NDArray[np.datetime64]) -> tuple[np.datetime64, np.datetime64]:
    """First times of validation and test: the recipe's, else the last fifth and tenth of the record.

    Raises:
        UserError: if training or test would be empty.
    """
    test_from = np.datetime64(data.test_from, "ns") if data.test_from else times[-max(1, times.size // 10)]
    validation_from = np.datetime64(data.validation_from, "ns") if data.validation_from else times[-max(2, times.size // 5)]
    validation_from = min(validation_from, test_from)
    for what, count in (("training", (times < validation_from).sum()), ("test", (times >= test_from).sum())):
        if count < 3:
            raise UserError(
                f"the {what} part has {count} steps of the record from {times[0].astype('datetime64[m]')} to "
                f"{times[-1].astype('datetime64[m]')}; set data.validation_from and data.test_from in the recipe"
            )
    return validation_from, test_from


def _summary(recipe: Recipe, path: Path) -> Summary:
    record = open_analysis(path)
    gaps = int((np.diff(record.times) != STEP).sum())
    facts = {
        "source": recipe.data.source,
        "grid": f"{record.grid.name} (longitudes x latitudes)",
        "record": f"{record.times[0].astype('datetime64[h]')} to {record.times[-1].astype('datetime64[h]')}",
        "steps": f"{record.times.size} of 6 h, {gaps} gaps",
        "training / validation / test": " / ".join(str(record.now(part).size) for part in ("train", "validation", "test")) + " triples",
        "mean of u, v": ", ".join(f"{value:.2f}" for value in record.mean) + " m/s, training part",
        "std of u, v": ", ".join(f"{value:.2f}" for value in record.std) + " m/s, training part",
    }
    return Summary("prepare", written={str(path): "6-hourly 10 m wind, m s-1"}, facts=facts)
