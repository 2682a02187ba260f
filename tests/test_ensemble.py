"""Ensembles: members, batches, threads and noise; and the autoregression."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier, BrokenBarrierError, Thread, current_thread

import numpy as np
import pytest
import torch
from small_training import WIND

from wsdcast.sampling import threads as side_by_side_module
from wsdcast.sampling.batches import at_once, batch_size, in_batches
from wsdcast.sampling.samplers import generator_sampler, moments_sampler
from wsdcast.sampling.threads import side_by_side
from wsdcast.warmstart.prior import frozen_prior
from wsdcast.warmstart.solvers import euler
from wsdcast.warmstart.times import uniform
from wsdcast.weather.forcings import ForcingFields
from wsdcast.weather.forecast.autoregression import forecast
from wsdcast.weather.forecast.noise import member_noise
from wsdcast.weather.network_sections import Generator, Moments
from wsdcast.weather.networks import generator_model, moments_model
from wsdcast.weather.recipe import load_recipe
from wsdcast.weather.samples import Samples

START = np.array(["2020-02-03T06"], "datetime64[ns]")
SHAPE = (2, 8, 16)


def random_sampler(moments: Moments, generator: Generator):
    """Return a sampler whose networks have random weights instead of zeros, as after training."""
    random = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    parts = [moments_model(moments, WIND), generator_model(generator, WIND)]
    for part in parts:
        part.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        for parameter in part.parameters():
            if not parameter.any():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=random))
    return generator_sampler(parts[1], frozen_prior(parts[0]), nfe=4, warmth=1.0, times=uniform(2))


@pytest.fixture(scope="module")
def sampler():
    return random_sampler(Moments(widths=(8, 12)), Generator(widths=(8, 12)))


@pytest.fixture(scope="module")
def context():
    return torch.randn(1, 4, 8, 16, generator=torch.Generator().manual_seed(1))


def run(sampler, context, members: int, batch: int, steps: int = 3, seed: int = 0, shape=SHAPE) -> torch.Tensor:
    noises = member_noise(seed, START, members, steps, shape)
    with torch.inference_mode():
        states = context.expand(members, -1, -1, -1).chunk(2, dim=1)
        no_forcings = torch.empty(members, 0, *shape[1:])
        return torch.stack(list(forecast(in_batches(sampler, batch), states, noises, [no_forcings] * steps)), dim=1)


@pytest.mark.parametrize("members", [1, 2, 3, 7, 12])
def test_a_larger_ensemble_begins_with_the_members_of_a_smaller_one(sampler, context, members):
    assert torch.equal(run(sampler, context, 23, 5)[:members], run(sampler, context, members, 5))


def with_threads(number: int, function):
    """Return the result of a function that is called while torch has ``number`` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        return function()
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="module")
def planet_sampler():
    """Return a sampler with the planet recipe's networks. On its grid oneDNN uses other code than on tiny ones."""
    recipe = load_recipe("planet")
    return random_sampler(recipe.moments, recipe.generator)


def test_members_depend_neither_on_their_number_nor_on_threads(planet_sampler):
    context = torch.randn(1, 4, 32, 64, generator=torch.Generator().manual_seed(1))
    size = batch_size(32 * 64, torch.device("cpu"))
    assert size % 2 == 1  # so two threads that share a batch divide it in the middle of a member

    def states_of(members: int) -> torch.Tensor:
        return run(planet_sampler, context, members, size, steps=1, shape=(2, 32, 64))

    expected = with_threads(1, lambda: states_of(size + 3))
    for members, threads in ((2, 3), (size - 1, 2), (size + 3, 2)):
        assert torch.equal(with_threads(threads, partial(states_of, members)), expected[:members]), (members, threads)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_member_is_the_same_at_every_position_in_a_batch(planet_sampler, threads):
    size = batch_size(32 * 64, torch.device("cpu"))
    random = torch.Generator().manual_seed(1)
    context, noise = torch.randn(1, 4, 32, 64, generator=random), torch.randn(1, 2, 32, 64, generator=random)
    alike = [tensor.expand(size, -1, -1, -1) for tensor in (context, noise)]
    states = with_threads(threads, lambda: in_batches(planet_sampler, size)(*alike))
    assert all(torch.equal(state, states[0]) for state in states)


@pytest.mark.parametrize("threads", [1, 3])
def test_side_by_side_keeps_the_number_of_threads_elsewhere(threads):
    cpu, later = torch.device("cpu"), []

    def look(_: int) -> int:
        later.append(ThreadPoolExecutor(1).submit(torch.get_num_threads).result())  # this thread starts while others compute
        return torch.get_num_threads()

    with ThreadPoolExecutor(1) as earlier:
        expected = with_threads(threads, lambda: earlier.submit(torch.get_num_threads).result())
        with_threads(threads, lambda: later.append(side_by_side(look, range(5), cpu)))
        assert later.pop() == [1] * 5
        assert later == [threads] * 5
        assert with_threads(threads, lambda: side_by_side(look, [], cpu)) == []
        assert with_threads(threads, lambda: (side_by_side(look, [0], cpu), torch.get_num_threads())[1]) == threads
        assert earlier.submit(torch.get_num_threads).result() == expected


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_work_side_by_side_needs_no_gradients_and_uses_further_threads_only_on_a_cpu(device):
    seen = side_by_side(lambda item: (item, torch.is_inference_mode_enabled(), current_thread()), "abc", torch.device(device))
    assert [item for item, *_ in seen] == ["a", "b", "c"]
    assert all(without_gradients for _, without_gradients, _ in seen)
    assert {thread is current_thread() for *_, thread in seen} == {device != "cpu"}
    assert not torch.is_inference_mode_enabled()


def test_an_error_stops_the_work_side_by_side():
    started = []

    def fail(item: int) -> None:
        started.append(item)
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 0"):
        with_threads(2, lambda: side_by_side(fail, range(1000), torch.device("cpu")))
    assert not torch.is_inference_mode_enabled()


def test_an_error_stops_all_workers_while_one_leaves_the_barrier(monkeypatch):
    """A worker that is slow to leave finds the barrier aborted, if anybody aborts it: its pool then never ended."""

    class Slow(Barrier):
        def wait(self, timeout: float | None = None) -> int:
            place = super().wait(timeout)
            if current_thread().name.endswith("_1"):
                time.sleep(0.3)
                if self.broken:
                    raise BrokenBarrierError
            return place

    def fail(item: int) -> None:
        time.sleep(0.6 * (item > 0))  # the other worker is busy meanwhile
        raise ValueError(f"item {item}")

    monkeypatch.setattr(side_by_side_module, "Barrier", Slow)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with_threads(2, lambda: side_by_side(fail, range(1000), torch.device("cpu")))
        except ValueError as error:
            errors.append(error)

    runner = Thread(target=work, daemon=True)
    runner.start()
    runner.join(timeout=20)
    assert not runner.is_alive()
    assert [str(error) for error in errors] == ["item 0"]


def test_batch_sizes_fall_with_the_number_of_grid_points():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [batch_size(points, cpu) for points in (128, 2048, 29_040, 1_038_240)] == [50, 25, 1, 1]
    assert [batch_size(points, gpu) for points in (2048, 1_038_240)] == [976, 2]
    assert with_threads(3, lambda: (at_once(25, cpu), at_once(25, gpu))) == (75, 25)


def test_a_solver_with_a_wrong_number_of_evaluations_is_refused(context):
    moments, generator = Moments(widths=(8, 12)), Generator(widths=(8, 12))
    prior_of, network = frozen_prior(moments_model(moments, WIND)), generator_model(generator, WIND)
    noise = next(member_noise(0, START, 1, 1, SHAPE))
    with torch.inference_mode():
        generator_sampler(network, prior_of, 3, 1.0, uniform(3), euler)(context, noise)
        with pytest.raises(RuntimeError, match="claims 4 evaluations took 3"):
            generator_sampler(network, prior_of, 4, 1.0, uniform(3), euler)(context, noise)


def test_members_initial_times_and_seeds_have_different_noise(sampler, context):
    members = run(sampler, context, 3, 3)
    assert (members[0] - members[1]).abs().max() > 0.1
    assert not torch.equal(run(sampler, context, 3, 3, seed=1), members)
    first, second = (next(member_noise(0, start, 1, 1, SHAPE)) for start in (START, START + np.timedelta64(6, "h")))
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.2


def test_noise_is_standard_normal_and_white():
    noise = torch.cat(list(member_noise(3, START, 40, 5, SHAPE)))
    assert noise.mean().item() == pytest.approx(0, abs=4 / noise.numel() ** 0.5)
    assert noise.var().item() == pytest.approx(1, abs=6 / noise.numel() ** 0.5)
    correlation = np.corrcoef(noise.flatten(1).numpy()) - np.eye(200)
    assert np.abs(correlation).max() < 6 / 256**0.5


@pytest.mark.parametrize(
    "after",
    [
        pytest.param("1981-01-01", id="the same number of seconds after 1970"),
        pytest.param("2027-01-19T03:14:08", id="2**31 seconds later"),
    ],
)
def test_noise_before_1970_is_not_that_of_another_date(after):
    """Seeds must not be negative, as the seconds of dates before 1970 are, but each date needs its own."""
    before, after = (next(member_noise(0, np.array([date], "datetime64[ns]"), 64, 1, SHAPE)) for date in ("1959-01-01", after))
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] == pytest.approx(0, abs=5 / before.numel() ** 0.5)
    assert before.std() == pytest.approx(1, abs=5 / (2 * before.numel()) ** 0.5)


def test_a_context_holds_the_current_state_and_then_the_one_before():
    """The autoregression agrees with one computed by hand: a state is twice the current one minus the one before, plus forcing."""
    states = list(
        forecast(
            lambda context, noise: 2 * context[:, :1] - context[:, 1:2] + context[:, 2:] + noise,
            [torch.tensor([[3.0]]), torch.tensor([[1.0]])],
            torch.zeros(4, 1, 1),
            torch.tensor([0.0, 0.0, 100.0, 0.0])[:, None, None],
        )
    )
    assert [state.item() for state in states] == [5, 7, 109, 211]


def test_moments_alone_are_gaussian_about_the_predicted_mean(context):
    prior_of = frozen_prior(lambda context: (context[:, :2] + 1, torch.full_like(context[:, :2], 0.5)))
    noise = next(member_noise(0, START, 2000, 1, SHAPE))
    state = moments_sampler(prior_of)(context.expand(2000, -1, -1, -1), noise)
    torch.testing.assert_close(state.mean(dim=0), context[0, :2] + 1, atol=0.06, rtol=0)
    torch.testing.assert_close(state.std(dim=0), torch.full(SHAPE, 0.5), atol=0.05, rtol=0)


def test_untrained_model_forecasts_persistence_of_the_state_now():
    """With the context of training and rollouts, the untrained mean is the current state, not the one six hours before."""
    packed = torch.randint(-5000, 5000, (5, *SHAPE), generator=torch.Generator().manual_seed(2), dtype=torch.int16)
    nothing, passed = ForcingFields(torch.empty(0, *SHAPE[1:])), torch.zeros(5, 2)
    scale, mean, std = torch.full((2, 1, 1), 0.005), torch.ones(2, 1, 1), torch.full((2, 1, 1), 5.0)
    samples = Samples(packed, scale, mean, std, torch.tensor([3, 1]), passed, nothing, variables=2, past_states=1)
    predicted, _ = moments_model(Moments(widths=(8, 12)), WIND)(samples.context(torch.tensor([0, 1])))
    torch.testing.assert_close(predicted, (packed[[3, 1]] * 0.005 - 1) / 5)
