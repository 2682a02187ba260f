"""Stages in a notebook: what they leave as it was in the process, and how they show what they did."""

from __future__ import annotations

import importlib
import random
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
import torch
import xarray as xr
from conftest import ROLLOUT, TINY, new_run

import wsdcast
from wsdcast.report import style
from wsdcast.runs import devices
from wsdcast.runs.progress import note, track
from wsdcast.runs.summary import Summary


def of_the_process() -> dict[str, object]:
    """Return what a stage must leave as it was."""
    return {
        "random numbers": (torch.get_rng_state().tolist(), random.getstate()),
        "threads": (torch.get_num_threads(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "numbers": (torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled(), np.geterr()),
        "kernels": (torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()),
        "figures": dict(matplotlib.rcParams),
        "signals": (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)),
        "directory": Path.cwd(),
        "modules": tuple(sys.path),
    }


def test_a_stage_leaves_the_process_as_it_was(prepared, tmp_path, without_animation):
    run = new_run(prepared, tmp_path, TINY.replace("{widths: [8, 8], steps: 4", "{widths: [8, 8], dropout: 0.1, steps: 4"))
    stages = {
        "train": lambda: wsdcast.train(tmp_path / "tiny.yaml", run),
        "rollout": lambda: wsdcast.rollout(run=run, deterministic=True),
        "plot": lambda: wsdcast.plot("tails", run=run),
        "nothing to do": lambda: wsdcast.train(tmp_path / "tiny.yaml", run),
    }
    for name, stage in stages.items():
        before = of_the_process()
        stage()
        after = of_the_process()
        assert not [key for key in before if before[key] != after[key]], name


@pytest.fixture
def odd_settings():
    """Settings of torch that a notebook may have. The device stands for a GPU."""
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    with torch.inference_mode():
        yield
    torch.set_default_device(None)
    torch.set_default_dtype(torch.float32)


def test_settings_of_torch_change_nothing(prepared, rolled_out, tmp_path, without_animation, odd_settings):
    run = new_run(prepared, tmp_path, ROLLOUT)
    wsdcast.train(tmp_path / "tiny.yaml", run)
    wsdcast.rollout(run=run)
    wsdcast.plot("tails", run=run)
    assert (torch.get_default_dtype(), torch.get_default_device().type) == (torch.float64, "meta")
    assert torch.is_inference_mode_enabled()
    for network in ("moments", "generator"):
        weights = [directory / network / "weights.safetensors" for directory in (run, rolled_out / "run")]
        assert weights[0].read_bytes() == weights[1].read_bytes()
    forecasts = [xr.open_zarr(directory / "forecast.zarr") for directory in (run, rolled_out / "run")]
    assert forecasts[0].equals(forecasts[1])


def test_a_gpu_that_a_stage_is_first_to_use_has_the_seed_of_the_notebook(monkeypatch):
    """Its generator cannot be saved before that. Afterwards it had the seed of the recipe."""
    seeds, is_used = [], iter([False, True])
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: next(is_used))
    monkeypatch.setattr(torch.cuda, "manual_seed", seeds.append)
    with devices.own_torch_settings():
        torch.default_generator.manual_seed(torch.initial_seed() + 1)
    assert seeds == [torch.initial_seed()]


def test_a_failed_stage_restores_the_random_numbers_too(prepared, tmp_path, monkeypatch):
    run, before = new_run(prepared, tmp_path), of_the_process()
    monkeypatch.setattr("wsdcast.weather.stages.train.train_generator", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        wsdcast.train(tmp_path / "tiny.yaml", run)
    assert of_the_process() == before


def test_figures_of_a_notebook_are_still_shown(monkeypatch):
    """Another backend of matplotlib would show none of the figures that follow in the notebook, without a word."""
    monkeypatch.setitem(matplotlib.rcParams, "backend", "svg")  # rc_context would not put it back
    importlib.reload(style)
    assert matplotlib.get_backend() == "svg"


def shown(written: str) -> list[str]:
    """Return the lines that a notebook shows of what was written: after a carriage return a text covers the one before it."""
    lines = []
    for line in written.split("\n"):
        seen = ""
        for text in line.split("\r"):
            seen = text + seen[len(text) :]
        lines.append(seen.rstrip())
    return lines


def test_a_notebook_shows_progress_in_one_line_and_notes_above_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipykernel", None)
    clock = iter(range(0, 1000, 3))  # each look at the clock takes three seconds
    monkeypatch.setattr("wsdcast.runs.notebook.time", SimpleNamespace(monotonic=lambda: next(clock)))  # that of other threads goes on
    seen, lines = [], []
    for item in track("abcd", "training", total=6, done=2, detail=str.upper):
        seen.append(item)
        lines.append(shown(capsys.readouterr().err)[-1])
        if item == "c":
            note("validated")
            assert shown(capsys.readouterr().err) == ["validated", ""]
    assert seen == list("abcd")
    assert lines == ["", "training 3 of 6, 9 s left  A", "training 4 of 6, 6 s left  B", "training 5 of 6, 3 s left  C"]
    assert shown(capsys.readouterr().err) == [""]  # nothing stays


def test_a_notebook_shows_a_summary_as_tables():
    summary = Summary("score", {"runs/a&b/scores.nc": "scores"}, {"grid": "<16x8>"}, [{"lead_hours": 6, "crps": 0.123456}], ["none"])
    first, second = ElementTree.fromstring(f"<div>{summary._repr_html_()}</div>")
    assert first.findtext("caption") == "wsdcast score"
    rows = [["".join(cell.itertext()) for cell in row] for row in first.iter("tr")]
    assert rows == [["grid", "<16x8>"], ["written", "runs/a&b/scores.nc: scores"], ["problem", "none"]]
    rows = [["".join(cell.itertext()) for cell in row] for row in second.iter("tr")]
    assert rows == [["lead_hours", "crps"], ["6", "0.1235"]]
    assert len(ElementTree.fromstring(f"<div>{Summary('train', facts={'loss': 1})._repr_html_()}</div>")) == 1
