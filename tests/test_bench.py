"""Tests of ``wsdcast bench``: the form of its output, and that the generated source is read like any other."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from typer.testing import CliRunner

from wsdcast.bench import prepare, rollout, score, train
from wsdcast.bench.rollout import the_usual_way
from wsdcast.bench.synthetic import inputs_of, networks_of, record_of
from wsdcast.cli import app
from wsdcast.data.sources.blocks import read_block
from wsdcast.data.sources.record import open_record
from wsdcast.data.variables import DEFAULT
from wsdcast.sampling.batches import batch_size, in_batches
from wsdcast.weather.forecast.running import ensembles
from wsdcast.weather.recipe import load_recipe
from wsdcast.weather.samplers import sampler_of

FORM = {"name", "limit", "ratio_to_limit", "peers", "figures", "machine"}


@pytest.fixture
def small(monkeypatch):
    """Reduce the benchmark to a tenth of its size, so that it takes a second."""
    monkeypatch.setattr(prepare, "SOURCE", "144x73")
    monkeypatch.setattr(prepare, "TARGET", "24x13")


@pytest.mark.filterwarnings("ignore")  # warnings of xarray-regrid about its own code
def test_bench_prepare(small):
    printed = CliRunner().invoke(app, ["bench", "prepare", "--years", "0.5", "--json"], catch_exceptions=False)
    result = json.loads(printed.stdout)
    assert set(result) == FORM
    assert result["name"] == "prepare"
    assert "two bare sparse products" in result["limit"]
    assert result["ratio_to_limit"] > 0
    assert set(result["peers"]) == ({"xarray-regrid"} if find_spec("xarray_regrid") else set())
    assert result["figures"]["record"].startswith("730 steps of 144x73")
    assert "to 2 shards" in result["figures"]["record"]
    assert (
        result["figures"]["peak memory, GiB"]
        >= max(float(entry.split(" @ ")[0]) for entry in result["figures"]["memory, GiB after s"].split(", ")) - 0.005
    )
    table = CliRunner().invoke(app, ["bench", "prepare", "--years", "0.05"], catch_exceptions=False).stdout
    assert "time / limit's time" in table


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(train, "RECORD", 60)
    monkeypatch.setattr(train, "STEPS", 2)
    monkeypatch.setitem(rollout.ROWS, "cpu", 256)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path / "tiny.yaml"


def test_bench_rollout(tiny):
    line = ["bench", "rollout", "--recipe", str(tiny), "--members", "4", "--lead", "12h", "--json"]
    result = json.loads(CliRunner().invoke(app, line, catch_exceptions=False).stdout)
    assert set(result) == FORM
    assert result["name"] == "rollout"
    assert "2 evaluations of the generator and one of the moments network" in result["limit"]
    assert result["ratio_to_limit"] > 0
    assert result["peers"]["the usual way"] > 0
    figures = result["figures"]
    assert figures["forecast"] == "4 members x 2 steps of 6 h, 16x8, NFE 2"
    assert 0 < figures["moments network's share of time"] < 1
    # One of three evaluations, without embeddings and with fewer channels.
    assert 0.2 < figures["moments network's share of operations"] < 0.35
    assert 0 < figures["share of a matrix product's rate"] < 1
    slots = batch_size(16 * 8, torch.device("cpu"))  # on a CPU repetitions of members fill the batch
    assert figures["share of padding"] == pytest.approx(1 - 4 / slots)


@pytest.mark.parametrize(
    ("path", "prior", "objective", "noise"),
    [
        ("straight", "warm", "flow", "numbers"),
        ("straight", "standard", "flow", "numbers"),
        ("blur-noise", "warm", "distil", "numbers"),
        ("blur", "warm", "flow", "numbers"),
        ("straight", "persistence", "crps", "numbers"),
        ("straight", "warm", "crps", "fields"),
    ],
)
def test_the_plain_loop_of_the_bench_gives_the_same_forecast(tiny, path, prior, objective, noise):
    """Otherwise the comparison would be with a different computation."""
    recipe = load_recipe(tiny).changed(generator__path=path, generator__prior=prior, generator__objective=objective, crps__noise=noise)
    if objective != "flow":
        recipe = recipe.changed(rollout__nfe=1)
    record = record_of(recipe, 40)
    torch.manual_seed(0)
    networks = networks_of(recipe, record)
    generator = networks.generator
    made = [(generator, "last"), *((one, "last") for one in networks.few.values())]
    if prior == "warm":
        made.append((networks.moments, "network.last"))
    for network, last in made:
        torch.nn.init.normal_(network.eval().requires_grad_(False).get_submodule(last).weight, std=0.1)
    if objective == "crps" and noise == "numbers":  # they have no effect before training
        torch.nn.init.normal_(generator.embeddings[0].weight)
        torch.nn.init.normal_(generator.middle.convolution2.weight)
    sampler = in_batches(sampler_of(networks, recipe.rollout), 5)
    with torch.inference_mode():
        usual = the_usual_way(record, networks, recipe.rollout, 3)
        ours = np.stack(list(ensembles(record, networks.forcings, sampler, np.array([1]), members=3, steps=2, seed=0)), axis=2)[0]
    np.testing.assert_allclose(ours, usual, rtol=1e-4, atol=1e-4)
    assert ours[:, 0].std(axis=0).mean() > (0.05 if path != "blur" else 0)  # m/s; the members differ


@pytest.mark.parametrize(
    ("objective", "noise", "nfe"), [("flow", "numbers", 4), ("shortcut", "numbers", 1), ("crps", "numbers", 1), ("crps", "fields", 1)]
)
def test_networks_alone_have_inputs_of_the_layout_of_a_rollout(tiny, objective, noise, nfe):
    """A GPU made the kernels of a generator of the CRPS twice, because the noise of a rollout is a part of a larger tensor."""
    recipe = load_recipe(tiny).changed(generator__objective=objective, crps__noise=noise, rollout__nfe=nfe)
    record = record_of(recipe, 40)
    networks, layouts = networks_of(recipe, record), {}

    def note(network, inputs):
        layouts.setdefault(network, set()).add(tuple((x.shape, x.stride(), x.dtype) for x in inputs))

    generator = networks.few.get(nfe, networks.generator)
    for network in (networks.moments, generator):
        network.register_forward_pre_hook(note)
    list(ensembles(record, networks.forcings, sampler_of(networks, recipe.rollout), np.array([1]), members=3, steps=2, seed=0))
    for network in (networks.moments, generator):
        assert layouts.pop(network) == {tuple((x.shape, x.stride(), x.dtype) for x in inputs_of(network, 3, record.grid))}
    assert not layouts


@pytest.mark.parametrize(("objective", "noise"), [("distil", "numbers"), ("shortcut", "numbers"), ("crps", "numbers"), ("crps", "fields")])
def test_bench_rollout_of_one_evaluation(tiny, objective, noise):
    line = ["bench", "rollout", "--recipe", str(tiny), "--members", "2", "--lead", "6h", "--nfe", "1", "--json"]
    line += ["-o", f"generator.objective={objective}", "-o", f"crps.noise={noise}"]
    figures = json.loads(CliRunner().invoke(app, line, catch_exceptions=False).stdout)["figures"]
    assert figures["forecast"].endswith("NFE 1")
    # One evaluation of each network, which are of one size.
    assert 0.4 < figures["moments network's share of operations"] < 0.55


def test_bench_rollout_counts_no_moments_network_where_the_prior_has_none(tiny):
    line = ["bench", "rollout", "--recipe", str(tiny), "--members", "2", "--lead", "6h", "--nfe", "1", "--json"]
    line += ["-o", "generator.objective=crps", "-o", "generator.prior=persistence", "-o", "forcings.static=[land_sea_mask]"]
    result = json.loads(CliRunner().invoke(app, line, catch_exceptions=False).stdout)
    assert result["limit"].startswith("1 evaluation of the generator for each sample")
    assert not any("moments" in name for name in result["figures"])


def test_bench_rollout_on_another_path(tiny):
    line = ["bench", "rollout", "--recipe", str(tiny), "--members", "2", "--lead", "6h", "-o", "generator.path=blur-noise", "--json"]
    assert json.loads(CliRunner().invoke(app, line, catch_exceptions=False).stdout)["figures"]["forecast"].startswith("2 members x 1 step")


@pytest.mark.slow
def test_bench_train_on_another_path(tiny):
    line = ["bench", "train", "--recipe", str(tiny), "-o", "generator.path=blur-noise", "-o", "generator.loss_weight=edm", "--json"]
    assert CliRunner().invoke(app, line, catch_exceptions=False).exit_code == 0


def test_bench_train(tiny):
    line = ["bench", "train", "--recipe", str(tiny), "-o", "generator.precision=bf16", "--json"]
    result = json.loads(CliRunner().invoke(app, line, catch_exceptions=False).stdout)
    assert result["figures"]["network"].endswith(", bf16")
    assert set(result) == FORM
    assert result["ratio_to_limit"] > 0
    assert result["peers"]["samples from disk"] > 0
    assert 0 < result["figures"]["share of time for making batches"] < 1


def test_bench_score(monkeypatch):
    monkeypatch.setattr(score, "GRID", "24x13")
    monkeypatch.setattr(score, "MEMBERS", 5)
    result = json.loads(CliRunner().invoke(app, ["bench", "score", "--json"], catch_exceptions=False).stdout)
    assert set(result) == FORM
    assert result["limit"] == "reading the same chunk of the forecast"
    assert result["ratio_to_limit"] > 0
    assert set(result["peers"]) >= {"CRPS by properscoring", "CRPS by scoringrules"}
    assert result["figures"]["forecast"].startswith("5 members x 8 leads x u and v, 24x13, ")


def test_the_generated_source_is_read_as_any_other(small, tmp_path):
    record = open_record(prepare._generated(40), Path(tmp_path))
    assert record.problems == []
    assert record.times.size == 40
    values = {name: field for block in record.blocks() for name, field in read_block(block)}
    u = values[DEFAULT[0]]
    assert u.shape == (40, 73, 144)
    np.testing.assert_array_equal(u[0], u[prepare.KINDS])
    assert not np.array_equal(u[0], u[1])
