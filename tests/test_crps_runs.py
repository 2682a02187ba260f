"""Generators of the CRPS and the prior persistence: what samples, and the statistics that they need."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from commands import refused
from conftest import new_run
from runs_of_objectives import opened, training_samples
from test_path_runs import run_with

import wsdcast
from wsdcast.data.store.analysis import open_analysis
from wsdcast.warmstart.crps import NOISE_NUMBERS
from wsdcast.weather.climate import zonal_amplitude
from wsdcast.weather.model_file import read_model
from wsdcast.weather.samplers import sampler_of
from wsdcast.weather.trained import assembled
from wsdcast.weather.training import generator

pytestmark = pytest.mark.usefixtures("without_animation", "without_report")


@pytest.mark.parametrize("prior", ["warm", "persistence"])
def test_a_generator_of_the_crps_makes_one_evaluation_around_its_prior(prepared, tmp_path, prior):
    recipe, run = run_with(prepared, tmp_path, generator__objective="crps", generator__prior=prior)
    networks, samples, context, noise = opened(recipe, run)
    with torch.inference_mode():
        gaussian = networks.prior_of(context)
        if prior == "persistence":
            torch.testing.assert_close(gaussian.mean, context[:, :2])
            # The statistics of the store also count the first pair of states, which has no state before it.
            first = samples.now[0]
            states = samples.states(torch.cat([first[None] - 1, samples.now, samples.now[-1:] + 1]))
            change = states[1:] - states[:-1]
            weight = torch.from_numpy(open_analysis(run / "analysis.zarr").grid.area_weights)[:, None]
            expected = (weight * change.double().square()).mean(dim=(0, 2, 3)).sqrt()
            torch.testing.assert_close(gaussian.std[0, :, 0, 0].double(), expected, rtol=1e-5, atol=0)
        inputs = torch.cat([context, gaussian.features()], dim=1)
        numbers = torch.stack([member.flatten()[:NOISE_NUMBERS] for member in noise])
        expected = gaussian.mean + gaussian.std * networks.generator(inputs, numbers)
        sampled = sampler_of(networks, recipe.rollout.model_copy(update={"nfe": 1}))(context, noise)
    torch.testing.assert_close(sampled, expected)
    line = refused("rollout", "--run", str(run), "--nfe", "4")
    assert "nfe 4: a generator of the objective crps makes one evaluation" in line
    wsdcast.rollout(run=run, nfe=1)
    wsdcast.score(run=run)


def test_members_of_a_sample_have_its_context_and_its_prior(prepared, tmp_path, monkeypatch):
    seen = []

    def sample(network, prior, context, noise, noise_fields):
        return torch.stack([context[:, :2], prior.mean], dim=1)

    def loss(members, truth):
        seen.append((members, truth))
        raise InterruptedError

    monkeypatch.setattr(generator, "direct_sample", sample)
    monkeypatch.setattr(generator, "loss_of_ensembles", lambda *_: loss)
    with pytest.raises(InterruptedError):
        run_with(prepared, tmp_path, generator__objective="crps")
    ((members, truth),) = seen
    samples = training_samples(prepared)
    targets = samples.target(torch.arange(len(samples)))
    indices = torch.tensor([(targets == one).flatten(1).all(dim=1).nonzero().item() for one in truth])
    now = samples.states_of_context(indices)[0]
    for member in members:
        assert torch.equal(member[:, 0], now)
        assert (member[:, 1] - now).abs().mean() < 0.1  # the mean of moments that are hardly trained


def test_a_model_with_the_prior_persistence_travels(prepared, tmp_path):
    recipe, run = run_with(prepared, tmp_path, generator__prior="persistence")
    wsdcast.export_model(run, tmp_path / "model.wsd")
    file = read_model(tmp_path / "model.wsd")
    networks, _, context, _ = opened(recipe, run)
    for ours, expected in zip(assembled(file.recipe, file.record, file.load).moments(context), networks.moments(context), strict=True):
        assert torch.equal(ours, expected)


def test_the_amplitude_of_waves_is_that_of_the_training_split(prepared):
    samples = training_samples(prepared)
    record = open_analysis(prepared / "run/analysis.zarr")
    states = samples.states(torch.from_numpy(np.flatnonzero(record.part("train")))).double()
    waves = torch.fft.fft(states)[..., :9] / 4  # orthonormal on 16 points
    weights = torch.from_numpy(record.grid.area_weights)[:, None]
    expected = (weights * waves.abs().square()).mean(dim=(0, 2)).sqrt()
    torch.testing.assert_close(zonal_amplitude(record).double(), expected, rtol=1e-4, atol=1e-6)


def test_a_store_without_the_change_in_6_h_is_refused(prepared, tmp_path):
    """Stores of early versions lack it. The loss was NaN, with advice to lower the learning rate."""
    run = new_run(prepared, tmp_path)
    metadata = json.loads((run / "analysis.zarr/zarr.json").read_text())
    for statistics in metadata["attributes"]["normalisation"].values():
        del statistics["difference_std"]
    (run / "analysis.zarr/zarr.json").write_text(json.dumps(metadata))
    for option in ("generator.prior=persistence", "generator.objective=crps", "fine_tune.steps=1"):
        line = refused("train", "--run", str(run), "-o", option, "-o", "rollout.solver=auto", "-o", "rollout.nfe=1")
        assert "the store does not have the size of the change in 6 h of 10m_u_component_of_wind, 10m_v_component_of_wind; prepare" in line
        assert [path.name for path in run.iterdir()] == ["analysis.zarr"]
