"""The loss of ensembles of one evaluation: against closed forms, other libraries and brute force."""

from __future__ import annotations

import math

import numpy as np
import properscoring
import pytest
import torch
from torch import Tensor, nn

from wsdcast.nets.unet import UNet
from wsdcast.warmstart.crps import NOISE_NUMBERS, almost_fair_crps, direct_sample, ensemble_loss, spectral_crps
from wsdcast.warmstart.prior import InformedPrior


def members_and_truth(count: int, *shape: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    drawn = torch.randn((count + 1, *shape), generator=random, dtype=torch.float64)
    return drawn[:count], drawn[count]


@pytest.mark.parametrize("count", [2, 3, 7])
def test_without_fairness_it_is_the_usual_crps_and_with_it_the_fair_one(count):
    members, truth = members_and_truth(count, 20)
    usual = properscoring.crps_ensemble(truth.numpy(), members.numpy(), axis=0)
    np.testing.assert_allclose(almost_fair_crps(members, truth, alpha=0), usual, rtol=1e-12)
    error = (members - truth).abs().mean(dim=0).numpy()
    fair = error - (error - usual) * count / (count - 1)
    np.testing.assert_allclose(almost_fair_crps(members, truth, alpha=1), fair, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(almost_fair_crps(members, truth, alpha=0.95), 0.95 * fair + 0.05 * usual, rtol=1e-12)


def test_its_expectation_is_that_of_gaussian_members():
    random = torch.Generator().manual_seed(1)
    truth = 2 + 0.5 * torch.randn(400_000, generator=random)
    for std in (0.3, 0.5, 0.8):
        members = 2 + std * torch.randn((2, 400_000), generator=random)
        # E|X - Y| - E|X - X'| / 2 for normal X, X' and Y of the same mean
        expected = math.sqrt(2 / math.pi * (std**2 + 0.25)) - std / math.sqrt(math.pi)
        assert almost_fair_crps(members, truth, alpha=1).mean().item() == pytest.approx(expected, rel=0.01)


class Line(nn.Module):
    """A member that is a line in its first random number."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(())), nn.Parameter(torch.tensor(0.2))

    def forward(self, x: Tensor, numbers: Tensor) -> Tensor:
        assert numbers.shape[1] == NOISE_NUMBERS
        return (self.a + self.b * numbers[:, 0])[:, None, None, None].expand(-1, 1, *x.shape[2:])


def test_members_at_the_optimum_are_independent_draws_from_the_data():
    random, network = torch.Generator().manual_seed(2), Line()
    prior = InformedPrior(torch.full((512, 1, 4, 8), 1.0), torch.full((512, 1, 4, 8), 2.0))
    context = torch.zeros(512, 1, 4, 8)
    loss = ensemble_loss(torch.ones(4, 1), torch.ones(1, 1, 1), torch.ones(1, 5), alpha=1, spectral_weight=0)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.05)
    history = []
    for _ in range(300):
        truth = (1.8 + 0.6 * torch.randn((512, 1, 1, 1), generator=random)).expand(-1, 1, 4, 8)
        noise = torch.randn((2, 512, 1, 4, 8), generator=random)
        optimiser.zero_grad()
        loss(torch.stack([direct_sample(network, prior, context, member) for member in noise]), truth).backward()
        optimiser.step()
        history.append([network.a.item(), abs(network.b.item())])
    # In the units of the data: mean 1 + 2 a, standard deviation 2 b.
    np.testing.assert_allclose(np.mean(history[-150:], axis=0), [0.4, 0.3], atol=0.02)


def test_waves_are_scored_as_written_out():
    members, truth = members_and_truth(2, 3, 2, 4, 8)
    weights = torch.tensor([0.5, 1.5, 1.5, 0.5], dtype=torch.float64)[:, None]
    wave = np.exp(-2j * np.pi * np.outer(np.arange(5), np.arange(8)) / 8) / math.sqrt(8)
    first, second, of_truth = (field.numpy() @ wave.T for field in (*members, truth))
    amplitude = np.linspace(0.5, 2, 10).reshape(2, 5)
    crps = (np.abs(first - of_truth) + np.abs(second - of_truth)) / 2 - np.abs(first - second) / 2
    crps = np.mean(weights.numpy() * crps, axis=(0, 2))
    for smallest in (0.5, 0.0):  # a wave without any power in the data counts as one of a millionth of the largest amplitude
        amplitude[0, 0] = smallest
        unit = np.sqrt(np.maximum(amplitude, 2e-6))
        score = spectral_crps(members, truth, weights, torch.from_numpy(amplitude), alpha=1)
        assert score.item() == pytest.approx(np.sum(crps / unit) / np.sum(unit), rel=1e-12)


def test_waves_of_the_truth_score_zero_and_smooth_members_score_worse_than_draws():
    random = torch.Generator().manual_seed(3)
    weights = torch.ones(4, 1)
    slope = torch.arange(1, 18) ** -1.0

    def draws(*shape: int, smooth: bool = False) -> Tensor:
        waves = torch.randn((*shape, 17), dtype=torch.complex64, generator=random) * slope
        if smooth:
            waves[..., 4:] = 0
        return torch.fft.irfft(waves, n=32, dim=-1, norm="ortho")

    truth = draws(256, 1, 4)
    assert spectral_crps(torch.stack([truth, truth]), truth, weights, slope[None], alpha=1).abs() < 1e-6
    right = spectral_crps(draws(2, 256, 1, 4), truth, weights, slope[None], alpha=1)
    smoothed = spectral_crps(draws(2, 256, 1, 4, smooth=True), truth, weights, slope[None], alpha=1)
    assert smoothed > 1.2 * right
    # The score of points sees the difference less.
    of_points = [almost_fair_crps(draws(2, 256, 1, 4, smooth=smooth), truth, alpha=1).mean() for smooth in (False, True)]
    assert of_points[1] / of_points[0] < smoothed / right


def test_the_loss_is_in_units_of_the_change_and_weighs_rows_by_area():
    members, truth = members_and_truth(2, 3, 2, 4, 8)
    weights, scale = torch.tensor([0.0, 2.0, 2.0, 0.0], dtype=torch.float64)[:, None], torch.tensor([0.5, 4.0]).double()[:, None, None]
    amplitude = torch.linspace(0.5, 2, 10, dtype=torch.float64).reshape(2, 5)
    loss = ensemble_loss(weights, scale, amplitude, alpha=0.9, spectral_weight=0.3)(members, truth)
    # A batch in two parts has the mean loss of its parts, so that a step does not depend on how it is divided.
    parts = [ensemble_loss(weights, scale, amplitude, 0.9, 0.3)(members[:, one], truth[one]) for one in (slice(1), slice(1, 3))]
    torch.testing.assert_close(loss, (parts[0] + 2 * parts[1]) / 3)
    of_rows = almost_fair_crps(members, truth, 0.9)[:, :, 1:3] / scale
    torch.testing.assert_close(loss, of_rows.mean() + 0.3 * spectral_crps(members, truth, weights, amplitude, 0.9))


def test_random_numbers_have_no_effect_before_training_and_a_gradient():
    torch.manual_seed(0)
    network = UNet(3, 1, (8, 8), noise=NOISE_NUMBERS)
    nn.init.normal_(network.last.weight)
    nn.init.normal_(network.middle.convolution2.weight)
    x = torch.randn(2, 3, 8, 16)
    numbers = torch.randn(2, NOISE_NUMBERS)
    assert torch.equal(network(x, numbers), network(x, torch.zeros(1, NOISE_NUMBERS).expand(2, -1)))
    network(x, numbers).square().sum().backward()
    assert network.embeddings[0].weight.grad.abs().max() > 0
    assert network.input_shapes(8, 16) == ((1, 3, 8, 16), (1, NOISE_NUMBERS))


@pytest.mark.parametrize("alpha", [1.0, 0.95, 0.5])
def test_unfairness_of_two_members_narrows_a_gaussian(alpha):
    """The expected score of members of N(0, s^2) for a truth of N(0, 1) is lowest for s^2 / (1 + s^2) = (1 - (1 - alpha) / 2)^2 / 2."""
    normal = torch.special.ndtri((torch.arange(80, dtype=torch.float64) + 0.5) / 80)
    first, second, truth = torch.meshgrid(normal, normal, normal, indexing="ij")
    share = (1 - (1 - alpha) / 2) ** 2 / 2
    best = (share / (1 - share)) ** 0.5
    scores = [float(almost_fair_crps(torch.stack([s * first, s * second]), truth, alpha).mean()) for s in (0.96 * best, best, 1.04 * best)]
    assert scores[1] < min(scores[0], scores[2])
