"""Half precision in a rollout, and the generator as one graph for the compiler."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from rollouts import forecast_of, loaded

import wsdcast
from wsdcast.data.store.forecasts import Forecasts
from wsdcast.runs.errors import UserError
from wsdcast.sampling.acceleration import in_bfloat16
from wsdcast.warmstart import evaluations
from wsdcast.weather import samplers as sampling
from wsdcast.weather.forecast import artefacts
from wsdcast.weather.forecast.initial_times import starts_of
from wsdcast.weather.forecast.one_step import one_step
from wsdcast.weather.forecast.running import ensembles
from wsdcast.weather.samplers import sampler_of
from wsdcast.weather.stages import rollout as rollout_stage

pytestmark = pytest.mark.usefixtures("without_animation")


def test_half_precision_changes_little(rolled_out):
    recipe, record, parts = loaded(rolled_out / "run")
    sampler, starts = sampler_of(parts, recipe.rollout), starts_of(recipe, record)
    with torch.inference_mode():
        exact, halved = (
            next(ensembles(record, parts.forcings, variant, starts, members=5, steps=4, seed=0))
            for variant in (sampler, in_bfloat16(sampler))
        )
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

        seen.append(unwatched(seen_velocity, noise, times))
        return seen[-1]

    monkeypatch.setattr(sampling, "solver", lambda *_: watched)
    inner = []
    parts.generator.last.register_forward_hook(lambda *passed: inner.append(passed[-1].dtype))
    starts = starts_of(recipe, record)
    with torch.inference_mode():
        next(ensembles(record, parts.forcings, in_bfloat16(sampling.sampler_of(parts, settings)), starts, members=2, steps=1, seed=0))
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


def test_a_few_evaluations_in_float32_do_not_make_kernels_anew(rolled_out):
    """The Gaussians that scores compare with are evaluated one by one in float32. For that the compiler took longer than the networks."""
    recipe, record, networks = loaded(rolled_out / "run")
    made = []
    networks.moments.compile(dynamic=False, backend=lambda graph, _: made.append(graph) or graph.forward)
    fields = one_step(networks, record, starts_of(recipe, record), record.variables)
    assert fields["10m_u_component_of_wind_std"].shape == (4, *record.grid.shape)
    assert not made


def test_a_deterministic_rollout_is_deterministic_to_its_last_field(trained_run, monkeypatch):
    """The Gaussians that scores compare with are part of it. On a GPU they had TensorFloat-32."""
    flags = []

    def seen(*arguments):
        flags.append((torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.conv.fp32_precision))
        return one_step(*arguments)

    monkeypatch.setattr(artefacts, "one_step", seen)
    wsdcast.rollout(run=trained_run, starts=1, days=0.25, deterministic=True)
    assert flags == [(True, "ieee")]
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("finished", [True, False])
def test_a_fast_forecast_does_not_pass_for_a_deterministic_one(trained_run, finished, monkeypatch):
    """It counted as current, and an unfinished one was completed as if its first rows were deterministic too."""
    if not finished:
        write = Forecasts.write
        monkeypatch.setattr(Forecasts, "write", lambda self, row, *fields: write(self, row, *fields) or 1 / 0)
        with pytest.raises(ZeroDivisionError):
            wsdcast.rollout(run=trained_run, starts=2, days=0.25)
        monkeypatch.undo()
    else:
        wsdcast.rollout(run=trained_run, starts=2, days=0.25)
    # As a GPU would have made it: what a CPU makes is always deterministic.
    about = trained_run / ("forecast.zarr/zarr.json" if finished else ".forecast.partial.marks/claim.json")
    said = about.read_text()
    assert '"deterministic"' in said
    about.write_text(said.replace('"deterministic"', f'"{artefacts.FAST}"'))
    before = store_bytes(trained_run)
    with pytest.raises(UserError, match="without --deterministic"):
        wsdcast.rollout(run=trained_run, starts=2, days=0.25, deterministic=True)
    assert store_bytes(trained_run) == before
    if finished:
        assert "current: forecast.zarr" in wsdcast.rollout(run=trained_run, starts=2, days=0.25).facts
    wsdcast.rollout(run=trained_run, starts=2, days=0.25, deterministic=True, overwrite=True)
    assert forecast_of(trained_run).attrs["arithmetic"] == "deterministic"


def store_bytes(run):
    return {path: path.read_bytes() for path in run.glob("*forecast*/**/*") if path.is_file()}


def test_the_first_sampler_is_let_go_before_the_second_begins(trained_run, monkeypatch):
    """On a GPU a sampler has a CUDA graph, which keeps the memory of all its evaluations."""
    alive, past_errors_sampler_of, first_calls = [], rollout_stage.past_errors_sampler_of, []

    class Held:
        def __init__(self, sampler):
            self.sampler = sampler

        def __call__(self, context, noise):
            return self.sampler(context, noise)

    def of_moments(*arguments, **options):
        held = Held(past_errors_sampler_of(*arguments, **options))
        alive.append(weakref.ref(held))
        return held

    def of_flow(*arguments, **options):
        sampler = sampler_of(*arguments, **options)
        return lambda context, noise: first_calls.append(alive[0]() is None) or sampler(context, noise)

    monkeypatch.setattr(rollout_stage, "past_errors_sampler_of", of_moments)
    monkeypatch.setattr(rollout_stage, "sampler_of", of_flow)
    wsdcast.rollout(run=trained_run, starts=1, days=0.25)
    assert set(first_calls) == {True}
