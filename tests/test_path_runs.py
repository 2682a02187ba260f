"""Runs with another path of the generator or a stochastic solver: their training, their samples, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from commands import refused
from conftest import new_run
from safetensors.torch import load_file
from torch import nn

import wsdcast
from wsdcast.data.store.analysis import open_analysis
from wsdcast.warmstart.paths import STRAIGHT
from wsdcast.weather.forecast.noise import member_noise
from wsdcast.weather.recipe import Recipe, load_recipe
from wsdcast.weather.samplers import sampler_of
from wsdcast.weather.samples import samples_of
from wsdcast.weather.trained import trained

pytestmark = pytest.mark.usefixtures("without_animation")


def run_with(prepared: Path, directory: Path, **changes) -> tuple[Recipe, Path]:
    """Return the tiny recipe with changes, and a run directory with the networks that were trained by it."""
    run = new_run(prepared, directory)
    recipe = load_recipe(prepared / "tiny.yaml").changed(rollout__nfe=4, **changes)
    wsdcast.train(recipe, run)
    return recipe, run


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "generator/weights.safetensors")


def test_a_path_without_blur_gives_the_weights_of_the_straight_path(prepared, tmp_path):
    expected = weights(run_with(prepared, tmp_path / "straight")[1])
    others = weights(run_with(prepared, tmp_path / "other", generator__path="blur-noise", generator__bnr=0.0)[1])
    assert all(torch.equal(value, expected[name]) for name, value in others.items())


@pytest.mark.parametrize(("path", "channels"), [("blur-noise", 4), ("blur", 2)])
def test_a_generator_on_a_blurred_path_is_trained_and_rolled_out(prepared, tmp_path, path, channels):
    recipe, run = run_with(prepared, tmp_path, generator__path=path, generator__loss_weight="edm")
    assert weights(run)["last.weight"].shape[0] == channels
    wsdcast.rollout(run=run)
    with xr.open_zarr(run / "forecast.zarr") as forecast:
        assert np.isfinite(forecast["10m_u_component_of_wind"].values).all()
    # Compute one sample without the sampler: two steps of the midpoint rule. On this path the velocity is not the network's output.
    record = open_analysis(run / "analysis.zarr")
    networks = trained(recipe, run, record)
    assert networks.path.name == path
    nn.init.normal_(networks.generator.last.weight, std=0.1)
    (samples,) = samples_of(record, networks.forcings, "test")
    context, noise = samples.context(torch.arange(2)), torch.randn(2, 2, 8, 16, generator=torch.Generator().manual_seed(0))
    prior, one = networks.prior_of(context), torch.ones(1)

    def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
        output = networks.generator(torch.cat([x, context, prior.features()], dim=1), torch.full((1,), t), one)
        return networks.path.velocity(output, x, torch.full((1,), t))

    with torch.inference_mode():
        x = networks.path.start(noise)
        for t in (0.0, 0.5):
            x = x + 0.5 * velocity(x + 0.25 * velocity(x, t), t + 0.25)
        sampled = sampler_of(networks, recipe.rollout)(context, noise)
        torch.testing.assert_close(sampled, prior.denormalise(x))
        if path == "blur":  # on the straight path the same network gives another state
            straight = sampler_of(replace(networks, path=STRAIGHT), recipe.rollout)(context, noise)
            assert (straight - sampled).abs().max() > 0.01


def test_stochastic_solvers_draw_new_noise_for_each_step(prepared, tmp_path):
    recipe, run = run_with(prepared, tmp_path)
    wsdcast.rollout(run=run, solver="sde2", nfe=3)
    recipe = recipe.changed(rollout__solver="sde2", rollout__nfe=3)
    record = open_analysis(run / "analysis.zarr")
    networks = trained(recipe, run, record)
    with xr.open_zarr(run / "forecast.zarr", decode_timedelta=True) as forecast:
        start, stored = forecast["time"].values[0], forecast.isel(time=0, prediction_timedelta=0)
        members = np.stack([stored[name].values for name in ("10m_u_component_of_wind", "10m_v_component_of_wind")], axis=1)
    number = int(np.flatnonzero(record.times == start)[0])
    noise = next(member_noise(recipe.rollout.seed, record.times[[number]], 3, 1, (6, 8, 16)))
    states = torch.from_numpy(record.normalise(record.states[number - 1 : number + 1]))
    context = torch.cat([states[1], states[0], networks.forcings.at(record.times[[number]])[0]])[None].expand(3, -1, -1, -1)
    expected = record.denormalise(sampler_of(networks, recipe.rollout)(context, noise).detach().numpy())
    np.testing.assert_allclose(members, expected, atol=0.02)
    # The first draw is the one that other solvers use.
    assert torch.equal(noise[:, :2], next(member_noise(recipe.rollout.seed, record.times[[number]], 3, 1, (2, 8, 16))))


def test_what_a_path_does_not_allow_is_refused(prepared, tmp_path):
    run = str(prepared / "run")
    assert "generator.bnr" in refused("train", "--run", run, "-o", "generator.bnr=-0.5")
    for ratio in (0, 0.01):
        line = refused("train", "--run", run, "-o", "generator.path=blur", "-o", f"generator.bnr={ratio}")
        assert "the path blur needs a bnr of at least 0.1" in line
    _, trained_run = run_with(prepared, tmp_path, generator__path="blur")
    line = refused("rollout", "--run", str(trained_run), "--solver", "sde1")
    assert "solver sde1: works on the straight path only, not on the path blur" in line
