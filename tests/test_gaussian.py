"""Tests of the closed form of a Gaussian's CRPS against the integral, another library, and a large sample."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from scipy.integrate import quad
from scipy.stats import norm
from without_numba import scoringrules

from wsdcast.data.grid import Grid
from wsdcast.data.variables import DEFAULT
from wsdcast.verification.gaussian import gaussian_crps, one_step_scores
from wsdcast.verification.kernels import fair_crps, ranked


@pytest.mark.parametrize(("mean", "std", "truth"), [(0.0, 1.0, 0.0), (1.0, 2.0, -3.0), (-4.0, 0.5, 2.0), (10.0, 0.1, 10.05)])
def test_the_gaussian_crps_is_the_integral_of_its_definition(mean, std, truth):
    below, _ = quad(lambda x: norm.cdf(x, mean, std) ** 2, min(mean, truth) - 12 * std, truth, points=[mean], epsabs=1e-12)
    above, _ = quad(lambda x: norm.sf(x, mean, std) ** 2, truth, max(mean, truth) + 12 * std, points=[mean], epsabs=1e-12)
    assert gaussian_crps(np.array(mean), np.array(std), np.array(truth)) == pytest.approx(below + above, rel=1e-8)


def test_the_gaussian_crps_is_that_of_scoringrules():
    random = np.random.default_rng(0)
    mean, std, truth = random.normal(0, 5, (4, 7)), random.uniform(0.1, 3, (4, 7)), random.normal(0, 5, (4, 7))
    np.testing.assert_allclose(gaussian_crps(mean, std, truth), scoringrules.crps_normal(truth, mean, std), rtol=1e-10)


def test_the_gaussian_crps_is_the_limit_for_large_ensembles():
    random = np.random.default_rng(0)
    mean, std, truth = random.normal(0, 2, 30), random.uniform(0.5, 2, 30), random.normal(0, 2, 30)
    sample = mean + std * random.standard_normal((10_000, 30))
    np.testing.assert_allclose(gaussian_crps(mean, std, truth), fair_crps(ranked(sample, truth)), atol=0.03)


def test_one_step_is_averaged_over_the_initial_times_that_all_forecasts_have():
    grid, times = Grid.regular("8x4"), np.datetime64("2020-01-01", "ns") + np.arange(3) * np.timedelta64(6, "h")
    random = np.random.default_rng(0)
    mean, std, true = random.normal(0, 5, (3, 2, 4, 8)), random.uniform(1, 2, (3, 2, 4, 8)), random.normal(0, 5, (3, 2, 4, 8))
    fields = {
        f"{name}_{of}": (("time", "latitude", "longitude"), values[:, number])
        for number, name in enumerate(DEFAULT)
        for of, values in (("mean", mean), ("std", std))
    }

    def at(valid: np.ndarray) -> np.ndarray:
        np.testing.assert_array_equal(valid, times + np.timedelta64(6, "h"))
        return true

    truth = SimpleNamespace(at=at, grid=grid, variables=DEFAULT)
    scored = np.array([True, False, True])
    result = one_step_scores(xr.Dataset(fields, {"time": times}), truth, scored)
    expected = (gaussian_crps(mean, std, true)[scored].mean(axis=0) * grid.area_weights[:, None]).mean(axis=(1, 2))
    np.testing.assert_allclose(result.sel(region="globe", variable=list(DEFAULT)), expected, rtol=1e-6)
    np.testing.assert_allclose(result.sel(region="globe", variable="both"), expected.mean(), rtol=1e-6)


def test_without_spread_it_is_the_absolute_error():
    mean, truth = np.array([1.0, 2.0, 3.0]), np.array([4.0, 2.0, 1.0])
    np.testing.assert_array_equal(gaussian_crps(mean, np.zeros(3), truth), [3, 0, 2])
    assert gaussian_crps(np.float64(0), np.float64(1), np.float64(0)) == pytest.approx((np.sqrt(2) - 1) / np.sqrt(np.pi))
