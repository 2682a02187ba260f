"""Tests of every score against its definition written out, another library, or a case with a known answer."""

from __future__ import annotations

import itertools

import numba
import numpy as np
import pytest
import xarray as xr
from numba.core.caching import CacheImpl
from without_numba import scoringrules

from wsdcast.data.grid import Grid
from wsdcast.data.variables import DEFAULT
from wsdcast.verification.intervals import with_intervals
from wsdcast.verification.kernels import (
    brier_score,
    energy_scores,
    fair_crps,
    ranked,
    sorting_network,
    squared_error_debiased,
    standard_crps,
    variance,
    variogram_score,
    zonal_power,
)
from wsdcast.verification.machine_code import machine_code
from wsdcast.verification.metrics import joint_statistics, metrics, scored_pairs, statistics, with_both
from wsdcast.verification.regions import REGIONS, region_weights
from wsdcast.verification.scoring import statistics_of


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("members", [2, 3, 10])
def test_crps_is_that_of_all_pairs(random, members):
    ensemble, truth = random.standard_normal((members, 4, 5)), random.standard_normal((4, 5))
    error = np.mean([np.abs(member - truth) for member in ensemble], axis=0)
    pairs = sum(np.abs(member - other) for member in ensemble for other in ensemble)
    np.testing.assert_allclose(fair_crps(ranked(ensemble, truth)), error - pairs / (2 * members * (members - 1)), atol=1e-12)
    np.testing.assert_allclose(standard_crps(ranked(ensemble, truth)), error - pairs / (2 * members**2), atol=1e-12)


def test_crps_is_that_of_scoringrules(random):
    ensemble, truth = random.standard_normal((10, 6)), random.standard_normal(6)
    for ours, estimator in ((fair_crps, "fair"), (standard_crps, "nrg")):
        np.testing.assert_allclose(
            ours(ranked(ensemble, truth)), scoringrules.crps_ensemble(truth, ensemble.T, estimator=estimator), rtol=1e-10
        )


def test_fair_crps_does_not_depend_on_the_number_of_members(random):
    """A perfect ensemble of N(0, 1) has an average of 1 / sqrt(pi): in fair CRPS at any size, in standard CRPS only in the limit."""
    truth = random.standard_normal(100_000)
    for members in (2, 5):
        ensemble = random.standard_normal((members, 100_000))
        assert fair_crps(ranked(ensemble, truth)).mean() == pytest.approx(1 / np.sqrt(np.pi), rel=0.01)
        assert standard_crps(ranked(ensemble, truth)).mean() == pytest.approx((1 + 1 / members) / np.sqrt(np.pi), rel=0.01)


def test_one_member_scores_its_absolute_error(random):
    one, truth = random.standard_normal((1, 7)), random.standard_normal(7)
    np.testing.assert_allclose(fair_crps(ranked(one, truth)), np.abs(one[0] - truth))
    for undefined in (squared_error_debiased(ranked(one, truth)), variance(ranked(one, truth))):
        assert np.isnan(undefined).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_takes_its_member_out_and_its_truth(random, value):
    ensemble, truth = random.normal(0, 5, (4, 2, 2, 32, 64)), random.normal(0, 5, (2, 2, 32, 64))
    grid = Grid.regular("64x32")
    ensemble[2, 0, 1, 3, 7], truth[1, 0, 5, 5] = value, value
    result = statistics_of(ensemble, truth, grid)
    expected = statistics_of(np.delete(ensemble, 2, axis=0)[:, :1], truth[:1], grid)
    for name in ("crps_fair", "variance", "energy_score"):
        np.testing.assert_array_equal(result[name][0], expected[name][0])
        assert np.isnan(result[name][1]).all()


@pytest.mark.parametrize(("left", "scored"), [(3, True), (2, True), (1, False), (0, False)])
def test_one_remaining_member_has_no_ensemble_scores(random, left, scored):
    """Fair CRPS and spread need two members. A lead time with fewer has no scores; one with two has the scores of these two."""
    ensemble, truth = random.normal(0, 5, (3, 2, 2, 32, 64)), random.normal(0, 5, (2, 2, 32, 64))
    ensemble[left:, 1] = np.nan
    result = statistics_of(ensemble, truth, Grid.regular("64x32"))
    complete = statistics_of(ensemble[:, :1], truth[:1], Grid.regular("64x32"))
    np.testing.assert_array_equal(result["crps_fair"][0], complete["crps_fair"][0])
    assert bool(scored_pairs(result.expand_dims(["forecast", "time"]))[0, 1]) is scored
    if scored:
        of_those_left = statistics_of(ensemble[:left, 1:], truth[1:], Grid.regular("64x32"))
        for name in ("crps_fair", "crps_standard", "variance", "squared_error_debiased", "energy_score", "power"):
            np.testing.assert_array_equal(result[name][1], of_those_left[name][0])
    else:
        assert all(np.isnan(field.isel(prediction_timedelta=1)).all() for field in result.data_vars.values())


def test_one_cosine_lands_in_one_wavenumber():
    grid = Grid.regular("24x13")
    field = 3 * np.cos(5 * np.deg2rad(grid.longitude)) * np.ones((13, 1))
    power = zonal_power(field, grid)
    assert np.argmax(power) == 5
    assert np.delete(power, 5).max() < 1e-12 * power[5]


@pytest.mark.parametrize(("longitudes", "latitudes"), [(24, 13), (24, 12), (10, 7), (9, 7)])
def test_the_spectrum_sums_to_the_variance(random, longitudes, latitudes):
    """The sum of the spectrum is the mean over rows, without the poles, of circumference times mean square on the circle."""
    grid = Grid(Grid.regular(f"24x{latitudes}").latitude, np.arange(longitudes) * 360 / longitudes)
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


def of_globe(parts: list[xr.Dataset]) -> xr.Dataset:
    """Return the global statistics of u and v, (time, ...)."""
    return xr.concat(parts, dim="time").sel(region="globe", variable=list(DEFAULT))


def test_a_perfect_ensemble_has_spread_equal_to_skill_and_the_right_spectrum(random):
    grid = Grid.regular("24x13")
    parts = [
        statistics(random.standard_normal((4, 1, 2, *grid.shape)), random.standard_normal((1, 2, *grid.shape)), grid) for _ in range(200)
    ]
    result = metrics(of_globe(parts).mean(["time", "variable"])).isel(prediction_timedelta=0)
    assert result["spread_skill"].item() == pytest.approx(1, abs=0.01)
    assert result["crps_fair"].item() == pytest.approx(1 / np.sqrt(np.pi), rel=0.01)
    assert result["power_deviation"].item() < 0.05
    # The error of the mean of four members is larger than that of infinitely many, by a quarter of the variance.
    assert result["rmse"].item() == pytest.approx(np.sqrt(1.25), rel=0.01)


def test_area_means_weigh_cells_by_their_area(random):
    grid = Grid.regular("24x13")
    truth = np.zeros((1, 2, *grid.shape))
    for row in range(13):
        ensemble = np.zeros((2, 1, 2, *grid.shape))
        ensemble[..., row, :] = 2.0
        top, bottom = np.sin(np.deg2rad(grid.latitude_bounds[row : row + 2]))
        share = (top - bottom) / 2
        result = of_globe([statistics(ensemble, truth, grid)]).isel(variable=0)
        assert result["crps_fair"].item() == pytest.approx(2 * share)
        assert result["squared_error"].item() == pytest.approx(4 * share)


def test_parts_scored_separately_join_to_the_whole(random):
    grid = Grid.regular("12x7")
    ensemble, truth = random.standard_normal((6, 3, 2, 2, *grid.shape)), random.standard_normal((6, 2, 2, *grid.shape))
    parts = [statistics(one, other, grid) for one, other in zip(ensemble, truth, strict=True)]
    whole = metrics(of_globe(parts).mean("time"))
    joined = metrics(xr.concat([of_globe(parts[:2]), of_globe(parts[2:])], dim="time").mean("time"))
    xr.testing.assert_allclose(whole, joined)
    # It is not the mean of the metrics, because the root is taken after averaging.
    apart = (metrics(of_globe(parts[:2]).mean("time"))["rmse"] * 2 + metrics(of_globe(parts[2:]).mean("time"))["rmse"] * 4) / 6
    assert abs(float((apart - whole["rmse"]).max())) > 1e-6


def test_ratio_is_of_averaged_spectra_of_members(random):
    """The mean of single ratios would be biased above 1, and the ratio for the ensemble mean would be far below."""
    grid = Grid.regular("24x12")
    parts = [
        statistics(random.standard_normal((5, 1, 2, *grid.shape)), random.standard_normal((1, 2, *grid.shape)), grid) for _ in range(150)
    ]
    data = of_globe(parts)
    ratio = metrics(data.mean("time"))["power_ratio"].values[0, 0]
    assert np.abs(ratio - 1).max() < 0.08
    assert (data["power"] / data["power_truth"]).mean("time").values[..., 1:].mean() > 1.08


def test_float32_is_precise_enough(random):
    grid = Grid.regular("24x13")
    ensemble, truth = random.standard_normal((50, 1, 2, *grid.shape)) * 8, random.standard_normal((1, 2, *grid.shape)) * 8
    for compute in (statistics, joint_statistics):
        single, double = compute(ensemble.astype(np.float32), truth.astype(np.float32), grid), compute(ensemble, truth, grid)
        for name, value in double.data_vars.items():
            np.testing.assert_allclose(single[name], value, rtol=1e-5, atol=1e-7)


def test_ties_count_for_each_rank_equally(random):
    """As a mean over all orders of those that are equal, in the smallest region too. Drawn ranks were the same at all times there."""
    grid = Grid.regular("24x13")
    ensemble, truth = random.integers(0, 3, (4, 1, 2, *grid.shape)), random.integers(0, 3, (1, 2, *grid.shape))
    ours = statistics(ensemble.astype(float), truth.astype(float), grid)["rank_histogram"].isel(prediction_timedelta=0)
    weights, expected = region_weights(grid), np.zeros((2, len(REGIONS), 5))
    for channel, row, column in np.ndindex(2, *grid.shape):
        members, true = ensemble[:, 0, channel, row, column], truth[0, channel, row, column]
        possible = np.arange((members < true).sum(), (members <= true).sum() + 1)
        expected[channel][:, possible] += weights[:, row, column, None] / possible.size
    np.testing.assert_allclose(ours.isel(variable=slice(0, 2)), expected, atol=1e-12)
    calm = statistics(np.zeros((4, 1, 2, *grid.shape)), np.zeros((1, 2, *grid.shape)), grid)["rank_histogram"]
    np.testing.assert_allclose(calm, 0.2)


def test_rank_histogram_of_a_perfect_ensemble_is_flat_and_that_of_a_narrow_one_is_not(random):
    grid = Grid.regular("24x13")
    truth = random.standard_normal((60, 1, 2, *grid.shape))
    for width, flat in ((1.0, True), (0.3, False)):
        parts = [statistics(width * random.standard_normal((4, 1, 2, *grid.shape)), one, grid) for one in truth]
        shares = of_globe(parts)["rank_histogram"].mean(["time", "variable", "prediction_timedelta"]).values
        assert shares.sum() == pytest.approx(1)
        assert (np.abs(shares - 0.2).max() < 0.02) == flat
        assert flat or min(shares[0], shares[-1]) > 0.3


def of_one_region(ensemble: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> float:
    """Return the energy score of fields (member, channel, point), which are laid out as one row."""
    return energy_scores(ensemble[:, :, None], truth[:, None], weights[None, None])[0]


def test_energy_score_of_a_box_is_that_of_its_cells(random):
    ensemble, truth = random.standard_normal((4, 2, 5, 8)), random.standard_normal((2, 5, 8))
    weights = np.zeros((2, 5, 8))
    weights[0, 1:4, [0, 1, 7]] = random.uniform(1, 2, (3, 3))
    weights /= weights[0].sum()
    weights[1] = np.nan
    inside = weights[0] > 0
    scores = energy_scores(ensemble, truth, weights)
    assert scores[0] == pytest.approx(of_one_region(ensemble[:, :, inside], truth[:, inside], weights[0][inside]))
    assert np.isnan(scores[1])


def test_energy_score_is_that_of_all_pairs_and_of_scoringrules(random):
    ensemble, truth, weights = random.standard_normal((6, 2, 9)), random.standard_normal((2, 9)), random.dirichlet(np.ones(9))

    def norm(x):
        return np.sqrt((x**2 * weights).sum())

    error = np.mean([norm(one - truth) for one in ensemble])
    pairs = sum(norm(one - other) for one in ensemble for other in ensemble)
    assert of_one_region(ensemble, truth, weights) == pytest.approx(error - pairs / (2 * 6 * 5), rel=1e-12)
    assert of_one_region(ensemble[:1], truth, weights) == pytest.approx(norm(ensemble[0] - truth))
    scaled = (np.sqrt(weights) * ensemble).reshape(6, -1), (np.sqrt(weights) * truth).ravel()
    theirs = scoringrules.es_ensemble(scaled[1], scaled[0], estimator="fair")
    assert of_one_region(ensemble, truth, weights) == pytest.approx(float(theirs), rel=1e-10)


def test_energy_score_of_members_that_nearly_agree(random):
    """Distances between members that are far smaller than the error are not lost in rounding."""
    truth = random.standard_normal((2, 50)).astype(np.float32)
    ensemble = truth + 5 + 1e-3 * random.standard_normal((4, 2, 50)).astype(np.float32)
    weights = np.full(50, 0.02)
    pairs = itertools.combinations(ensemble, 2)
    distance = np.mean([np.sqrt((((a - b).astype(float)) ** 2 * weights).sum()) for a, b in pairs])
    error = np.mean([np.sqrt((((a - truth).astype(float)) ** 2 * weights).sum()) for a in ensemble])
    assert error - of_one_region(ensemble, truth, weights) == pytest.approx(distance / 2, rel=1e-3)


@pytest.mark.parametrize("count", [*range(1, 20), 50, 51, 64, 65])
def test_sorting_networks_sort_every_input(random, count):
    values = random.integers(0, 9, (count, 40))
    ordered = np.sort(values, axis=0)
    for first, second in sorting_network(count):
        values[[first, second]] = np.sort(values[[first, second]], axis=0)
    np.testing.assert_array_equal(values, ordered)


def test_variogram_score_is_that_of_pairs_written_out(random):
    ensemble, truth = random.standard_normal((3, 2, 6)), random.standard_normal((2, 6))
    scores = variogram_score(ensemble, truth, 2)
    for row, column in np.ndindex(2, 6):
        other = (column + 2) % 6
        true = abs(truth[row, column] - truth[row, other]) ** 0.5
        members = np.mean([abs(member[row, column] - member[row, other]) ** 0.5 for member in ensemble])
        assert scores[row, column] == pytest.approx((true - members) ** 2)


@pytest.mark.parametrize("threshold", [10.8, 17.2])
def test_brier_score_is_the_squared_error_of_the_probability(random, threshold):
    ensemble, truth = random.gamma(4, 3, (10, 50)), random.gamma(4, 3, 50)
    score, probability, observed = brier_score(ensemble, truth, threshold)
    for point in range(50):
        share = sum(member > threshold for member in ensemble[:, point]) / 10
        assert probability[point] == pytest.approx(share)
        assert score[point] == pytest.approx((share - (truth[point] > threshold)) ** 2)
    assert set(np.unique(observed)) == {0, 1}
    assert probability.max() <= 1


def test_reliability_of_calibrated_forecasts_is_on_the_diagonal(random):
    """For every forecast probability the speed exceeds the threshold as often as forecast, and the areas sum to 1."""
    grid = Grid.regular("24x13")
    parts = []
    for _ in range(60):
        mean = random.uniform(5, 17, (1, 1, *grid.shape))
        draws = mean + 4 * random.standard_normal((101, 1, *grid.shape))
        wind = np.stack([draws, np.zeros_like(draws)], axis=2)
        parts.append(joint_statistics(wind[:100], wind[100], grid))
    reliability = xr.concat(parts, dim="time").mean("time").sel(region="globe", threshold=10.8).isel(prediction_timedelta=0)["reliability"]
    assert reliability.sel(of="area").sum().item() == pytest.approx(1)
    forecast, observed = (reliability.sel(of=name) / reliability.sel(of="area") for name in ("forecast", "observed"))
    assert np.abs(forecast - reliability["probability"]).max() <= 0.05
    assert np.abs(forecast - observed).max() < 0.07
    total = xr.concat(parts, dim="time")["brier_score"].sel(region="globe", threshold=10.8).mean().item()
    assert 0.05 < total < 0.25


def test_regions_are_area_means_of_their_cells(random):
    grid = Grid.regular("72x37")
    field = random.standard_normal(grid.shape)
    means = dict(zip(REGIONS, (region_weights(grid) * field).sum(axis=(1, 2)), strict=True))
    latitude, longitude = np.meshgrid(grid.latitude, (grid.longitude + 180) % 360 - 180, indexing="ij")
    inside = {
        "globe": latitude == latitude,
        "tropics": np.abs(latitude) <= 20,
        "northern extratropics": latitude > 20,
        "southern extratropics": latitude < -20,
        "Europe": (latitude >= 35) & (latitude <= 75) & (longitude >= -12.5) & (longitude <= 42.5),
        "North America": (latitude >= 25) & (latitude <= 60) & (longitude >= -120) & (longitude <= -75),
    }
    area = np.broadcast_to(grid.area_weights[:, None], grid.shape)
    for name, mask in inside.items():
        assert mask.any()
        assert means[name] == pytest.approx((field * area)[mask].sum() / area[mask].sum()), name


def test_errors_of_the_vector_add_the_squares_of_both_components(random):
    grid = Grid.regular("24x13")
    ensemble, truth = random.standard_normal((4, 1, 2, *grid.shape)), random.standard_normal((1, 2, *grid.shape))
    sums = with_both(statistics(ensemble, truth, grid))
    scores = metrics(sums).isel(prediction_timedelta=0).sel(region="globe")
    error = ((ensemble.mean(axis=0) - truth) ** 2).sum(axis=1)[0]
    expected = np.sqrt((error * grid.area_weights[:, None]).sum() / grid.area_weights.sum() / 24)
    assert scores["rmse"].sel(variable="vector").item() == pytest.approx(expected)
    assert scores["rmse"].sel(variable="both").item() == pytest.approx(expected / np.sqrt(2))
    speed = np.hypot(ensemble[:, 0, 0], ensemble[:, 0, 1]), np.hypot(truth[0, 0], truth[0, 1])
    crps = scoringrules.crps_ensemble(speed[1], np.moveaxis(speed[0], 0, -1), estimator="fair")
    expected = (crps * grid.area_weights[:, None]).sum() / grid.area_weights.sum() / 24
    assert scores["crps_fair"].sel(variable="10m_wind_speed").item() == pytest.approx(expected, rel=1e-6)
    assert np.isnan(scores["crps_fair"].sel(variable="vector"))


def test_skill_has_narrower_intervals_than_the_scores(random):
    """If one forecast has half the error of another on every date, its skill is 1/2 with an interval of zero width."""
    scale = random.uniform(1, 3, 30)
    times = np.datetime64("2020-01-01", "ns") + np.arange(30) * np.timedelta64(5, "D")
    grid = Grid.regular("8x4")
    one = [statistics(*(s * x for x in (np.full((2, 1, 2, 4, 8), 1.0), np.zeros((1, 2, 4, 8)))), grid) for s in scale]
    both = [joint_statistics(*(s * x for x in (np.full((2, 1, 2, 4, 8), 1.0), np.zeros((1, 2, 4, 8)))), grid) for s in scale]
    sums = xr.concat([part.merge(other) for part, other in zip(one, both, strict=True)], dim="time")
    sums = xr.concat([sums, 2 * sums], dim=xr.IndexVariable("forecast", ["good", "bad"]))
    sums = sums.assign_coords(time=times, prediction_timedelta=[np.timedelta64(6, "h").astype("timedelta64[ns]")])
    scores = with_intervals(metrics(sums.mean("time")), sums, ["bad"]).sel(region="globe").isel(prediction_timedelta=0, variable=0)
    skill = scores["crps_fair_skill"].sel(forecast="good", reference="bad").item()
    assert skill == pytest.approx(0.5)
    np.testing.assert_allclose(scores["crps_fair_skill_interval"].sel(forecast="good", reference="bad"), 0.5)
    low, high = scores["crps_fair_interval"].sel(forecast="good").values
    assert low < scores["crps_fair"].sel(forecast="good").item() < high
    assert high - low > 0.1


def test_machine_code_needs_no_directory_that_can_be_written_to(monkeypatch):
    """Numba refuses to compile if it finds none: of a read-only package and a user without a home directory. No command could begin."""

    def next_number(number):
        return number + 1

    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="no locator"):
        numba.njit(cache=True)(next_number)
    assert machine_code()(next_number)(1) == 2
