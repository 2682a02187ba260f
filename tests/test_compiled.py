"""Tests of compiled kernels and bfloat16 on a CPU, for which torch compiles C++. By default they are used on a GPU only."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from conftest import TINY
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch._inductor.decomposition import select_decomp_table

import wsdcast
from wsdcast.data.store.analysis import open_analysis
from wsdcast.nets.sphere import gathered
from wsdcast.nets.unet import UNet
from wsdcast.runs.devices import compiled
from wsdcast.sampling.acceleration import ONE_KERNEL_FOR_NEIGHBOURS, in_bfloat16
from wsdcast.weather.forecast.running import ensembles
from wsdcast.weather.recipe import load_recipe
from wsdcast.weather.samplers import sampler_of
from wsdcast.weather.trained import trained

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler"),
    pytest.mark.filterwarnings("ignore"),  # warnings of the compiler about its own code
]


@pytest.mark.parametrize("options", [None, ONE_KERNEL_FOR_NEIGHBOURS])
def test_one_kernel_normalises_in_groups_and_looks_up_neighbours(options):
    """The compiler of torch 2.13 failed on this wherever it made one kernel of both, as it does for a GPU."""

    def evaluate(x):
        return gathered((2 * x).reshape(2, 4, 4, 128).square().reshape(2, 16, 8, 16))

    x = torch.randn(2, 16, 8, 16)
    with torch.inference_mode():
        torch.testing.assert_close(torch.compile(evaluate, dynamic=False, options=options)(x), evaluate(x))


@pytest.mark.parametrize("sphere", [True, False])
def test_no_gradient_is_added_up_in_any_order(sphere):
    """A kernel that adds to the same place from several threads gives other bits each time, and takes long in bfloat16."""
    operations, network = set(), UNet(3, 2, (8, 8), scalars=1, sphere=sphere)

    def seen(graph, inputs):
        operations.update(str(node.target) for node in graph.graph.nodes)
        return make_boxed_func(graph.forward)

    network.compile(dynamic=False, backend=aot_autograd(fw_compiler=seen, bw_compiler=seen, decompositions=select_decomp_table()))
    network(torch.randn(2, 3, 8, 16), torch.rand(2)).square().mean().backward()
    assert "aten.convolution_backward.default" in operations
    assert not {name for name in operations if "index_put" in name or "scatter" in name}


def weights_after(recipe, directory, name):
    wsdcast.train(recipe, directory / name)
    networks = trained(recipe, directory / name, open_analysis(directory / name / "analysis.zarr"))
    return networks, torch.cat([parameter.flatten() for parameter in networks.generator.parameters()])


@pytest.mark.parametrize("grid", ["16x8", "24x12"])  # both run in one process
def test_compiled_networks_train_and_roll_out(tmp_path, grid):
    """Two training steps and two lead times agree with eager ones in float32."""
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
    # Two steps of Adam move each weight by up to twice the learning rate. bfloat16 changes the sign of small gradients only.
    assert (fast_weights - eager_weights).abs().mean() < 0.2 * recipe.generator.learning_rate

    record = open_analysis(tmp_path / "eager/analysis.zarr", whole=False)
    starts = record.starts(1, 2)
    for network in (eager_networks.generator, eager_networks.moments):  # otherwise all velocities would be near zero
        torch.nn.init.normal_(network.get_submodule("last" if network is eager_networks.generator else "network.last").weight, std=0.05)
    exact, halved = sampler_of(eager_networks, recipe.rollout), in_bfloat16(sampler_of(eager_networks, recipe.rollout))
    expected, halved_result = (
        np.stack(list(ensembles(record, eager_networks.forcings, sampler, starts, members=3, steps=2, seed=0)))
        for sampler in (exact, halved)
    )
    for network in (eager_networks.generator, eager_networks.moments):
        compiled(network, ONE_KERNEL_FOR_NEIGHBOURS)
    compiled_result = np.stack(list(ensembles(record, eager_networks.forcings, exact, starts, members=3, steps=2, seed=0)))
    compiled_halved = np.stack(list(ensembles(record, eager_networks.forcings, halved, starts, members=3, steps=2, seed=0)))
    np.testing.assert_allclose(compiled_result, expected, atol=2e-4)  # m/s; also float32, but other kernels
    size = np.sqrt(np.mean((expected - expected.mean()) ** 2))
    assert np.sqrt(np.mean((compiled_halved - expected) ** 2)) < 0.02 * size
    assert 0 < np.sqrt(np.mean((halved_result - expected) ** 2)) < 0.02 * size
