"""Stages in a notebook: what they leave as it was in the process, and how they show what they did."""

from __future__ import annotations

import importlib
import random
import signal
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from conftest import TINY, new_run

import wsdcast
from wsdcast.report import style


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


def test_a_failed_stage_restores_the_random_numbers_too(prepared, tmp_path, monkeypatch):
    run, before = new_run(prepared, tmp_path), of_the_process()
    monkeypatch.setattr("wsdcast.weather.stages.train.train_generator", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        wsdcast.train(tmp_path / "tiny.yaml", run)
    assert of_the_process() == before


def test_figures_of_a_notebook_are_still_shown():
    """Another backend of matplotlib would show none of the figures that follow in the notebook, without a word."""
    with matplotlib.rc_context({"backend": "svg"}):
        importlib.reload(style)
        assert matplotlib.get_backend() == "svg"
