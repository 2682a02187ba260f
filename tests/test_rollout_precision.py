"""Half precision in a rollout, and the generator as one graph for the compiler."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rollouts import loaded

from wsdcast.sampling.acceleration import in_bfloat16
from wsdcast.warmstart import evaluations
from wsdcast.weather import samplers as sampling
from wsdcast.weather.forecast.initial_times import starts_of
from wsdcast.weather.forecast.running import ensembles
from wsdcast.weather.samplers import sampler_of


def test_half_precision_changes_little(rolled_out):
    recipe, record, parts = loaded(rolled_out / "run")
    sampler, starts = sampler_of(parts, recipe.rollout), starts_of(recipe, record)
    with torch.inference_mode():
        exact, halved = (next(ensembles(record, parts.forcings, variant, starts, 5, 4, 0)) for variant in (sampler, in_bfloat16(sampler)))
    assert halved.dtype == np.float32
    assert 0 < np.abs(exact - halved).max() < 0.2  # m/s


@pytest.mark.parametrize(("solver", "nfe"), [("midpoint", 4), ("rk4", 4), ("ab3", 5), ("dpm3", 4), ("implicit_adams", 4)])
def test_states_and_velocities_stay_float32_where_networks_do_not(rolled_out, monkeypatch, solver, nfe):
    recipe, record, parts = loaded(rolled_out / "run")
    seen: list[torch.Tensor] = []
    settings = recipe.changed(rollout__solver=solver, rollout__nfe=nfe).rollout
    unwatched = evaluations.solver(solver)

    def watched(velocity, noise, times):
        def seen_velocity(x, t):
            seen.extend((x, velocity(x, t)))
            return seen[-1]

        return unwatched(seen_velocity, noise, times, watch=seen.append)

    monkeypatch.setattr(sampling, "solver", lambda *_: watched)
    inner = []
    parts.generator.last.register_forward_hook(lambda *passed: inner.append(passed[-1].dtype))
    starts = starts_of(recipe, record)
    with torch.inference_mode():
        next(ensembles(record, parts.forcings, in_bfloat16(sampling.sampler_of(parts, settings)), starts, 2, 1, 0))
    assert {tensor.dtype for tensor in seen} == {torch.float32}
    assert set(inner) == {torch.bfloat16}


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # torch's compiler instantiates it
def test_the_network_is_one_graph_for_the_compiler(rolled_out):
    """The network is traced as for a GPU, but no kernels are compiled."""
    _, _, parts = loaded(rolled_out / "run")
    compiled = torch.compile(parts.generator, backend="aot_eager", fullgraph=True)
    inputs = torch.randn(4, 10, 8, 16), torch.full((1,), 0.3), torch.ones(1)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(*inputs), parts.generator(*inputs), rtol=1e-5, atol=1e-5)
