"""Checkpoints: which are kept, what a damaged one means, who may read them, and those of older versions."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from small_training import begun, points, regression

from wsdcast.nets.weights import save_networks
from wsdcast.runs.recipes import Optimisation, TrainingLog
from wsdcast.training import checkpoints
from wsdcast.training.fitting import fitted
from wsdcast.training.loop import Plan, fit


def test_the_newest_checkpoints_are_kept(tmp_path):
    for step in (10, 20, 30, 40):
        checkpoints.save(tmp_path / "c", step, {"x": torch.tensor(step)}, {"step": step}, 2)
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["step-000000030.safetensors", "step-000000040.safetensors"]
    tensors, about = checkpoints.newest(tmp_path / "c")
    assert (tensors["x"], about) == (40, {"step": 40})
    # One checkpoint is damaged and one is half-written, by a process that was killed. The newest good one is read.
    (tmp_path / "c/step-000000040.safetensors").write_bytes(b"\0" * 100)
    (tmp_path / "c/step-000000050.partial").write_bytes(b"half")
    assert checkpoints.newest(tmp_path / "c")[1] == {"step": 30}
    assert checkpoints.newest(tmp_path / "nothing") is None


def test_others_may_read_weights_as_any_other_file(tmp_path):
    """safetensors itself writes files that only their owner can read. A group that shares a run directory could not use its networks."""
    (tmp_path / "plain").touch()
    checkpoints.save(tmp_path, 1, {"x": torch.zeros(2)}, {}, 2)
    save_networks({"weights": torch.nn.Linear(2, 2)}, tmp_path, {})
    assert {path.name: path.stat().st_mode for path in tmp_path.iterdir()} == dict.fromkeys(
        ["plain", "step-000000001.safetensors", "weights.safetensors", "stamp.json"], (tmp_path / "plain").stat().st_mode
    )


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_checkpoint_of_a_later_step_does_not_count_as_one_that_is_kept(tmp_path, keep):
    """Whoever goes on before it saves the next checkpoint before it too."""
    for step in (200, 300):
        checkpoints.save(tmp_path, step, {"step": torch.tensor(step)}, {}, 2)
    (tmp_path / "step-000000300.safetensors").write_bytes(b"damaged")
    checkpoints.save(tmp_path, 250, {"step": torch.tensor(250)}, {}, keep)
    assert checkpoints.newest(tmp_path)[0]["step"] == 250
    assert sorted(int(path.stem[5:]) for path in tmp_path.iterdir()) == [200, 250][-keep:]


def test_a_training_goes_on_from_a_checkpoint_of_an_older_version(tmp_path):
    """Those stored the lowest score too, and kept the checkpoint that had it."""
    settings = Optimisation(steps=6, batch=8)
    half = begun()
    list(fit(half, Plan(points, regression, 64, Optimisation(steps=3, batch=8, schedule="constant"), 0)))
    about = {"losses": [], "validations": [], "best": 0.5, "seconds": 1.0}
    for name in ("step-000000003", "best"):
        (tmp_path / "checkpoints/line").mkdir(parents=True, exist_ok=True)
        save_file(half.tensors(), tmp_path / f"checkpoints/line/{name}.safetensors", metadata={"about": json.dumps(about)})
    history = fitted(begun(), Plan(points, regression, 64, settings, 0), TrainingLog(), tmp_path, "line").history
    assert [row[0] for row in history.losses] == [3, 4, 5]
