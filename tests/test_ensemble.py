from __future__ import annotations

import numpy as np
import pytest
import torch

from wsdcast.ensemble import forecast, generator_sampler, in_batches, member_noise, moments_sampler
from wsdcast.models import generator_model, moments_model
from wsdcast.recipe import Network
from wsdcast.warmstart.prior import warm_start

START = np.datetime64("2020-02-03T06", "ns")
SHAPE = (2, 8, 16)


@pytest.fixture(scope="module")
def sampler():
    random = torch.Generator().manual_seed(0)
    network = Network(widths=(8, 12), steps=1)
    parts = [moments_model(network, False), generator_model(network, False)]
    for part in parts:
        part.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        for parameter in part.parameters():
            if not parameter.any():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=random))
    return generator_sampler(parts[1], warm_start(parts[0]), nfe=4, warmth=1.0)


@pytest.fixture(scope="module")
def context():
    return torch.randn(1, 4, 8, 16, generator=torch.Generator().manual_seed(1))


def run(sampler, context, members: int, batch: int, steps: int = 3, seed: int = 0) -> torch.Tensor:
    noises = member_noise(seed, START, members, steps, SHAPE)
    with torch.inference_mode():
        return torch.stack(list(forecast(in_batches(sampler, batch), context.expand(members, -1, -1, -1), noises)), dim=1)


@pytest.mark.parametrize("batch", [2, 3, 4, 7, 50])
def test_members_have_the_same_bits_in_any_batch(sampler, context, batch):
    assert torch.equal(run(sampler, context, 7, batch), run(sampler, context, 7, 5))


@pytest.mark.parametrize("members", [1, 2, 3, 5])
def test_the_first_members_of_many_are_the_few(sampler, context, members):
    assert torch.equal(run(sampler, context, 9, 4)[:members], run(sampler, context, members, 4))


def test_members_starts_and_seeds_differ(sampler, context):
    members = run(sampler, context, 3, 3)
    assert (members[0] - members[1]).abs().max() > 0.1
    assert not torch.equal(run(sampler, context, 3, 3, seed=1), members)
    one, other = (next(member_noise(0, start, 1, 1, SHAPE)) for start in (START, START + np.timedelta64(6, "h")))
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.2


def test_noise_is_standard_normal_and_white():
    noise = torch.cat(list(member_noise(3, START, 40, 5, SHAPE)))
    assert noise.mean().item() == pytest.approx(0, abs=4 / noise.numel() ** 0.5)
    assert noise.var().item() == pytest.approx(1, abs=6 / noise.numel() ** 0.5)
    correlation = np.corrcoef(noise.flatten(1).numpy()) - np.eye(200)
    assert np.abs(correlation).max() < 6 / 256**0.5


def test_noise_before_1970():
    assert torch.isfinite(next(member_noise(0, np.datetime64("1959-01-01", "ns"), 1, 1, SHAPE))).all()


def test_context_is_now_then_before():
    """The autoregression against one written out by hand: each state is twice the state now less the state before."""
    states = list(
        forecast(
            lambda context, noise: 2 * context[:, :1] - context[:, 1:] + noise, torch.tensor([[[[3.0]], [[1.0]]]]), iter(torch.zeros(4, 1))
        )
    )
    assert [state.item() for state in states] == [5, 7, 9, 11]


def test_moments_alone_are_gaussian_about_the_predicted_mean(context):
    prior_of = warm_start(lambda context: (context[:, :2] + 1, torch.full_like(context[:, :2], 0.5)))
    noise = next(member_noise(0, START, 2000, 1, SHAPE))
    state = moments_sampler(prior_of)(context.expand(2000, -1, -1, -1), noise)
    torch.testing.assert_close(state.mean(dim=0), context[0, :2] + 1, atol=0.06, rtol=0)
    torch.testing.assert_close(state.std(dim=0), torch.full(SHAPE, 0.5), atol=0.05, rtol=0)
