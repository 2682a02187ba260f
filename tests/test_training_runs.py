"""Training in a run directory: its logs and checkpoints, that it continues bit for bit, and what the recipe changes."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import new_run
from made_records import with_five_variables
from safetensors.torch import load_file

import wsdcast
from wsdcast.runs.artefact import make_stamp, read_stamp
from wsdcast.runs.errors import UserError
from wsdcast.runs.unfinished import claim, claim_of, marks_of
from wsdcast.training import fitting
from wsdcast.training.loop import Step, read
from wsdcast.warmstart.flow import training_loss
from wsdcast.weather.recipe import Recipe, load_recipe
from wsdcast.weather.training import generator
from wsdcast.weather.training.job import NETWORKS, random_of, seed_torch

RECIPE = """
name: tiny
data: {grid: 16x8, days: 30}
moments: {widths: [8, 8], steps: 6, batch: 4, dropout: 0.1}
generator: {widths: [8, 8], steps: 40, batch: 4, dropout: 0.1}
training: {validate_every: 10, keep_checkpoints: 2}
"""


@pytest.fixture
def run(prepared, tmp_path) -> Path:
    """Return a run directory for one test, with the prepared record."""
    return new_run(prepared, tmp_path, RECIPE)


@pytest.fixture
def recipe(run) -> Recipe:
    return load_recipe(run.parent / "tiny.yaml")


@pytest.fixture(scope="module")
def undisturbed(prepared, tmp_path_factory) -> Path:
    """Return the run directory of a training that was not stopped."""
    run = new_run(prepared, tmp_path_factory.mktemp("undisturbed"), RECIPE)
    wsdcast.train(run.parent / "tiny.yaml", run)
    return run


def same_weights(run: Path, other: Path) -> bool:
    ours, theirs = (load_file(directory / "generator/weights.safetensors") for directory in (run, other))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_summary_counts_the_samples_of_a_step(run, recipe, monkeypatch):
    """A step has no more samples than there are, and those of all batches that are accumulated."""
    needed: list[int] = []
    for module in ("wsdcast.weather.stages.train", "wsdcast.runs.processes"):
        monkeypatch.setattr(f"{module}.require_space", lambda _, size: needed.append(size))
    changes = {"moments__batch": 200, "generator__batch": 3, "generator__accumulate": 2, "generator__steps": 47}
    facts = wsdcast.train(recipe.changed(**changes), run).facts
    assert facts["training samples"] == 94
    assert facts["moments loss"].endswith("mean of the last tenth of 6 steps of 94 samples")
    assert re.fullmatch(r"error \d\.\d{3} std of the data; \(x - mean\) / std has std \d+\.\d\d", facts["moments, training split"])
    assert facts["generator loss"].endswith("mean of the last tenth of 47 steps of 6 samples")
    assert facts["predictions save"].endswith("because training visits a sample 3 times")
    of_predictions = np.load(run / "predictions/moments.npy").nbytes
    assert needed == [of_predictions, 0, of_predictions, 0]  # before all, and before each artefact; networks are small


def test_all_networks_have_seeds_of_their_own(recipe):
    seeds = []
    for seed in range(3):
        for network in NETWORKS:
            seed_torch(recipe.changed(seed=seed), network)
            seeds += [torch.initial_seed(), random_of(recipe.changed(seed=seed), network).initial_seed()]
    assert len(set(seeds)) == len(seeds)
    assert [seeds[number] for number in (0, 2, 8, 10, 16, 18)] == [*range(6)]  # those of version 0.1.0


def test_every_validation_is_kept_and_printed(run, recipe, capsys):
    wsdcast.train(recipe, run)
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
    assert names == ["step-000000030.safetensors", "step-000000040.safetensors"]


@pytest.mark.filterwarnings("ignore")  # warnings of tensorboard and protobuf about their own code
def test_tensorboard_shows_the_numbers_of_the_tables(run, recipe):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    wsdcast.train(recipe.changed(training__tensorboard=True), run)
    events = EventAccumulator(str(run / "generator/tensorboard/generator"))
    events.Reload()
    rows = (run / "generator/generator-losses.csv").read_text().splitlines()[1:]
    expected = [float(row.split(",")[1]) for row in rows]
    np.testing.assert_allclose([event.value for event in events.Scalars("loss")], expected, rtol=1e-5)
    assert [event.step for event in events.Scalars("w = 0.5")] == [10, 20, 30, 40]


KILLED_AT_A_CHECKPOINT = """
import os, signal, sys
import wsdcast
synchronised = os.fsync
def die(file):
    path = os.readlink(f"/proc/self/fd/{file}")
    if path.endswith("generator/step-000000020.partial"):
        os.truncate(file, 1000)
        os.kill(os.getpid(), signal.SIGKILL)
    synchronised(file)
os.fsync = die
wsdcast.train(sys.argv[1] + '/../tiny.yaml', sys.argv[1])
"""


@pytest.mark.slow
def test_killed_while_a_checkpoint_is_written_it_goes_on_to_the_same_bits(run, recipe, undisturbed):
    done = subprocess.run([sys.executable, "-c", KILLED_AT_A_CHECKPOINT, str(run)], capture_output=True, text=True, timeout=200)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (run / "generator").exists()
    assert [path.name for path in sorted((run / ".generator.partial/checkpoints/generator").glob("step-*"))] == [
        "step-000000010.safetensors",
        "step-000000020.partial",
    ]
    wsdcast.train(recipe, run)
    assert same_weights(run, undisturbed)
    assert not (run / ".generator.partial").exists()


@pytest.mark.slow
def test_sigterm_stops_within_a_step_and_loses_nothing(run, recipe, undisturbed, tmp_path):
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
        "cli.app(['train', '--recipe', sys.argv[1] + '/../tiny.yaml', '--run', sys.argv[1]])\n"
    )
    process = subprocess.Popen([sys.executable, str(script), str(run)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(6 + 3):  # the third step of the generator
        process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGTERM, error
    assert "wsdcast: training generator was stopped at step 3; the same command goes on from there" in error
    wsdcast.train(recipe, run)
    assert same_weights(run, undisturbed)


def test_steps_read_together_give_the_logs_and_weights_of_steps_read_one_by_one(prepared, run, recipe, undisturbed, tmp_path, monkeypatch):
    """On a GPU steps are read together. A loss that is not finite is noticed before a later checkpoint is saved."""
    losses = [(undisturbed / network / f"{network}-losses.csv").read_text().splitlines() for network in ("moments", "generator")]
    monkeypatch.setitem(fitting.STEPS_PER_READ, "cpu", 7)
    group_sizes: list[int] = []
    monkeypatch.setattr(fitting, "read", lambda steps: group_sizes.append(len(steps)) or read(steps))
    wsdcast.train(recipe, run)
    assert group_sizes == [6, *[7, 3] * 4]
    assert same_weights(run, undisturbed)
    for network, expected in zip(("moments", "generator"), losses, strict=True):
        logged = (run / network / f"{network}-losses.csv").read_text().splitlines()
        # The last column, the share of time spent on batches, differs from run to run.
        assert [row.rsplit(",", 1)[0] for row in logged] == [row.rsplit(",", 1)[0] for row in expected]

    run = new_run(prepared, tmp_path / "diverging", RECIPE)
    calls: list[int] = []

    def spoilt(*arguments):
        calls.append(1)
        return training_loss(*arguments) * (math.nan if len(calls) > 24 else 1)

    monkeypatch.setattr(generator, "training_loss", spoilt)
    with pytest.raises(UserError, match="the loss is nan at training step 24, with samples "):
        wsdcast.train(recipe, run)
    checkpoint_directory = run / ".generator.partial/checkpoints/generator"
    assert {path.name for path in checkpoint_directory.glob("step-*")} == {"step-000000010.safetensors", "step-000000020.safetensors"}


def test_an_unfinished_training_of_another_recipe_is_not_touched(run, recipe):
    diverging = recipe.changed(generator__learning_rate=1e30, generator__gradient_clip=1e30)
    with pytest.raises(UserError, match="at training step"):
        wsdcast.train(diverging, run)
    claim = marks_of(run / ".generator.partial") / "claim.json"
    before = claim.read_text()
    assert json.loads(before)["hash"] == make_stamp(diverging, run, "generator")["hash"]
    with pytest.raises(UserError, match=r"\.generator\.partial is unfinished and of another recipe"):
        wsdcast.train(recipe, run)
    assert claim.read_text() == before
    wsdcast.train(recipe, run, overwrite=True)
    assert not claim.parent.exists()
    assert not (run / ".generator.partial").exists()


CHAIN = {"generator__objective": "distil", "few_steps__steps": 2, "few_steps__batch": 2}
CHAIN |= {"fine_tune__steps": 2, "fine_tune__batch": 2, "fine_tune__rollout": (1,)}


@pytest.fixture(scope="module")
def chain(prepared, tmp_path_factory) -> Path:
    """Return the run directory of a recipe with all networks that there are."""
    run = new_run(prepared, tmp_path_factory.mktemp("chain"), RECIPE)
    wsdcast.train(load_recipe(run.parent / "tiny.yaml").changed(**CHAIN), run)
    return run


def artefacts(run: Path) -> dict[str, int]:
    """Return when each artefact of a run directory was written, or what of it is unfinished."""
    return {path.name: path.stat().st_mtime_ns for path in run.iterdir()}


@pytest.mark.parametrize(
    ("kept", "changes", "words"),
    [
        (["generator"], {"generator__prior": "mean-only"}, r"run/generator was made from another recipe \(generator.prior: warm there"),
        (["few-steps"], {"few_steps__steps": 3}, r"run/few-steps was made from another recipe \(few_steps.steps: 2 there, 3 here"),
        (["moments", "fine-tuned"], {"fine_tune__nfe": 1, "crps__alpha": 1.0}, r"run/fine-tuned was made from another recipe \(crps.alpha"),
        ([".generator.partial"], {"generator__prior": "mean-only"}, r"\.generator\.partial is unfinished and of another recipe"),
        ([".fine-tuned.partial"], {"fine_tune__steps": 3}, r"\.fine-tuned\.partial is unfinished and of another recipe"),
    ],
)
def test_a_network_of_another_recipe_is_refused_before_any_is_trained(chain, run, recipe, kept, changes, words):
    for name in kept:
        finished = name.removeprefix(".").removesuffix(".partial")
        if finished != name:
            claim(run / name, claim_of(read_stamp(chain / finished)), False)
        shutil.copytree(chain / finished, run / name)
    before = artefacts(run)
    with pytest.raises(UserError, match=words):
        wsdcast.train(recipe.changed(**CHAIN | changes), run)
    assert artefacts(run) == before


def test_later_networks_of_the_same_recipe_stay_where_an_earlier_one_is_trained_again(chain, run, recipe):
    for name in ("few-steps", "fine-tuned"):
        shutil.copytree(chain / name, run / name)
    summary = wsdcast.train(recipe.changed(**CHAIN), run)
    assert [Path(path).name for path in summary.written] == ["moments", "predictions", "generator"]
    assert same_weights(run, chain)


def test_predictions_of_another_recipe_are_replaced(chain, run, recipe):
    """They are made anew from the moments network, and no work of the user is lost with them."""
    shutil.copytree(chain / "predictions", run / "predictions")
    summary = wsdcast.train(recipe.changed(moments__steps=3, generator__steps=2), run)
    assert "predictions save" not in summary.facts  # training visits few of the samples
    expected = make_stamp(recipe.changed(moments__steps=3), run, "predictions")["id"]
    assert read_stamp(run / "predictions")["id"] == expected != read_stamp(chain / "predictions")["id"]


@pytest.mark.slow
def test_torchrun_trains_what_one_process_does_with_twice_the_batch(prepared, recipe, tmp_path):
    recipe = recipe.changed(moments__dropout=0.0, generator__dropout=0.0)
    logs = {}
    for name, batch, launcher in (
        ("one", 8, []),
        ("two", 4, ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]),
    ):
        run = new_run(prepared, tmp_path / name, RECIPE)
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


WEIGHTS = {"training__weights": {"10m_u_component_of_wind": 3.0}}
JOINT, CRPS = {"generator__moments": "joint"}, {"generator__objective": "crps", "crps__noise": "fields"}
# With such a weight the loss of the moments is nothing beside that of the flow, or everything.
FLOW_ALONE, LIKELIHOOD_ALONE = JOINT | {"generator__moments_weight": 1e-9}, JOINT | {"generator__moments_weight": 1e9}


def first_losses(run: Path, network: str) -> np.ndarray:
    return np.loadtxt(run / network / f"{network}-losses.csv", delimiter=",", skiprows=1)[:, 1]


@pytest.fixture(scope="module")
def begun_runs(prepared, tmp_path_factory) -> Callable[..., tuple[Recipe, Path]]:
    """Return a function that trains the first steps of a recipe with changes, once. Its run directory must not be changed."""

    @cache
    def begun_run(**changes) -> tuple[Recipe, Path]:
        run = new_run(prepared, tmp_path_factory.mktemp("begun"), RECIPE)
        recipe = load_recipe(run.parent / "tiny.yaml").changed(moments__steps=2, generator__steps=3, **changes)
        wsdcast.train(recipe, run)
        return recipe, run

    return begun_run


@pytest.mark.parametrize(
    ("network", "base", "change"),
    [
        ("moments", {}, WEIGHTS),
        ("generator", {}, WEIGHTS),
        ("generator", {}, {"generator__loss_weight": "edm"}),
        ("generator", {}, {"generator__times__kind": "uniform"}),
        ("generator", {}, {"generator__times__mean": 1.2, "generator__times__scale": 1.2}),
        ("generator", {}, {"generator__attention": [1]}),
        ("generator", {}, JOINT),
        ("generator", JOINT, {"generator__moments_weight": 0.01}),
        ("generator", FLOW_ALONE, WEIGHTS),
        ("generator", FLOW_ALONE, {"generator__loss_weight": "edm"}),
        ("generator", LIKELIHOOD_ALONE, WEIGHTS),
        *(("generator", CRPS, change) for change in (WEIGHTS, {"crps__alpha": 0.5}, {"crps__spectral_weight": 0.2})),
        ("few-steps", CHAIN, WEIGHTS),
        ("few-steps", CHAIN, {"few_steps__begin": "scratch"}),
        ("few-steps", CHAIN, {"few_steps__nfe": 2, "fine_tune__nfe": 2}),
        *(("fine-tuned", CHAIN, change) for change in (WEIGHTS, {"crps__alpha": 0.5}, {"crps__spectral_weight": 0.2})),
    ],
    ids=str,
)
def test_keys_of_the_recipe_reach_the_first_steps(begun_runs, tmp_path, network, base, change):
    """Each gives other losses of the network, though all that is trained before it stays."""
    recipe, begun = begun_runs(**base)
    run = Path(shutil.copytree(begun, tmp_path / "run"))
    changed, position = recipe.changed(**change), recipe.networks.index(network)
    for name in recipe.networks[position:]:
        shutil.rmtree(run / name)
    for name in (*recipe.networks[:position], *["predictions"] * (position > 0)):
        (run / name / "stamp.json").write_text(json.dumps(make_stamp(changed, run, name)))
    written = {Path(path).name for path in wsdcast.train(changed, run).written}
    assert network in written
    assert not written & {*recipe.networks[:position]}
    # After the first step of joint training the prior differs too, however small the weight of the moments' loss is.
    compared = slice(1) if "generator__moments" in base else slice(None)
    assert not np.allclose(first_losses(run, network)[compared], first_losses(begun, network)[compared], rtol=1e-4)
    if "generator__attention" in change:
        assert any("attention" in name for name in load_file(run / "generator/weights.safetensors"))


@pytest.mark.parametrize(("base", "has_it"), [(FLOW_ALONE, True), (LIKELIHOOD_ALONE, False)])
def test_in_joint_training_each_loss_has_the_weights_of_its_own_network(prepared, recipe, tmp_path, base, has_it):
    """The change in 6 h divides the errors of the flow with the prior mean-only, and not those of a likelihood with a predicted std."""
    losses = []
    for factor in (1, 3):
        run = new_run(prepared, tmp_path / str(factor), RECIPE)
        with_five_variables(run / "analysis.zarr")
        metadata = json.loads((run / "analysis.zarr/zarr.json").read_text())
        metadata["attributes"]["normalisation"]["2m_temperature"]["difference_std"] *= factor
        (run / "analysis.zarr/zarr.json").write_text(json.dumps(metadata))
        wsdcast.train(recipe.changed(generator__steps=2, generator__prior="mean-only", **base), run)
        losses.append(first_losses(run, "generator"))
    assert (not np.allclose(*losses, rtol=1e-4)) == has_it
