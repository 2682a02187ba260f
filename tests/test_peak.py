"""Tests of the estimated memory of a network, and that work that does not fit is refused before it starts."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from conftest import TINY, new_run
from made_records import STATE
from torch import nn

import wsdcast
from wsdcast.data.grid import Grid
from wsdcast.data.store.analysis import Analysis
from wsdcast.data.store.states import PackedStates
from wsdcast.data.store.zarr_store import wind_packing
from wsdcast.images.stages import train as image_stage
from wsdcast.nets import peak
from wsdcast.nets.peak import _Peak, peak_memory, training_memory
from wsdcast.nets.unet import UNet
from wsdcast.runs import resources
from wsdcast.runs.errors import UserError
from wsdcast.sampling.batches import in_batches
from wsdcast.weather.forcings import ForcingFields
from wsdcast.weather.forecast.memory import fields_of_member
from wsdcast.weather.forecast.running import ensembles


def test_the_peak_of_a_chain_is_its_largest_pair_of_activations():
    """For two layers with a ReLU between, inference holds only the input and the output of one layer at a time."""
    network = nn.Sequential(nn.Linear(10, 1000, bias=False), nn.ReLU(), nn.Linear(1000, 10, bias=False))
    assert peak_memory(network, (1, 10), training=False) == 2 * 4000
    # Training also holds the gradients of both weights (40,000 bytes each) and of the activations.
    assert 80_000 < peak_memory(network, (1, 10), training=True) < 80_000 + 4 * 4000 + 200
    assert all(parameter.device.type == "cpu" and parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("training", [False, True])
def test_the_peak_grows_with_the_batch_and_in_training_with_the_depth(training):
    shapes = lambda batch: ((batch, 3, 16, 32), (1,))  # noqa: E731
    one, four = (UNet(3, 2, (8, 16), blocks, 1, attention=(1,)) for blocks in (1, 4))
    peaks = [peak_memory(one, *shapes(batch), training=training) for batch in (1, 9)]
    weights = sum(parameter.nbytes for parameter in one.parameters()) if training else 0
    assert (peaks[1] - weights) == pytest.approx(9 * (peaks[0] - weights), rel=0.1)
    recomputed = UNet(3, 2, (8, 16), 4, 1, activation_checkpointing=True, attention=(1,))
    deep, again = (peak_memory(network, *shapes(64), training=training) for network in (four, recomputed))
    assert (again < 0.7 * deep) == training


@pytest.mark.parametrize("training", [False, True])
def test_group_norm_takes_what_torch_allocates_for_it(training, monkeypatch):
    network = UNet(3, 2, (8, 16), attention=(1,))
    peaks = [peak_memory(network, (batch, 3, 16, 32), training=training) for batch in (1, 9)]
    monkeypatch.setattr(peak, "_RESULTS", {})
    assert peaks == [peak_memory(network, (batch, 3, 16, 32), training=training) for batch in (1, 9)]


def test_a_search_for_anomalies_goes_on_elsewhere():
    """It reads values, which the device meta does not have."""
    network = nn.Sequential(nn.Linear(4, 4), nn.SiLU())
    with pytest.warns(UserWarning, match="Anomaly Detection"):
        search = torch.autograd.detect_anomaly()
    with search:
        assert peak_memory(network, (2, 4), training=True) > 0
        assert torch.is_anomaly_enabled()
    assert not torch.is_anomaly_enabled()


def test_training_memory_adds_up():
    network = nn.Linear(10, 10, bias=False)
    activations = peak_memory(network, (1, 10), training=True) - 400
    assert training_memory(network, 3, False, (1, 10)) == 5 * 400 + 3 * activations
    assert training_memory(network, 3, True, (1, 10)) == 5 * 400 + 1.5 * activations


@pytest.fixture
def full(monkeypatch):
    """Return a function that makes the machine's free memory very small."""
    return lambda: monkeypatch.setattr(resources, "free_memory", lambda: 10_000)


@pytest.mark.slow
@pytest.mark.parametrize("moments", ["frozen", "joint"])
def test_a_training_that_cannot_fit_is_refused(prepared, tmp_path, full, moments):
    run = new_run(prepared, tmp_path, TINY.replace("generator: {", f"generator: {{moments: {moments}, "))
    before = sorted(run.rglob("*"))
    full()
    network = "moments network" if moments == "frozen" else "generator"
    with pytest.raises(UserError, match=rf"training the {network} in batches of 4 at 16x8 needs [\d.]+ .B of memory, but only 10 kB are"):
        wsdcast.train(tmp_path / "tiny.yaml", run)
    assert sorted(run.rglob("*")) == before


@pytest.mark.slow
def test_a_rollout_that_cannot_fit_is_refused(prepared, tmp_path, full):
    run = new_run(prepared, tmp_path)
    wsdcast.train(run=run)
    before = sorted(run.rglob("*"))
    full()
    with pytest.raises(UserError) as refused:
        wsdcast.rollout(run=run)
    expected = r"rolling out 6 members side by side at 16x8, 1 batches of 50 at a time, needs [\d.]+ MB of memory, but only 10 kB are free"
    assert re.fullmatch(expected, str(refused.value))
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize(
    ("static", "solar_time", "variables"),
    [(0, False, 0), (13, False, 0), (9, True, 0), (0, False, 13), (3, True, 6)],
    ids=["none", "static", "time", "variables", "all"],
)
@pytest.mark.parametrize(("past_states", "noise_count"), [(1, 1), (3, 1), (1, 3)])
def test_the_estimate_for_ensembles_is_near_what_they_allocate(static, solar_time, variables, past_states, noise_count):
    """Whatever the forcings are. What other threads allocate is not counted: the noise of two steps, and the batches."""
    grid, hours = Grid.regular("16x8"), 6 * np.arange(20).astype("timedelta64[h]")
    times, ones = np.datetime64("2020-01-01", "ns") + hours, np.ones(3 + variables, dtype=np.float32)
    states = PackedStates(np.zeros((20, ones.size, 8, 16), dtype=np.int16), wind_packing(ones.size))
    names = tuple(f"forcing {number}" for number in range(variables))
    record = Analysis(
        states,
        times,
        grid,
        0 * ones,
        ones,
        ones,
        times[5],
        times[10],
        variables=STATE[:3],
        forcing_variables=names,
        past_states=past_states,
    )
    forcings = ForcingFields(torch.zeros(static, 8, 16), torch.tensor(grid.longitude) if solar_time else None, variables)
    sampler = in_batches(lambda context, noise: context[:, :3] + noise[:, :3], 4)
    starts, members = np.arange(5, 9), 10
    with _Peak([]) as peak:
        for _ in ensembles(record, forcings, sampler, starts, members=members, steps=6, seed=0, noise_count=noise_count):
            pass
    allocated = peak.largest / (starts.size * members * 4 * 8 * 16)
    not_counted = 3 * (2 * noise_count + 1)
    # Static fields alone are in the context only, and not repeated for each member.
    assert allocated <= fields_of_member(record, forcings, noise_count) <= 1.1 * (allocated + not_counted) + static * (not solar_time)


def test_a_training_on_images_that_cannot_fit_is_refused(inpainted, tmp_path, full):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/images").symlink_to(inpainted / "run/images")
    full()
    with pytest.raises(UserError, match=r"training the moments network in batches of 4 at 16x16 needs [\d.]+ .B of memory"):
        image_stage.train(inpainted / "tiny.yaml", tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["images"]
