"""Forty years of 24 channels at 1.5 degrees through the whole training, from a mapped file of 81 GB that takes no space on the disk."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import xarray as xr
import yaml
from conftest import six_hourly
from own_memory import needs_linux, own_memory

import wsdcast
from wsdcast.bench.measure import memory_curve
from wsdcast.data.grid import Grid
from wsdcast.data.store.shards import CHUNK, SHARD
from wsdcast.data.store.zarr_store import Channels, Packing, add_variables, close_store, create_store, name_channels
from wsdcast.runs.artefact import make_stamp
from wsdcast.runs.names import ANALYSIS, PREDICTIONS
from wsdcast.training import predictions, validation
from wsdcast.weather.recipe import load_recipe

TIMES = six_hourly("1980-01-01", 40 * 1461)
GRID = Grid.regular("240x121")


def recipe_of(directory: Path, **generator) -> Path:
    """Return the shipped recipe of 24 channels with tiny networks, which train for two steps."""
    content = yaml.safe_load((Path(__file__).parents[1] / "pipelines/era5-upper.yaml").read_text())
    for network in ("moments", "generator"):
        content[network] |= {"widths": [8, 8], "blocks": 1, "steps": 2, "batch": 2, "compile": False, "precision": "fp32"}
    content["generator"] |= generator
    content["few_steps"] |= {"steps": 2, "batch": 2, "compile": False, "precision": "fp32"}
    path = directory / "long.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def lazily_made(recipe: Path, run: Path, validation_from: np.datetime64) -> int:
    """Make the prepared store of a recipe without values, and its mapped file without blocks on the disk. Return the bytes of the latter.

    All integers are 0, which mean the offset of each channel. The files of the store are empty and not read: the mapped file is.
    """
    loaded = load_recipe(recipe)
    names, store = loaded.data.channels.all, run / ANALYSIS
    packing = Packing(np.full(len(names), 0.1, np.float32), np.arange(len(names), dtype=np.float32))
    create_store(store, {"time": TIMES}, GRID, names, (CHUNK,), (SHARD,), packing)
    field = np.random.default_rng(0).uniform(0, 1, GRID.shape).astype(np.float32)
    add_variables(store, {name: xr.DataArray(field, dims=("latitude", "longitude")) for name in loaded.forcings.static})
    name_channels(store, Channels(names))  # after the static fields, with which xarray removes them
    attributes = {
        "wsdcast": json.dumps(make_stamp(loaded, run, ANALYSIS)),
        "normalisation": {name: {"mean": number - 3.0, "std": 2.0, "difference_std": 0.5} for number, name in enumerate(names)},
        "statistics_are_stale": False,
        "validation_from": str(validation_from),
        "test_from": str(TIMES[-1000]),
    }
    close_store(store, attributes)
    for name in names:
        for shard in range(-(-TIMES.size // SHARD)):
            (file := store / name / f"c/{shard}/0/0").parent.mkdir(parents=True)
            file.touch()
    mapped = run / f".{store.stem}.mapped.npy"
    size = np.lib.format.open_memmap(mapped, "w+", np.int16, (TIMES.size, len(names), *GRID.shape)).nbytes
    changed = (store / "zarr.json").stat().st_mtime_ns
    os.utime(mapped, ns=(changed, changed))
    return size


@pytest.mark.slow
@needs_linux
@pytest.mark.parametrize(("moments", "training"), [("joint", TIMES.size - 2000), ("frozen", 34)])
def test_training_on_forty_years_of_24_channels_takes_little_memory(tmp_path, monkeypatch, moments, training):
    """Batches have two to four samples, and the networks take most of what is measured: each context has 57 channels, 6.6 MB.

    With frozen moments the training split is short, because the moments of all of its samples are predicted and stored.
    """
    recipe = recipe_of(tmp_path, moments=moments)
    size = lazily_made(recipe, tmp_path / "run", TIMES[training])
    assert size > 80e9
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=16 << 30))  # too little for the record
    for module, name in ((validation, "MOST_SAMPLES"), (predictions, "BATCH"), (predictions, "CHECKED")):
        monkeypatch.setattr(module, name, 4)
    with memory_curve(own_memory) as curve:
        summary = wsdcast.train(recipe, tmp_path / "run")
    assert summary.facts["training samples"] == training - 2
    if moments == "frozen":
        stored = np.load(tmp_path / "run" / PREDICTIONS / "moments.npy", mmap_mode="r")
        assert stored.shape == (training - 2, 2, 24, *GRID.shape)
        np.testing.assert_allclose(stored[:, 0], 1.5, atol=0.1)  # persistence of the only state there is, normalised
    assert max(memory for _, memory in curve) - curve[0][1] < 2
