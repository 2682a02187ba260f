"""How a prepared record is read: into memory, as a mapped file, or state by state."""

from __future__ import annotations

import os
import shutil
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
import zarr
from conftest import TINY, new_run
from own_memory import needs_linux, own_memory

import wsdcast
from wsdcast.data.grid import Grid
from wsdcast.data.steps import STEP
from wsdcast.data.store import analysis
from wsdcast.data.store.analysis import Analysis, open_analysis
from wsdcast.data.store.states import PackedStates
from wsdcast.data.store.zarr_store import Packing
from wsdcast.data.variables import DEFAULT
from wsdcast.runs import resources
from wsdcast.runs.errors import UserError
from wsdcast.weather.forcings import ForcingFields, forcings_of
from wsdcast.weather.recipe import load_recipe
from wsdcast.weather.samples import samples_of
from wsdcast.weather.stages.train import _require_space
from wsdcast.weather.training.job import TrainingJob


def test_a_record_too_large_for_memory_is_mapped(prepared, tmp_path, monkeypatch):
    run = new_run(prepared, tmp_path)
    in_memory = open_analysis(run / "analysis.zarr")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    mapped = open_analysis(run / "analysis.zarr")
    assert isinstance(mapped.states.values, np.memmap)
    np.testing.assert_array_equal(mapped.states.values, in_memory.states.values)
    contexts = []
    for record in (in_memory, mapped):
        forcings = forcings_of(record, load_recipe(prepared / "tiny.yaml").forcings, torch.device("cpu"))
        contexts.append(samples_of(record, forcings, "train")[0].context(torch.tensor([3, 8])))
    assert torch.equal(*contexts)


@pytest.mark.parametrize("seconds", [-1000, -1, 10], ids=["older", "a little older", "newer"])
def test_a_mapped_file_is_used_again_unless_another_store_is_in_the_place_of_its_own(prepared, tmp_path, monkeypatch, seconds):
    """Its own was moved away, and the other one is older, as a copy with its times is, or was made after the clock was set back."""
    run = new_run(prepared, tmp_path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    first = open_analysis(run / "analysis.zarr").states.values.copy()
    file, metadata = run / ".analysis.mapped.npy", run / "analysis.zarr/zarr.json"
    before = file.stat().st_ino
    open_analysis(run / "analysis.zarr")
    assert file.stat().st_ino == before
    array = zarr.open_array(run / "analysis.zarr" / DEFAULT[0], mode="r+")
    array[:] = array[:] // 2
    changed = metadata.stat().st_mtime + seconds
    os.utime(metadata, (changed, changed))
    np.testing.assert_array_equal(open_analysis(run / "analysis.zarr").states.values[:, 0], first[:, 0] // 2)


def test_a_record_too_large_for_the_limit_of_a_container_is_mapped(prepared, tmp_path, monkeypatch):
    """The machine has more memory than the container may use."""
    run = new_run(prepared, tmp_path)
    monkeypatch.setattr(resources, "_free_in_groups", lambda: iter([1000]))
    assert isinstance(open_analysis(run / "analysis.zarr").states.values, np.memmap)


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
    forcings = forcings_of(record, load_recipe(prepared / "tiny.yaml").forcings, torch.device("cpu"))
    with pytest.raises(TypeError, match="whole=True"):
        samples_of(record, forcings, "train")


@needs_linux
def test_batches_from_forty_years_of_24_channels_take_little_memory(tmp_path):
    """The mapped file of 81 GB is sparse, so it takes no space on the disk. Its integers are 0, which mean the offset of each channel."""
    grid, count, channels = Grid.regular("240x121"), 40 * 1461, 24
    values = np.lib.format.open_memmap(tmp_path / "states.npy", "w+", np.int16, (count, channels, *grid.shape))
    assert values.nbytes > 80e9
    times = np.datetime64("1980-01-01", "ns") + STEP * np.arange(count)
    offset = np.arange(channels, dtype=np.float32)
    packed = PackedStates(values, Packing(np.full(channels, 0.1, np.float32), offset))
    names = tuple(f"geopotential@{level}" for level in range(1, channels + 1))
    std = np.full(channels, 2, np.float32)
    record = Analysis(packed, times, grid, offset - 3, std, std, times[-2000], times[-1000], variables=names)
    before = own_memory()
    (samples,) = samples_of(record, ForcingFields(torch.empty(0, *grid.shape)), "train")
    assert len(samples) == count - 2000 - 2
    for first in range(5):
        chosen = torch.arange(first, len(samples), len(samples) // 4)[:4]
        context, target = samples.context(chosen), samples.target(chosen)
        assert context.shape == (4, 2 * channels, *grid.shape)
        torch.testing.assert_close(target, torch.full_like(target, 1.5))
    assert own_memory() - before < values.nbytes / 200


def test_a_full_disk_is_noticed_before_a_record_is_mapped_or_anything_is_trained(prepared, tmp_path, monkeypatch):
    """120 states of 2 channels at 16x8 are 61,440 bytes; their 94 samples have moments of 192,512 bytes."""
    run = new_run(prepared, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=61_439))
    with pytest.raises(UserError, match=r"run: needs 193 kB on disk, but only 61 kB are free"):
        wsdcast.train(tmp_path / "tiny.yaml", run)
    assert [path.name for path in run.iterdir()] == ["analysis.zarr"]
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    with pytest.raises(UserError, match=r"run: needs 61 kB on disk, but only 61 kB are free"):
        open_analysis(run / "analysis.zarr")
    assert not (run / ".analysis.mapped.npy").exists()


def test_the_room_that_unfinished_predictions_have_is_not_asked_for_again(prepared, tmp_path, monkeypatch):
    run, recipe = new_run(prepared, tmp_path), load_recipe(prepared / "tiny.yaml")
    record = open_analysis(run / "analysis.zarr")
    (samples,) = samples_of(record, forcings_of(record, recipe.forcings, torch.device("cpu")), "train")
    job = TrainingJob(recipe, run, record, samples, samples)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(UserError, match="run: needs 193 kB on disk, but only 100 bytes are free"):
        _require_space(job)
    (run / ".predictions.partial").mkdir()
    (run / ".predictions.partial/moments.npy").write_bytes(bytes(192_512 - 100))
    _require_space(job)


def test_preparing_does_not_read_the_whole_record_for_its_summary(tmp_path, monkeypatch):
    monkeypatch.setattr(analysis, "read_packed", None)  # which reads it
    (tmp_path / "tiny.yaml").write_text(TINY)
    assert wsdcast.prepare(tmp_path / "tiny.yaml", tmp_path / "run").facts["steps"] == "120 of 6 h, 0 gaps"
