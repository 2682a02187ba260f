"""How a prepared record is read: into memory, as a mapped file, or state by state."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from conftest import new_run

from wsdcast.data.store.analysis import open_analysis
from wsdcast.weather.forcings import surroundings
from wsdcast.weather.recipe import load_recipe
from wsdcast.weather.samples import samples_of


def test_a_record_too_large_for_memory_is_mapped(prepared, tmp_path, monkeypatch):
    run = new_run(prepared, tmp_path)
    in_memory = open_analysis(run / "analysis.zarr")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    mapped = open_analysis(run / "analysis.zarr")
    assert isinstance(mapped.states.values, np.memmap)
    np.testing.assert_array_equal(mapped.states.values, in_memory.states.values)
    contexts = []
    for record in (in_memory, mapped):
        forcings = surroundings(record, load_recipe(prepared / "tiny.yaml").forcings, torch.device("cpu"))
        contexts.append(samples_of(record, forcings, "train")[0].context(torch.tensor([3, 8])))
    assert torch.equal(*contexts)
    # The mapped file is used again, unless the store is newer.
    file = run / ".analysis.mapped.npy"
    before = file.stat().st_mtime_ns
    open_analysis(run / "analysis.zarr")
    assert file.stat().st_mtime_ns == before
    os.utime(run / "analysis.zarr/zarr.json", (time.time() + 10, time.time() + 10))
    open_analysis(run / "analysis.zarr")
    assert file.stat().st_mtime_ns > before


@pytest.mark.parametrize(
    "steps",
    [5, -1, slice(3, 11), slice(None, None, 40), [7, 3, 3, 60], [], np.array([[2, 1], [9, 2]]), np.arange(120) % 50 == 7],
    ids=str,
)
def test_states_on_disk_are_those_in_memory(prepared, steps):
    on_disk, in_memory = (open_analysis(prepared / "run/analysis.zarr", whole).states for whole in (False, True))
    assert on_disk.shape == in_memory.shape == (120, 2, 8, 16)
    np.testing.assert_array_equal(on_disk[steps], in_memory[steps])
    assert on_disk[steps].dtype == np.float32


def test_training_samples_need_the_whole_record_in_memory(prepared):
    record = open_analysis(prepared / "run/analysis.zarr", whole=False)
    forcings = surroundings(record, load_recipe(prepared / "tiny.yaml").forcings, torch.device("cpu"))
    with pytest.raises(TypeError, match="whole=True"):
        samples_of(record, forcings, "train")
