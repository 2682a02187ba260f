"""What only runs on a GPU by itself, compiled kernels and bfloat16, run on a CPU: torch makes C++ of the networks there."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from conftest import TINY

import wsdcast
from wsdcast.data.store.analysis import open_analysis
from wsdcast.runs.devices import compiled
from wsdcast.sampling.acceleration import in_bfloat16
from wsdcast.weather.forecast.running import ensembles
from wsdcast.weather.priors import trained
from wsdcast.weather.recipe import load_recipe
from wsdcast.weather.samplers import sampler_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler"),
    pytest.mark.filterwarnings("ignore"),  # of the compiler, about itself
]


def weights_after(recipe, place, name):
    wsdcast.train(recipe, place / name)
    networks = trained(recipe, place / name, open_analysis(place / name / "analysis.zarr"))
    return networks, torch.cat([parameter.flatten() for parameter in networks.generator.parameters()])


@pytest.mark.parametrize("grid", ["16x8", "24x12"])  # the second in the process of the first
def test_training_and_rolling_out_compiled(tmp_path, grid):
    """Two steps and two lead times, against eager ones in float32."""
    (tmp_path / "r.yaml").write_text(TINY)
    recipe = load_recipe(tmp_path / "r.yaml").changed(
        data__grid=grid,
        moments__widths=(8,),
        generator__widths=(8,),
        moments__steps=2,
        generator__steps=2,
        training__validate_every=2,
        rollout__members=3,
        rollout__nfe=4,
    )
    for name in ("eager", "fast"):
        wsdcast.prepare(recipe, tmp_path / name)
    fast = recipe.changed(moments__compile=True, generator__compile=True, moments__precision="bf16", generator__precision="bf16")
    eager_networks, eager_weights = weights_after(recipe, tmp_path, "eager")
    _, fast_weights = weights_after(fast, tmp_path, "fast")
    # Two steps of Adam at the full rate move each weight by up to two rates; bfloat16 turns the sign of small gradients alone.
    assert (fast_weights - eager_weights).abs().mean() < 0.2 * recipe.generator.learning_rate

    record = open_analysis(tmp_path / "eager/analysis.zarr", whole=False)
    starts = record.starts(1, 2)
    for network in (eager_networks.generator, eager_networks.moments):  # or all velocities would be near zero
        torch.nn.init.normal_(network.get_submodule("last" if network is eager_networks.generator else "network.last").weight, std=0.05)
    exact, halved = sampler_of(eager_networks, recipe.rollout), in_bfloat16(sampler_of(eager_networks, recipe.rollout))
    expected, alike = (np.stack(list(ensembles(record, eager_networks.forcings, one, starts, 3, 2, 0))) for one in (exact, halved))
    for network in (eager_networks.generator, eager_networks.moments):
        compiled(network)
    found = np.stack(list(ensembles(record, eager_networks.forcings, exact, starts, 3, 2, 0)))
    found_halved = np.stack(list(ensembles(record, eager_networks.forcings, halved, starts, 3, 2, 0)))
    np.testing.assert_allclose(found, expected, atol=2e-4)  # m/s: float32, other kernels
    size = np.sqrt(np.mean((expected - expected.mean()) ** 2))
    assert np.sqrt(np.mean((found_halved - expected) ** 2)) < 0.02 * size
    assert 0 < np.sqrt(np.mean((alike - expected) ** 2)) < 0.02 * size
