"""Tests of the training loop: its results, that it continues bit for bit, and that several processes train as one."""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

import wsdcast
from wsdcast.data.store.analysis import open_analysis
from wsdcast.nets.unet import UNet
from wsdcast.runs.artefact import make_stamp
from wsdcast.runs.errors import UserError
from wsdcast.runs.unfinished import marks_of
from wsdcast.training import checkpoints, fitting
from wsdcast.training.loop import PendingStep, Step, fit, read
from wsdcast.training.state import Training
from wsdcast.warmstart.flow import training_loss
from wsdcast.weather.forcings import surroundings
from wsdcast.weather.recipe import load_recipe
from wsdcast.weather.samples import samples_of
from wsdcast.weather.stages import train

X = torch.linspace(-1, 1, 64)[:, None]


@dataclass(frozen=True)
class Settings:
    """Settings of a small training."""

    steps: int = 5
    batch: int = 2
    accumulate: int = 1
    learning_rate: float = 0.1
    warmup_steps: int = 0
    schedule: str = "half-cosine"
    gradient_clip: float = 10.0
    ema_decay: float = 0.9
    precision: str = "fp32"


def begun(model: nn.Module | None = None) -> Training:
    torch.manual_seed(0)
    return Training.of(model or nn.Linear(1, 1), torch.Generator().manual_seed(1))


def points(chosen: torch.Tensor, part: slice) -> torch.Tensor:
    return X[chosen[part]]


def regression(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return ((model(x) - 3 * x + 1) ** 2).mean()


def each(steps: Iterable[PendingStep]) -> list[Step]:
    """Return all steps, each read by itself."""
    return [result for step in steps for result in read([step])]


def test_training_finds_the_answer_and_averages_the_weights():
    training = begun()
    steps = list(fit(training, points, regression, 64, Settings(steps=600, batch=16, learning_rate=0.03, ema_decay=0.99), 0))
    assert len(steps) == training.step == 600
    assert training.averaged.weight.item() == pytest.approx(3, abs=0.02)
    assert training.averaged.bias.item() == pytest.approx(-1, abs=0.02)


def test_average_follows_its_warm_up_once_per_optimiser_step():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    training, differences, expected = begun(model), [], 1.0
    for step in fit(training, points, lambda model, _: model.weight.sum(), 8, Settings(ema_decay=0.3, accumulate=2), 0):
        decay = min(0.3, (1 + step.number) / (10 + step.number))
        expected = decay * expected + (1 - decay) * model.weight.item()
        differences.append(training.averaged.weight.item() - expected)
    assert differences == pytest.approx([0] * 5, abs=1e-6)


@pytest.mark.parametrize("together", [1, 4, 5])
def test_a_loss_that_is_not_finite_stops_with_its_step_and_its_samples(together):
    """This also holds if the step is read together with good ones before it and others after it."""
    training, order = begun(), []
    steps = fit(
        training,
        lambda chosen, _: order.append(chosen.tolist()),
        lambda model, _: model.weight.sum() * (math.nan if training.step == 3 else 1),
        8,
        Settings(),
        0,
    )

    def groups() -> None:
        while group := list(islice(steps, together)):
            read(group)

    with pytest.raises(UserError) as caught:
        groups()
    assert f"the loss is nan at training step 3, with samples {order[3][0]}, {order[3][1]};" in str(caught.value)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1 / 3, 2 / 3, 1, 1, 1, 1]),
        ("cosine", [1 / 3, 2 / 3, *(0.5 * (1 + math.cos(math.pi * share)) for share in (0, 0.25, 0.5, 0.75))]),
        ("half-cosine", [1 / 3, 2 / 3, 1, 1, 1, 0.5]),
    ],
)
def test_rate_rises_then_follows_the_schedule(schedule, expected):
    steps = list(fit(begun(), points, regression, 64, Settings(steps=6, warmup_steps=2, schedule=schedule), 0))
    np.testing.assert_allclose([step.rate for step in steps], 0.1 * np.array(expected), rtol=1e-6)


def by_gradient(training: Training, rate: float = 0.1) -> Training:
    """Return the training with plain gradient descent. (AdamW's steps would not depend on the scale of the gradient.)"""
    training.optimiser = torch.optim.SGD(training.model.parameters(), lr=rate)
    return training


@pytest.mark.parametrize(
    ("samples", "batch", "accumulate", "sizes"),
    [
        (64, 2, 4, [2, 2, 2, 2]),
        (9, 2, 8, [2, 2, 2, 2, 1]),
        (7, 2, 4, [2, 2, 2, 1]),
        (5, 4, 2, [4, 1]),
        (3, 8, 1, [3]),
        (1, 8, 2, [1]),
    ],
)
def test_a_step_follows_the_mean_over_its_samples(samples, batch, accumulate, sizes):
    """It does so for any division into batches, also if there are fewer samples than batch times accumulate."""
    batches: list[torch.Tensor] = []

    def batch_of(chosen: torch.Tensor, part: slice) -> torch.Tensor:
        batches.append(chosen[part])
        return points(chosen, part)

    training = by_gradient(begun())
    before = copy.deepcopy(training.model)
    settings = Settings(steps=1, batch=batch, accumulate=accumulate, schedule="constant", gradient_clip=1e9)
    (step,) = each(fit(training, batch_of, regression, samples, settings, 0))
    assert [part.numel() for part in batches] == sizes
    loss = regression(before, X[torch.cat(batches)])
    loss.backward()
    gradients = [parameter.grad for parameter in before.parameters()]
    assert step.loss == pytest.approx(loss.item(), rel=1e-6)
    assert step.gradient == pytest.approx(torch.cat([gradient.flatten() for gradient in gradients]).norm().item(), rel=1e-5)
    for old, new, gradient in zip(before.parameters(), training.model.parameters(), gradients, strict=True):
        torch.testing.assert_close(new, old - 0.1 * gradient)


def test_every_epoch_visits_every_sample_once_in_another_order():
    order = []
    for _ in fit(begun(), lambda chosen, _: order.append(chosen), lambda model, _: model.weight.sum(), 8, Settings(steps=8), 0):
        pass
    first, second = torch.cat(order[:4]).tolist(), torch.cat(order[4:]).tolist()
    assert sorted(first) == sorted(second) == list(range(8))
    assert first != second


def noisy(chosen: torch.Tensor, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
    return X[chosen[part]], torch.randn(chosen.numel(), 1, generator=noisy.random)[part]


def noisy_loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Return a loss that depends on noise, and on dropout in the model, as the generator's loss does."""
    return ((model(batch[0]) - batch[1]) ** 2).mean()


def test_a_training_that_is_given_back_its_tensors_goes_on_bit_for_bit():
    def fresh() -> Training:
        torch.manual_seed(0)
        training = Training.of(nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 1)), torch.Generator().manual_seed(1))
        noisy.random = training.random
        return training

    settings = Settings(steps=20, batch=6)
    whole = fresh()
    losses = [step.loss for step in each(fit(whole, noisy, noisy_loss, 64, settings, 3))]
    half = fresh()
    for step in fit(half, noisy, noisy_loss, 64, settings, 3):
        if step.number == 12:
            break
    tensors_at_12 = half.tensors()
    resumed = fresh()
    torch.rand(7)  # other code draws random numbers in between
    resumed.restore(tensors_at_12)
    assert [step.loss for step in each(fit(resumed, noisy, noisy_loss, 64, settings, 3))] == losses[13:]
    for name, value in whole.tensors().items():
        assert torch.equal(value, resumed.tensors()[name]), name


def test_a_checkpoint_of_another_kind_of_device_is_taken_up():
    """There the states of random generators have another length. Then new states depend on the step, and are the same each time."""
    kept = begun()
    list(fit(kept, points, regression, 64, Settings(steps=5), 0))
    tensors = kept.tensors() | {"random.loss": torch.zeros(16, dtype=torch.uint8)}

    def drawn(step: int) -> list[float]:
        training = begun()
        training.restore(tensors | {"step": torch.tensor(step)})
        assert training.step == step
        assert torch.equal(training.model.weight, kept.model.weight)
        assert torch.equal(training.averaged.weight, kept.averaged.weight)
        return torch.rand(3, generator=training.random).tolist()

    assert drawn(5) == drawn(5)
    beginning = torch.rand(3, generator=begun().random).tolist()
    assert len({tuple(drawn(5)), tuple(drawn(4)), tuple(beginning)}) == 3


def test_bf16_is_near_fp32():
    losses = {}
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        training = Training.of(nn.Sequential(nn.Linear(1, 32), nn.SiLU(), nn.Linear(32, 1)), torch.Generator())
        settings = Settings(steps=40, batch=16, learning_rate=0.01, precision=precision)
        losses[precision] = [step.loss for step in each(fit(training, points, regression, 64, settings, 0))]
        assert all(parameter.dtype == torch.float32 for parameter in training.model.parameters())
    assert losses["bf16"] != losses["fp32"]
    np.testing.assert_allclose(losses["bf16"], losses["fp32"], rtol=0.1)


def test_recomputed_activations_give_the_same_gradients():
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        network = UNet(3, 2, (8, 8), dropout=0.5, activation_checkpointing=recompute)
        nn.init.normal_(network.last.weight)
        torch.manual_seed(1)
        (network(torch.ones(2, 3, 8, 16)) ** 2).sum().backward()
        gradients.append([parameter.grad for parameter in network.parameters() if parameter.grad is not None])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_checkpoints_keep_the_newest_and_the_best(tmp_path):
    for step, best in ((10, False), (20, True), (30, False), (40, False)):
        checkpoints.save(tmp_path / "c", step, {"x": torch.tensor(step)}, {"step": step}, 2, best)
    assert {path.name for path in (tmp_path / "c").iterdir()} == {
        "step-000000030.safetensors",
        "step-000000040.safetensors",
        "best.safetensors",
    }
    assert load_file(tmp_path / "c/best.safetensors")["x"] == 20
    tensors, about = checkpoints.newest(tmp_path / "c")
    assert (tensors["x"], about) == (40, {"step": 40})
    # One checkpoint is damaged and one is half-written, by a process that was killed. The newest good one is read.
    (tmp_path / "c/step-000000040.safetensors").write_bytes(b"\0" * 100)
    (tmp_path / "c/step-000000050.partial").write_bytes(b"half")
    assert checkpoints.newest(tmp_path / "c")[1] == {"step": 30}
    assert checkpoints.newest(tmp_path / "nothing") is None


TWO = """
import atexit
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
import test_training as t
from wsdcast.runs import processes
atexit.register(lambda: Path(f"{out}/threads").write_text(str([path.read_text() for path in Path("/proc/self/task").glob("*/comm")])))
processes.join()
training = t.by_gradient(t.begun())
losses = [step.loss for step in t.each(t.fit(training, t.points, t.regression, 11, t.Settings(steps=12, batch=4, accumulate=2), 0))]
Path(f"{out}/{{processes.number()}}.txt").write_text(" ".join(map(str, [*losses, training.model.weight.item()])))
"""


@pytest.mark.slow
def test_two_processes_do_what_one_does_with_twice_the_batch(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(TWO.format(tests=str(Path(__file__).parent), out=tmp_path))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    first, second = ([float(number) for number in (tmp_path / f"{rank}.txt").read_text().split()] for rank in (0, 1))
    assert first == second
    # A thread of the process group that still runs at exit sometimes aborts the process.
    assert "gloo" not in (tmp_path / "threads").read_text()
    # Each of the two processes has five samples per step, in batches of four and one.
    training = by_gradient(begun())
    losses = [step.loss for step in each(fit(training, points, regression, 11, Settings(steps=12, batch=10), 0))]
    np.testing.assert_allclose(first, [*losses, training.model.weight.item()], rtol=1e-5)


RECIPE = """
name: tiny
data: {grid: 16x8, days: 30}
moments: {widths: [8, 8], steps: 6, batch: 4, dropout: 0.1}
generator: {widths: [8, 8], steps: 40, batch: 4, dropout: 0.1}
training: {validate_every: 10, keep_checkpoints: 2}
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("training")
    (directory / "tiny.yaml").write_text(RECIPE)
    wsdcast.prepare(directory / "tiny.yaml", directory / "run")
    return directory


@pytest.fixture(scope="module")
def whole(prepared) -> dict[str, torch.Tensor]:
    """Return the weights of a training that was not stopped."""
    wsdcast.train(run=prepared / "run")
    return load_file(prepared / "run/generator/weights.safetensors")


def fresh(prepared: Path, directory: Path) -> Path:
    shutil.copytree(prepared / "run/analysis.zarr", directory / "run/analysis.zarr")
    return directory / "run"


def test_every_validation_is_kept_and_printed(prepared, tmp_path, capsys):
    run = fresh(prepared, tmp_path)
    wsdcast.train(run=run)
    printed = capsys.readouterr().err
    lines = (run / "generator/generator-validations.csv").read_text().splitlines()
    assert lines[0] == "step,flow loss,w = 0,w = 0.25,w = 0.5,w = 0.75,w = 1"
    rows = [[float(value) for value in line.split(",")] for line in lines[1:]]
    assert [row[0] for row in rows] == [10, 20, 30, 40]
    assert all(row[1] == pytest.approx(np.mean(row[2:])) for row in rows)
    assert f"generator, step 40, validation: flow loss {rows[-1][1]:.4f}, w = 0 {rows[-1][2]:.4f}" in printed
    head = (run / "moments/moments-validations.csv").read_text().splitlines()[0]
    assert head == "step,NLL,std of (x - mean) / std,error"
    assert "moments, step 6, validation: NLL " in printed
    losses = (run / "generator/generator-losses.csv").read_text().splitlines()
    assert losses[0] == ",".join(Step.__dataclass_fields__)
    assert len(losses) == 41
    names = sorted(path.name for path in (run / "generator/checkpoints/generator").iterdir())
    assert names[-2:] == ["step-000000030.safetensors", "step-000000040.safetensors"]
    best = rows[int(np.argmin([row[1] for row in rows]))][0]
    assert load_file(run / "generator/checkpoints/generator/best.safetensors")["step"] == best


@pytest.mark.filterwarnings("ignore")  # warnings of tensorboard and protobuf about their own code
def test_tensorboard_shows_what_the_tables_have(prepared, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = load_recipe(prepared / "tiny.yaml").changed(training__tensorboard=True)
    run = fresh(prepared, tmp_path)
    wsdcast.train(recipe, run)
    events = EventAccumulator(str(run / "generator/tensorboard/generator"))
    events.Reload()
    rows = (run / "generator/generator-losses.csv").read_text().splitlines()[1:]
    expected = [float(row.split(",")[1]) for row in rows]
    np.testing.assert_allclose([event.value for event in events.Scalars("loss")], expected, rtol=1e-5)
    assert [event.step for event in events.Scalars("w = 0.5")] == [10, 20, 30, 40]


STOPPED = """
import os, signal, sys
from wsdcast.weather.stages import train
from wsdcast.training import checkpoints, fitting
import wsdcast
saved = checkpoints.save_file
def die(tensors, path, metadata):
    saved(tensors, path, metadata=metadata)
    if "generator" in str(path) and "000000020" in str(path):
        os.truncate(path, 1000)
        os.kill(os.getpid(), signal.{how})
checkpoints.save_file = die
wsdcast.train(run=sys.argv[1])
"""


@pytest.mark.slow
def test_killed_while_a_checkpoint_is_written_it_goes_on_to_the_same_bits(prepared, whole, tmp_path):
    run = fresh(prepared, tmp_path)
    done = subprocess.run([sys.executable, "-c", STOPPED.format(how="SIGKILL"), str(run)], capture_output=True, text=True, timeout=200)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (run / "generator").exists()
    assert [path.name for path in sorted((run / ".generator.partial/checkpoints/generator").glob("step-*"))] == [
        "step-000000010.safetensors",
        "step-000000020.partial",
    ]
    wsdcast.train(run=run)
    again = load_file(run / "generator/weights.safetensors")
    assert all(torch.equal(again[name], value) for name, value in whole.items())
    assert not (run / ".generator.partial").exists()


@pytest.mark.slow
def test_sigterm_stops_within_a_step_and_loses_nothing(prepared, whole, tmp_path):
    run = fresh(prepared, tmp_path)
    script = tmp_path / "slow.py"
    # Every step is slow, so that the signal arrives during one.
    script.write_text(
        "import sys, time\n"
        "from wsdcast import cli\n"
        "from wsdcast.training import fitting\n"
        "fast = fitting.fit\n"
        "def slow(training, *rest):\n"
        "    for step in fast(training, *rest):\n"
        "        print(step.number, flush=True)\n"
        "        time.sleep(0.2)\n"
        "        yield step\n"
        "fitting.fit = slow\n"
        "cli.app(['train', '--run', sys.argv[1]])\n"
    )
    process = subprocess.Popen([sys.executable, str(script), str(run)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(6 + 3):  # the third step of the generator
        process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGTERM, error
    assert "wsdcast: training generator was stopped at step 3; the same command goes on from there" in error
    wsdcast.train(run=run)
    again = load_file(run / "generator/weights.safetensors")
    assert all(torch.equal(again[name], value) for name, value in whole.items())


def test_steps_that_are_read_together_are_logged_and_kept_as_those_read_one_by_one(prepared, whole, tmp_path, monkeypatch):
    """On a GPU steps are read together. A loss that is not finite is found before a later checkpoint is saved."""
    losses = [(prepared / "run" / network / f"{network}-losses.csv").read_text().splitlines() for network in ("moments", "generator")]
    monkeypatch.setitem(fitting.STEPS_PER_READ, "cpu", 7)
    seen: list[int] = []
    monkeypatch.setattr(fitting, "read", lambda steps: seen.append(len(steps)) or read(steps))
    run = fresh(prepared, tmp_path)
    wsdcast.train(run=run)
    assert seen == [6, *[7, 3] * 4]
    again = load_file(run / "generator/weights.safetensors")
    assert all(torch.equal(again[name], value) for name, value in whole.items())
    for network, expected in zip(("moments", "generator"), losses, strict=True):
        found = (run / network / f"{network}-losses.csv").read_text().splitlines()
        assert [row.rsplit(",", 1)[0] for row in found] == [row.rsplit(",", 1)[0] for row in expected]

    run = fresh(prepared, tmp_path / "diverging")
    calls: list[int] = []

    def spoilt(*arguments):
        calls.append(1)
        return training_loss(*arguments) * (math.nan if len(calls) > 24 else 1)

    monkeypatch.setattr(train, "training_loss", spoilt)
    with pytest.raises(UserError, match="the loss is nan at training step 24, with samples "):
        wsdcast.train(run=run)
    checkpoint_directory = run / ".generator.partial/checkpoints/generator"
    assert {path.name for path in checkpoint_directory.glob("step-*")} == {"step-000000010.safetensors", "step-000000020.safetensors"}


def test_an_unfinished_training_of_another_recipe_is_not_touched(prepared, tmp_path):
    run = fresh(prepared, tmp_path)
    recipe = load_recipe(prepared / "tiny.yaml")
    diverging = recipe.changed(generator__learning_rate=1e30, generator__gradient_clip=1e30)
    with pytest.raises(UserError, match="at training step"):
        wsdcast.train(diverging, run)
    claimed = marks_of(run / ".generator.partial") / "claim.json"
    before = claimed.read_text()
    assert json.loads(before)["hash"] == make_stamp(diverging, run, "generator")["hash"]
    with pytest.raises(UserError, match=r"\.generator\.partial is unfinished and of another recipe"):
        wsdcast.train(recipe, run)
    assert claimed.read_text() == before
    wsdcast.train(recipe, run, overwrite=True)
    assert not claimed.parent.exists()
    assert not (run / ".generator.partial").exists()


@pytest.mark.slow
def test_torchrun_trains_what_one_process_does_with_twice_the_batch(prepared, tmp_path):
    recipe = load_recipe(prepared / "tiny.yaml").changed(moments__dropout=0.0, generator__dropout=0.0)
    logs = {}
    for name, batch, launcher in (
        ("one", 8, []),
        ("two", 4, ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]),
    ):
        run = fresh(prepared, tmp_path / name)
        text = yaml.safe_dump(recipe.changed(moments__batch=batch, generator__batch=batch).dump())
        (tmp_path / f"{name}.yaml").write_text(text)
        command = [sys.executable, "-m", *launcher, "wsdcast", "train", "--recipe", str(tmp_path / f"{name}.yaml"), "--run", str(run)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr
        for network in ("moments", "generator"):
            logs[name, network] = np.loadtxt(run / network / f"{network}-losses.csv", delimiter=",", skiprows=1)[:, :4]
    for network, steps in (("moments", 6), ("generator", 40)):
        # The columns are number, loss, learning rate and gradient norm of each step.
        one, two = logs["one", network], logs["two", network]
        assert len(one) == steps
        np.testing.assert_allclose(two[:3], one[:3], rtol=1e-4)
        np.testing.assert_allclose(two, one, rtol=2e-2)


def test_a_record_too_large_for_memory_is_mapped(prepared, tmp_path, monkeypatch):
    run = fresh(prepared, tmp_path)
    in_memory = open_analysis(run / "analysis.zarr")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    mapped = open_analysis(run / "analysis.zarr")
    assert isinstance(mapped.wind.values, np.memmap)
    np.testing.assert_array_equal(mapped.wind.values, in_memory.wind.values)
    samples = [
        samples_of(record, surroundings(record, load_recipe(prepared / "tiny.yaml").forcings, torch.device("cpu")), "train")[0]
        for record in (in_memory, mapped)
    ]
    assert torch.equal(*(part.context(torch.tensor([3, 8])) for part in samples))
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
    on_disk, in_memory = (open_analysis(prepared / "run/analysis.zarr", whole).wind for whole in (False, True))
    assert on_disk.shape == in_memory.shape == (120, 2, 8, 16)
    np.testing.assert_array_equal(on_disk[steps], in_memory[steps])
    assert on_disk[steps].dtype == np.float32


def test_samples_are_of_a_whole_record(prepared):
    record = open_analysis(prepared / "run/analysis.zarr", whole=False)
    forcings = surroundings(record, load_recipe(prepared / "tiny.yaml").forcings, torch.device("cpu"))
    with pytest.raises(TypeError, match="whole=True"):
        samples_of(record, forcings, "train")


@pytest.mark.parametrize(
    "changes",
    [
        {"generator__times": {"kind": "uniform"}},
        {"generator__times": {"mean": 1.2, "scale": 1.2}},
        {"generator__attention": [1]},
        {"generator__moments": "joint"},
        {"generator__moments": "joint", "generator__moments_weight": 0.01},
    ],
    ids=str,
)
def test_keys_of_the_recipe_reach_the_first_steps(prepared, tmp_path, changes):
    """Each change of the recipe gives other losses than the default within the first steps."""
    losses = []
    for part in ({}, {key: value for key, value in changes.items() if key != "generator__moments_weight"}, changes):
        recipe = load_recipe(prepared / "tiny.yaml").changed(moments__steps=1, generator__steps=3, **part)
        run = fresh(prepared, tmp_path / str(len(losses)))
        wsdcast.train(recipe, run)
        losses.append(np.loadtxt(run / "generator/generator-losses.csv", delimiter=",", skiprows=1)[:, 1])
    default, without_weight, changed = losses
    assert not np.allclose(changed, default, rtol=1e-4)
    assert ("generator__moments_weight" in changes) == (not np.allclose(changed, without_weight, rtol=1e-4))
    attends = any("attention" in name for name in load_file(run / "generator/weights.safetensors"))
    assert attends == ("generator__attention" in changes)
