"""Every score against brute force, another library, or a case whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import scoringrules
import xarray as xr

from wsdcast.data.grid import Grid
from wsdcast.verification.kernels import debiased_squared_error, fair_crps, standard_crps, variance, zonal_power
from wsdcast.verification.statistics import metrics, statistics


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("members", [2, 3, 10])
def test_crps_is_that_of_all_pairs(random, members):
    ensemble, truth = random.standard_normal((members, 4, 5)), random.standard_normal((4, 5))
    error = np.mean([np.abs(one - truth) for one in ensemble], axis=0)
    pairs = sum(np.abs(one - other) for one in ensemble for other in ensemble)
    np.testing.assert_allclose(fair_crps(ensemble, truth), error - pairs / (2 * members * (members - 1)), atol=1e-12)
    np.testing.assert_allclose(standard_crps(ensemble, truth), error - pairs / (2 * members**2), atol=1e-12)


def test_crps_is_that_of_scoringrules(random):
    ensemble, truth = random.standard_normal((10, 6)), random.standard_normal(6)
    for ours, estimator in ((fair_crps, "fair"), (standard_crps, "nrg")):
        np.testing.assert_allclose(ours(ensemble, truth), scoringrules.crps_ensemble(truth, ensemble.T, estimator=estimator), rtol=1e-10)


def test_fair_crps_does_not_depend_on_the_number_of_members(random):
    """A perfect ensemble of N(0, 1) scores 1 / sqrt(pi) on average, fair whatever its size, standard only in the limit."""
    truth = random.standard_normal(100_000)
    for members in (2, 5):
        ensemble = random.standard_normal((members, 100_000))
        assert fair_crps(ensemble, truth).mean() == pytest.approx(1 / np.sqrt(np.pi), rel=0.01)
        assert standard_crps(ensemble, truth).mean() == pytest.approx((1 + 1 / members) / np.sqrt(np.pi), rel=0.01)


def test_one_member_scores_its_absolute_error(random):
    one, truth = random.standard_normal((1, 7)), random.standard_normal(7)
    np.testing.assert_allclose(fair_crps(one, truth), np.abs(one[0] - truth))
    np.testing.assert_allclose(debiased_squared_error(one, truth), (one[0] - truth) ** 2)
    assert not variance(one).any()


def test_one_cosine_lands_in_one_wavenumber():
    grid = Grid.regular("24x13")
    field = 3 * np.cos(5 * np.deg2rad(grid.longitude)) * np.ones((13, 1))
    power = zonal_power(field, grid)
    assert np.argmax(power) == 5
    assert np.delete(power, 5).max() < 1e-12 * power[5]


@pytest.mark.parametrize("name", ["24x13", "24x12", "10x7"])
def test_parseval_of_the_spectrum(random, name):
    """Its sum is the mean over rows, pole rows left out, of the circumference times the mean square on the circle."""
    grid = Grid.regular(name)
    field = random.standard_normal(grid.shape)
    rows = np.abs(grid.latitude) < 90
    circumference = 2 * np.pi * 6367.5e3 * np.cos(np.deg2rad(grid.latitude))
    expected = (circumference * (field**2).mean(axis=1))[rows].mean()
    assert zonal_power(field, grid).sum() == pytest.approx(expected, rel=1e-12)


def test_pole_rows_do_not_count(random):
    grid = Grid.regular("24x13")
    field = random.standard_normal(grid.shape)
    changed = field.copy()
    changed[[0, -1]] = 1e6
    np.testing.assert_array_equal(zonal_power(field, grid), zonal_power(changed, grid))


def as_dataset(parts: list[dict[str, np.ndarray]]) -> xr.Dataset:
    names = {2: ("time", "lead", "variable"), 3: ("time", "lead", "variable", "wavenumber")}
    return xr.Dataset({key: (names[part.ndim], np.stack([start[key] for start in parts])) for key, part in parts[0].items()})


def test_a_perfect_ensemble_has_spread_equal_to_skill_and_the_right_spectrum(random):
    grid = Grid.regular("24x13")
    parts = [
        statistics(random.standard_normal((4, 1, 2, *grid.shape)), random.standard_normal((1, 2, *grid.shape)), grid) for _ in range(200)
    ]
    result = metrics(as_dataset(parts).mean(["time", "variable"]))
    assert result["spread_skill"].item() == pytest.approx(1, abs=0.01)
    assert result["crps_fair"].item() == pytest.approx(1 / np.sqrt(np.pi), rel=0.01)
    assert result["power_deviation"].item() < 0.05
    # The error of the mean of four members is larger than that of infinitely many, by a quarter of the variance.
    assert result["rmse"].item() == pytest.approx(np.sqrt(1.25), rel=0.01)


def test_area_means_weigh_cells_by_their_area(random):
    grid = Grid.regular("24x13")
    truth = np.zeros((1, 1, *grid.shape))
    for row in range(13):
        ensemble = np.zeros((2, 1, 1, *grid.shape))
        ensemble[..., row, :] = 2.0
        top, bottom = np.sin(np.deg2rad(grid.latitude_bounds[row : row + 2]))
        share = (top - bottom) / 2
        result = statistics(ensemble, truth, grid)
        assert result["crps_fair"].item() == pytest.approx(2 * share)
        assert result["squared_error"].item() == pytest.approx(4 * share)


def test_parts_scored_apart_join_without_loss(random):
    grid = Grid.regular("12x7")
    ensemble, truth = random.standard_normal((6, 3, 2, 1, *grid.shape)), random.standard_normal((6, 2, 1, *grid.shape))
    parts = [statistics(one, other, grid) for one, other in zip(ensemble, truth, strict=True)]
    whole = metrics(as_dataset(parts).mean("time"))
    joined = metrics(xr.concat([as_dataset(parts[:2]), as_dataset(parts[2:])], dim="time").mean("time"))
    xr.testing.assert_allclose(whole, joined)
    # And it is not the mean of the metrics: the root comes after.
    apart = (metrics(as_dataset(parts[:2]).mean("time"))["rmse"] * 2 + metrics(as_dataset(parts[2:]).mean("time"))["rmse"] * 4) / 6
    assert abs(float((apart - whole["rmse"]).max())) > 1e-6


def test_ratio_is_of_averaged_spectra_of_members(random):
    """Averaging single ratios would be biased above 1, and the spectrum of the ensemble mean far below."""
    grid = Grid.regular("24x12")
    parts = [
        statistics(random.standard_normal((5, 1, 1, *grid.shape)), random.standard_normal((1, 1, *grid.shape)), grid) for _ in range(150)
    ]
    data = as_dataset(parts)
    ratio = metrics(data.mean("time"))["power_ratio"].values
    assert np.abs(ratio - 1).max() < 0.08
    assert (data["power"] / data["power_truth"]).mean("time").values[..., 1:].mean() > 1.08


def test_float32_is_precise_enough(random):
    grid = Grid.regular("24x13")
    ensemble, truth = random.standard_normal((50, 1, 1, *grid.shape)) * 8, random.standard_normal((1, 1, *grid.shape)) * 8
    single, double = statistics(ensemble.astype(np.float32), truth.astype(np.float32), grid), statistics(ensemble, truth, grid)
    for key, value in double.items():
        np.testing.assert_allclose(single[key], value, rtol=1e-5)
