"""Tests of appendix D: tails of data before and after normalisation, against closed forms, and their figure."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import new_run
from image_runs import RECIPE
from scipy import stats

import wsdcast
from wsdcast.images.contexts import fixed_contexts
from wsdcast.images.data.store import open_images
from wsdcast.images.networks import trained
from wsdcast.images.stages.sample import _tails
from wsdcast.report.tails import tails_figure
from wsdcast.runs.errors import UserError
from wsdcast.warmstart.prior import InformedPrior, no_blending, warmth_blending
from wsdcast.warmstart.tails import AS_THEY_ARE, EDGES, WARMTHS, Tails, tails_of


def test_two_values_have_the_kurtosis_of_their_shares():
    """The paper's example: a pixel is white 99 % of the time, else black. With the right moments and full warmth black is ten std away.

    A number with two values, the rarer with probability p, has the kurtosis 1 / (p (1 - p)) - 3 at any scale.
    """
    share = 0.01
    target = torch.ones(10, 1, 10, 10)
    target.flatten()[::100] = -1
    mean = 1 - 2 * share
    std = 2 * (share * (1 - share)) ** 0.5
    prior = InformedPrior(torch.full_like(target, mean), torch.full_like(target, std))
    tails_by_name = tails_of([(prior, target, None)])
    assert list(tails_by_name) == [AS_THEY_ARE, *(f"w = {warmth:g}" for warmth in WARMTHS)]
    for warmth in WARMTHS:
        tails = tails_by_name[f"w = {warmth:g}"]
        distance = (1 + mean) / warmth_blending(torch.tensor(std), torch.tensor(warmth)).item()
        assert tails.within == pytest.approx(distance, rel=1e-5)
        assert tails.beyond == pytest.approx(share if distance > 4 else 0)
        assert tails.kurtosis == pytest.approx(1 / (share * (1 - share)) - 3, rel=1e-3)
    assert tails_by_name["w = 1"].within == pytest.approx(9.95, abs=0.01)
    assert (tails_by_name["w = 1"].beyond, tails_by_name["w = 0.5"].beyond) == (pytest.approx(share), 0)
    assert tails_by_name[AS_THEY_ARE].within == 1


def test_gaussian_data_whose_moments_are_known_have_no_heavy_tails():
    random = torch.Generator().manual_seed(0)
    mean, std = torch.randn(40, 2, 100, 50, generator=random), torch.rand(40, 2, 100, 50, generator=random) + 0.05
    target = mean + std * torch.randn(mean.shape, generator=random)
    tails_by_name = tails_of((InformedPrior(m, s), x, None) for m, s, x in zip(mean.split(7), std.split(7), target.split(7), strict=True))
    tails = tails_by_name["w = 1"]
    assert tails.kurtosis == pytest.approx(3, abs=0.05)
    assert tails.within == pytest.approx(stats.norm.ppf(0.9995), rel=0.01)
    assert tails.beyond == pytest.approx(2 * stats.norm.sf(4), abs=4e-5)
    middle = (EDGES[1:] + EDGES[:-1]) / 2
    np.testing.assert_allclose(tails.density[80:160], stats.norm.pdf(middle[80:160]), rtol=0.2, atol=2e-3)
    # At w = 0 the values are a mixture of Gaussians of different widths, with kurtosis 3 E s^4 / (E s^2)^2.
    mixture = 3 * (std**4).mean() / (std**2).mean() ** 2
    assert tails_by_name["w = 0"].kurtosis == pytest.approx(mixture.item(), rel=0.02)


def test_densities_sum_to_one_and_far_values_are_in_the_last_bins():
    tails = Tails.of(np.array([-1e9, -0.05, 0.05, 1e9]))
    width = EDGES[1] - EDGES[0]
    assert tails.density.sum() * width == pytest.approx(1)
    assert (tails.density[0], tails.density[-1]) == (pytest.approx(0.25 / width), pytest.approx(0.25 / width))
    assert np.isnan(Tails.of(np.ones(5)).kurtosis)


def test_values_that_do_not_count_are_left_out():
    target = torch.tensor([[[[0.0, 50.0]], [[2.0, -70.0]]]])
    prior = InformedPrior(torch.zeros_like(target), torch.full_like(target, 0.5), no_blending)
    tails_by_name = tails_of([(prior, target, torch.tensor([[[[True, False]]]]))])
    assert tails_by_name["w = 0.5"].within == pytest.approx(np.quantile([0, 4], 0.999))


def test_the_figure_shows_the_densities_and_the_numbers():
    random = np.random.default_rng(0)
    names = [AS_THEY_ARE, *(f"w = {warmth:g}" for warmth in WARMTHS)]
    tails = {name: Tails.of(random.standard_t(5 + number, 10_000)) for number, name in enumerate(names)}
    left, right = tails_figure(tails, "values").axes
    assert [line.get_label() for line in left.lines] == [f"{AS_THEY_ARE}: {tails[AS_THEY_ARE]}", "N(0, 1)"]
    assert [line.get_label() for line in right.lines] == [*(f"{name}: {tails[name]}" for name in names[1:]), "N(0, 1)"]
    middle = (EDGES[1:] + EDGES[:-1]) / 2
    for axis, label in ((left, "values, as they are"), (right, "values, less the mean, over the std")):
        assert (axis.get_xlabel(), axis.get_yscale()) == (label, "log")
        assert all(np.array_equal(line.get_xdata(), middle) for line in axis.lines)
        np.testing.assert_allclose(axis.lines[-1].get_ydata(), stats.norm.pdf(middle))
    for line, name in zip([left.lines[0], *right.lines], names, strict=False):
        density = tails[name].density
        np.testing.assert_array_equal(line.get_ydata(), np.where(density > 0, density, np.nan))


def test_tails_of_a_run_of_images_are_those_of_its_hidden_values(inpainted):
    images = open_images(inpainted / "run/images")
    networks = trained(RECIPE, inpainted / "run", images)
    contexts = fixed_contexts(images, "test", RECIPE.task)
    tails_by_name, normalised = _tails(networks, contexts)
    context, target = contexts.context(torch.arange(20)), contexts.target(torch.arange(20))
    with torch.no_grad():
        mean, std = networks.moments(context)
    hidden = (context[:, 3:] == 0).expand_as(target)
    torch.testing.assert_close(normalised, (target - mean) / std)
    values = ((target - mean) / std)[hidden].double().numpy()
    assert tails_by_name["w = 1"].kurtosis == pytest.approx(stats.kurtosis(values, fisher=False), rel=1e-4)
    assert tails_by_name["w = 1"].within == pytest.approx(np.quantile(abs(values), 0.999), rel=1e-4)
    assert tails_by_name[AS_THEY_ARE].within <= 1


@pytest.mark.slow
def test_tails_of_wind_are_drawn_with_their_kurtosis(prepared, tmp_path):
    run = new_run(prepared, tmp_path)
    with pytest.raises(UserError, match="run `wsdcast train` first"):
        wsdcast.plot("tails", run=run)
    wsdcast.train(run=run)
    summary = wsdcast.plot("tails", run=run)
    assert (run / "tails.png").exists()
    wsdcast.plot("targets", run=run)
    assert (run / "targets.png").exists()
    assert list(summary.facts) == ["states, as they are", *(f"states, w = {warmth:g}" for warmth in WARMTHS)]
    assert all(text.startswith("kurtosis ") for text in summary.facts.values())
