"""Tests of several processes on one job: two processes with gloo on one machine give the results of one, and decide alike."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_training import CHANNELS, GRID, Settings, X, both_losses, generator_network, moments_network, regression
from torch import nn

import wsdcast
from wsdcast.data.store.analysis import open_analysis
from wsdcast.runs.errors import UserError  # noqa: F401  (for the scripts)
from wsdcast.training.batches import FlowBatch
from wsdcast.training.loop import Plan, fit, read  # noqa: F401  (read for the scripts)
from wsdcast.training.predictions import write_predictions
from wsdcast.training.state import Training
from wsdcast.warmstart.flow import Draws
from wsdcast.warmstart.moments import MomentsModel

pytestmark = pytest.mark.slow

TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def two(directory: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Run a script in two joined processes, in ``directory``. The script can use all names of this module."""
    script = directory / "script.py"
    head = f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    head += "from test_processes import *\nfrom wsdcast.runs import processes\n"
    script.write_text(f"{head}processes.join()\nrank = processes.number()\n{body}\n")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *TORCHRUN, str(script)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=directory, env=environment)


def joint_batch(chosen: torch.Tensor, part: slice) -> FlowBatch:
    """Return this process's part of a batch that is drawn alike in all processes, from the sample numbers alone."""
    random, shape = torch.Generator().manual_seed(int(chosen[0])), (chosen.numel(), CHANNELS, *GRID)
    context = torch.randn(shape[0], 2 * CHANNELS, *GRID, generator=random, dtype=torch.float64)
    target, noise = (torch.randn(shape, generator=random, dtype=torch.float64) for _ in range(2))
    warmth, t = (torch.rand(shape[0], generator=random, dtype=torch.float64) for _ in range(2))
    return FlowBatch(context[part], target[part], Draws(warmth, t, noise).of(part), None)


def gradients(name: str, settings: Settings) -> dict[str, torch.Tensor]:
    """Return the gradients of the first step and their norm, in double precision."""
    torch.manual_seed(0)
    if name == "joint":
        model: nn.Module = nn.ModuleDict({"moments": moments_network(), "generator": generator_network()})
        for network in (model["moments"].network, model["generator"]):
            nn.init.normal_(network.last.weight, std=0.1)
    else:
        model = nn.Sequential(nn.Linear(1, 5), nn.SiLU(), nn.Linear(5, 1))
    training = Training.of(model.double(), torch.Generator())
    loss_of, batch_of = (both_losses, joint_batch) if name == "joint" else (regression, lambda chosen, part: X.double()[chosen[part]])
    (step,) = fit(training, Plan(batch_of, loss_of, 14, settings, 0))
    return {"norm": step.gradient} | {key: value.grad.contiguous() for key, value in training.model.named_parameters()}


BIG = 1e9  # so that no gradient is clipped
CASES = [
    ("plain", Settings(steps=1, batch=7, gradient_clip=BIG), Settings(steps=1, batch=14, gradient_clip=BIG)),
    # Each process has batches of three, three and one.
    ("plain", Settings(steps=1, batch=3, accumulate=3, gradient_clip=BIG), Settings(steps=1, batch=14, gradient_clip=BIG)),
    ("joint", Settings(steps=1, batch=2, gradient_clip=BIG), Settings(steps=1, batch=4, gradient_clip=BIG)),
    ("joint", Settings(steps=1, batch=3, accumulate=2, gradient_clip=BIG), Settings(steps=1, batch=6, accumulate=2, gradient_clip=BIG)),
]


def test_gradients_of_two_are_those_of_one_with_the_whole_batch(tmp_path):
    body = """
from safetensors.torch import save_file
for number, (name, how, _) in enumerate(CASES):
    save_file(gradients(name, how), f"{number}-{rank}.safetensors")
"""
    done = two(tmp_path, body)
    assert done.returncode == 0, done.stderr
    for number, (name, _, alone) in enumerate(CASES):
        expected = gradients(name, alone)
        assert expected["norm"] > 0.01
        for rank in (0, 1):
            result = load_file(tmp_path / f"{number}-{rank}.safetensors")
            assert result.keys() == expected.keys()
            for key, value in expected.items():
                torch.testing.assert_close(result[key], value, rtol=1e-11, atol=1e-13)


def test_each_process_draws_its_own_dropout_and_continues_it(tmp_path):
    """The first process draws as a single one does and the second draws otherwise. Both continue alike from the checkpoint."""
    body = """
import json, torch
torch.manual_seed(3)
training = Training.of(nn.Linear(2, 2), torch.Generator())
first = torch.rand(4).tolist()
kept = training.tensors()
told = processes.decided(lambda: kept)
second = torch.rand(4).tolist()
training.restore(told)
again = torch.rand(4).tolist()
Path(f"{rank}.json").write_text(json.dumps([first, second, again, sorted(name for name in kept if "dropout" in name)]))
"""
    done = two(tmp_path, body)
    assert done.returncode == 0, done.stderr
    results = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    torch.manual_seed(3)
    Training.of(nn.Linear(2, 2), torch.Generator())
    alone = [torch.rand(4).tolist(), torch.rand(4).tolist()]
    assert results[0][:2] == alone
    assert all(second == again for _, second, again, _ in results)
    assert len({tuple(part) for of_rank in results for part in of_rank[:2]}) == 4
    assert [names for *_, names in results] == [["random.dropout", "random.dropout.1"], []]


class Numbers:
    """Samples whose values are their index plus a fixed field."""

    shape = (2, 4, 8)

    def __len__(self) -> int:
        return 150

    def context(self, chosen: torch.Tensor) -> torch.Tensor:
        return chosen[:, None, None, None] + torch.arange(64.0).reshape(2, 4, 8)

    def target(self, chosen: torch.Tensor) -> torch.Tensor:
        return self.context(chosen)


def predicted(path: Path, dropout: bool) -> None:
    """Write the predictions of two networks, each for its part of the samples."""
    torch.manual_seed(5)
    networks = [MomentsModel(nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Dropout(0.5)), 2).train(dropout) for _ in range(2)]
    parts = torch.arange(150).split(80)
    path.mkdir(exist_ok=True)
    write_predictions(path, list(zip(networks, parts, strict=True)), Numbers(), {"id": "here"})


def test_two_share_the_predictions_and_write_the_bytes_of_one(tmp_path):
    """This also holds with dropout."""
    body = """
from wsdcast.training import predictions
predict, seen = predictions.predict, []
predictions.predict = lambda moments, samples, indices: seen.append(indices.numel()) or predict(moments, samples, indices)
predicted(Path("two-False"), False)
predicted(Path("two-True"), True)
processes.wait()
Path(f"{rank}.txt").write_text(str(sum(seen)))
"""
    done = two(tmp_path, body)
    assert done.returncode == 0, done.stderr
    for dropout in (False, True):
        one, both = tmp_path / f"one-{dropout}", tmp_path / f"two-{dropout}"
        predicted(one, dropout)
        assert (both / "moments.npy").read_bytes() == (one / "moments.npy").read_bytes()
        assert (both / "stamp.json").read_text() == (one / "stamp.json").read_text()
        assert np.unique(np.load(one / "moments.npy").reshape(150, -1), axis=0).shape[0] == 150
    shares = [int((tmp_path / f"{rank}.txt").read_text()) for rank in (0, 1)]
    assert sum(shares) == 2 * 150
    assert min(shares) >= 2 * 60


def test_both_processes_get_the_decision_and_the_error_of_the_first(tmp_path):
    body = """
decision = processes.decided(lambda: ("first", rank))
assert decision == ("first", 0)
try:
    processes.decided(lambda: (_ for _ in ()).throw(UserError("no room")))
except UserError as error:
    Path(f"{rank}.txt").write_text(str(error))
"""
    done = two(tmp_path, body)
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)] == ["no room", "no room"]


def test_a_loss_of_one_that_is_not_finite_ends_both_alike(tmp_path):
    body = """
training = Training.of(nn.Linear(1, 1), torch.Generator())
loss_of = lambda model, x: regression(model, x) * (float("nan") if rank and training.step == 3 else 1)
try:
    for step in fit(training, Plan(lambda chosen, part: X[chosen[part]], loss_of, 8, Settings(steps=5), 0)):
        read([step])
except UserError as error:
    Path(f"{rank}.txt").write_text(str(error))
"""
    done = two(tmp_path, body)
    assert done.returncode == 0, done.stderr
    first, second = ((tmp_path / f"{rank}.txt").read_text() for rank in (0, 1))
    assert first == second
    assert "the loss is nan at training step 3, with samples " in first


def test_a_full_disk_ends_both_with_one_line(tmp_path):
    """Only the first process writes checkpoints. The second would wait for it in the next step, or end in an error of the connection."""
    body = """
from wsdcast.training import checkpoints, fitting
from wsdcast.training.fitting import TrainingLog, fitted

def full(*_):
    assert rank == 0
    raise OSError(28, "No space left on device", "step-000000002.safetensors")

checkpoints.save = full
training = Training.of(nn.Linear(1, 1), torch.Generator())
batch_of = lambda chosen, part: X[chosen[part]]
try:
    fitted(training, Plan(batch_of, regression, 8, Settings(steps=5), 0), TrainingLog(validate_every=2), Path("."), "one")
except OSError as error:
    Path(f"{rank}.txt").write_text(f"{error} {training.step}")
"""
    done = two(tmp_path, body)
    assert done.returncode == 0, done.stderr
    ends = [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)]
    assert ends == ["[Errno 28] No space left on device: 'step-000000002.safetensors' 2"] * 2


def test_a_failure_of_one_alone_is_one_line_of_each(tmp_path):
    """The process that waits for the other ended in a traceback of its connection, in which the line of the other was lost."""
    body = """
from wsdcast.cli.command import app, command

@command
def fail():
    if rank:
        raise UserError("the store is damaged")
    torch.distributed.all_reduce(torch.zeros(1))

app(["fail"])
"""
    done = two(tmp_path, body)
    assert done.returncode != 0
    said = sorted(line for line in done.stderr.splitlines() if line.startswith(("wsdcast", "[rank")))
    assert said == ["wsdcast: another process ended; its message says why", "wsdcast: the store is damaged"]


RECIPE = """
name: tiny
data: {grid: 16x8, days: 20}
moments: {widths: [8, 8], steps: 4, batch: 4, dropout: 0.1}
generator: {widths: [8, 8], steps: 12, batch: 2, accumulate: 2, dropout: 0.3}
rollout: {members: 2, nfe: 2, starts: 2, days: 0.5}
training: {validate_every: 100}
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("processes")
    (directory / "tiny.yaml").write_text(RECIPE)
    wsdcast.prepare(directory / "tiny.yaml", directory / "run")
    return directory / "run"


LATE = """
import time
from wsdcast.runs import processes
from wsdcast.training import fitting
from wsdcast.weather.forecast import artefacts
from wsdcast.weather.stages import rollout, train
from wsdcast.weather.training import job, moments
from wsdcast.data.store.forecasts import Forecasts

def never(*_):
    raise AssertionError("only the first looks")

if rank:
    for module in (train, moments, job, rollout, artefacts, processes):
        module.is_current = never
    Forecasts.create = Forecasts.written = never
    for module, name in ((moments, "folds"), (moments, "make_stamp"), (fitting, "make_stamp"), (artefacts, "make_stamp")):
        def late(*arguments, part=getattr(module, name)):
            time.sleep(0.3)
            return part(*arguments)
        setattr(module, name, late)
import wsdcast
for _ in range(2):
    wsdcast.train(run="run")
    wsdcast.rollout(run="run")
"""


@pytest.fixture(scope="module")
def trained_by_two(prepared, tmp_path_factory) -> Path:
    """Return a run directory that two processes trained and rolled out twice. The second process is always late."""
    directory = tmp_path_factory.mktemp("two")
    shutil.copytree(prepared / "analysis.zarr", directory / "run/analysis.zarr")
    done = two(directory, LATE)
    assert done.returncode == 0, done.stderr
    return directory / "run"


def test_a_late_process_does_not_look_for_itself(trained_by_two):
    assert {path.name for path in trained_by_two.iterdir()} >= {"moments", "predictions", "generator", "forecast.zarr"}
    assert not [path.name for path in trained_by_two.iterdir() if "partial" in path.name]


def test_sigterm_to_one_stops_both_at_one_step_and_nothing_is_lost(prepared, trained_by_two, tmp_path):
    """Dropout is on, so the checkpoint holds the states of both processes' generators."""
    shutil.copytree(prepared / "analysis.zarr", tmp_path / "run/analysis.zarr")
    script = """
import os, signal, time
from wsdcast import cli
from wsdcast.training import fitting
fast = fitting.fit

def slow(training, plan):
    for step in fast(training, plan):
        if rank == 1 and step.number == 4 and plan.settings.steps == 12:
            os.kill(os.getpid(), signal.SIGTERM)
        yield step

fitting.fit = slow
cli.app(["train", "--run", "run"])
"""
    done = two(tmp_path, script)
    assert done.returncode != 0
    assert "wsdcast: training generator was stopped at step 5; the same command goes on from there" in done.stderr, done.stderr
    assert str(128 + signal.SIGTERM) in re.findall(r"exitcode *: (-?\d+)", done.stderr), done.stderr
    checkpoints = tmp_path / "run/.generator.partial/checkpoints/generator"
    assert [path.name for path in checkpoints.iterdir()] == ["step-000000005.safetensors"]
    done = two(tmp_path, "import wsdcast\nwsdcast.train(run='run')")
    assert done.returncode == 0, done.stderr
    resumed, whole = (load_file(run / "generator/weights.safetensors") for run in (tmp_path / "run", trained_by_two))
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_a_refusal_of_the_first_process_ends_both_with_its_line(trained_by_two, tmp_path):
    shutil.copytree(trained_by_two, tmp_path / "run")
    (tmp_path / "other.yaml").write_text(RECIPE.replace("steps: 12", "steps: 13"))
    done = two(tmp_path, "from wsdcast import cli\ncli.app(['train', '--recipe', 'other.yaml', '--run', 'run'])")
    assert done.returncode != 0
    line = "wsdcast: run/generator was made from another recipe (generator.steps: 12 there, 13 here); repeat the options"
    assert line in done.stderr, done.stderr
    assert "UserError" not in done.stderr
    assert "RuntimeError" not in done.stderr
    assert "2" in re.findall(r"exitcode *: (-?\d+)", done.stderr), done.stderr


MAPPING = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
import psutil
from wsdcast.data.store import analysis
psutil.virtual_memory = lambda: SimpleNamespace(available=1000)
read = analysis.read_packed

def slow(path, mapped):
    with Path(sys.argv[1], "log").open("a") as log:
        log.write("begin\\n")
    time.sleep(1)
    read(path, mapped=mapped)

analysis.read_packed = slow
print(float(analysis.open_analysis(Path(sys.argv[1], "analysis.zarr")).states[:].sum()))
"""


def test_one_of_two_writes_the_mapped_file(prepared, tmp_path):
    shutil.copytree(prepared / "analysis.zarr", tmp_path / "analysis.zarr")
    command = [sys.executable, "-c", MAPPING, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    sums = {process.communicate(timeout=100)[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert sums == {f"{float(open_analysis(prepared / 'analysis.zarr').states[:].sum())}\n"}
    assert (tmp_path / "log").read_text() == "begin\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent ended")
def test_processes_end_with_a_torchrun_that_was_killed(tmp_path):
    """The pipe has an end when the last process that can write to it is gone."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, time\nfrom wsdcast.runs import processes\nprocesses.join()\nos.write(1, b'joined\\n')\n"
        "time.sleep(100)\nos.write(1, b'went on\\n')\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(wsdcast.__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-m", *TORCHRUN, str(script)], stdout=subprocess.PIPE, text=True, env=environment) as torchrun:
        assert [torchrun.stdout.readline(), torchrun.stdout.readline()] == ["joined\n"] * 2
        torchrun.kill()
        assert torchrun.stdout.read() == ""
