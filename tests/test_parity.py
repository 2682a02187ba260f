"""Every score on the grid of WeatherBench 2 against its definition written out, of forecasts in every layout that users have.

The oracles are plain numpy in double precision and share no code with the package.
"""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from conftest import six_hourly
from random_forecast import read_wind

from wsdcast.data.grid import Grid
from wsdcast.data.sources.conventions import to_conventions
from wsdcast.runs.errors import UserError
from wsdcast.verification.kinetic_energy import kinetic_energy_metrics, kinetic_energy_statistics
from wsdcast.verification.metrics import joint_statistics, metrics, statistics, with_both

LATITUDES, LONGITUDES = np.linspace(90, -90, 121), np.arange(240) * 1.5
MEMBERS, STARTS = 5, 2
NAMES = {"u10": "10m_u_component_of_wind", "v10": "10m_v_component_of_wind"}
CHANNELS = (*NAMES.values(), "10m_wind_speed")
TOLERANCE = 1e-6


def oracle_weights() -> dict[str, np.ndarray]:
    """Return the area of every cell in each region, (latitude, longitude), from the sines of its bounds. The areas sum to 1."""
    area = np.empty((121, 240))
    for row, latitude in enumerate(LATITUDES):
        north, south = min(90.0, latitude + 0.75), max(-90.0, latitude - 0.75)
        area[row] = np.sin(np.radians(north)) - np.sin(np.radians(south))
    latitude, longitude = LATITUDES[:, None] + 0 * LONGITUDES, 0 * LATITUDES[:, None] + (LONGITUDES + 180) % 360 - 180
    inside = {
        "globe": area > 0,
        "tropics": abs(latitude) <= 20,
        "northern extratropics": latitude > 20,
        "southern extratropics": latitude < -20,
        "Europe": (latitude >= 35) & (latitude <= 75) & (longitude >= -12.5) & (longitude <= 42.5),
        "North America": (latitude >= 25) & (latitude <= 60) & (longitude >= -120) & (longitude <= -75),
    }
    return {name: area * mask / (area * mask).sum() for name, mask in inside.items()}


WEIGHTS = oracle_weights()


def with_speed(wind: np.ndarray) -> np.ndarray:
    """Add speed to u and v: (..., 2, latitude, longitude) to (..., 3, latitude, longitude), in double precision."""
    u, v = np.moveaxis(wind.astype(np.float64), -3, 0)
    return np.stack([u, v, np.sqrt(u * u + v * v)], axis=-3)


def smooth(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Fields with large and small scales, so that spectra, variograms and gusts have something to see.

    No wavenumber has so little that the rounding of single precision shows in it.
    """
    noise = 4 * random.standard_normal((*shape, 121, 240))
    for axis in (-1, -2):
        noise = noise + 0.4 * sum(np.roll(noise, shift, axis) for shift in range(1, 7))
    return noise


@pytest.fixture(scope="module")
def plain() -> tuple[xr.Dataset, xr.Dataset]:
    """Return forecasts and truth in the layout of the package."""
    random = np.random.default_rng(0)
    truth = smooth(random, (2, STARTS, 1))
    members = 0.6 * truth[:, :, None] + 0.5 * smooth(random, (2, STARTS, MEMBERS, 1)) + 0.3
    space = {"latitude": LATITUDES, "longitude": LONGITUDES}
    axes = {"time": six_hourly("2020-01-01", STARTS), "prediction_timedelta": np.array([6], "timedelta64[h]").astype("timedelta64[ns]")}
    dimensions, units = ("time", "prediction_timedelta", "latitude", "longitude"), {"units": "m s-1"}

    def dataset(wind, dimensions):
        return {name: (dimensions, one.astype(np.float32), units) for name, one in zip(NAMES.values(), wind, strict=True)}

    forecast = xr.Dataset(dataset(members, ("time", "number", *dimensions[1:])), {**axes, "number": np.arange(MEMBERS), **space})
    return forecast, xr.Dataset(dataset(truth, dimensions), axes | space)


def turned(dataset: xr.Dataset) -> xr.Dataset:
    return dataset.assign_coords(longitude=(dataset.longitude + 180) % 360 - 180).sortby("longitude")


def weatherbench(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset as forecasts in WeatherBench 2 are stored: members first, longitude before latitude, south to north."""
    named = dataset.rename(number="realization") if "number" in dataset.dims else dataset
    return named.isel(latitude=slice(None, None, -1)).transpose(..., "longitude", "latitude")


def short(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset with other names everywhere, a height coordinate, and no units."""
    words = {"latitude": "lat", "longitude": "lon", "number": "sample", "time": "init_time", "prediction_timedelta": "lead_time"}
    known = {name: word for name, word in (words | {long: name for name, long in NAMES.items()}).items() if name in dataset.variables}
    plain = dataset.rename(known).expand_dims(height=[10.0])
    return turned(plain.rename(lon="longitude")).rename(longitude="lon").drop_attrs()


LAYOUTS = {
    "north to south": lambda dataset: dataset,
    "south to north": lambda dataset: dataset.isel(latitude=slice(None, None, -1)),
    "longitude first": lambda dataset: dataset.transpose(..., "longitude", "latitude"),
    "180 W to 180 E": turned,
    "WeatherBench 2": weatherbench,
    "short names": short,
}


@pytest.fixture(scope="module", params=LAYOUTS)
def read(request, plain, tmp_path_factory) -> tuple[np.ndarray, np.ndarray]:
    """Return ensemble (time, member, lead, channel, latitude, longitude) and truth, from files in a layout."""
    winds = []
    for name, dataset in zip(("forecast", "truth"), plain, strict=True):
        path = tmp_path_factory.mktemp("layout") / f"{name}.nc"
        LAYOUTS[request.param](dataset).to_netcdf(path)
        with xr.open_dataset(path, decode_timedelta=True) as opened:
            winds.append(read_wind(to_conventions(opened)))
    return winds[0], winds[1]


@pytest.fixture(scope="module")
def written(plain) -> tuple[np.ndarray, np.ndarray]:
    """Return the same without any reader, with speed and in double precision, (time, member, channel, latitude, longitude)."""
    forecast, truth = (np.stack([dataset[name].values for name in NAMES.values()], axis=-3) for dataset in plain)
    return with_speed(forecast)[:, :, 0], with_speed(truth)[:, 0]


@pytest.fixture(scope="module")
def sums(read) -> xr.Dataset:
    grid = Grid(LATITUDES, LONGITUDES)
    parts = []
    for ensemble, truth in zip(*read, strict=True):
        of = (function(ensemble, truth, grid) for function in (statistics, joint_statistics))
        parts.append(xr.merge(of))
    return with_both(xr.concat(parts, dim="time"))


@pytest.fixture(scope="module")
def scores(sums) -> xr.Dataset:
    return metrics(sums.mean("time")).isel(prediction_timedelta=0)


def area_means(fields: np.ndarray) -> dict[str, np.ndarray]:
    """Return the mean of (time, channel, latitude, longitude) over each region and all initial times, (channel)."""
    return {region: (fields * weight).sum(axis=(-2, -1)).mean(axis=0) for region, weight in WEIGHTS.items()}


def assert_regional(scores: xr.DataArray, expected: dict[str, np.ndarray], tolerance: float = TOLERANCE) -> None:
    for region, values in expected.items():
        for channel, value in zip(CHANNELS, values, strict=True):
            ours = scores.sel(variable=channel, region=region).item()
            assert ours == pytest.approx(value, rel=tolerance), (region, channel)


def test_any_layout_is_read_as_the_same_numbers(plain, read):
    for dataset, wind in zip(plain, read, strict=True):
        np.testing.assert_array_equal(wind, np.stack([dataset[name].values for name in NAMES.values()], axis=-3))


def test_weights_are_those_of_the_grid():
    grid = Grid(LATITUDES, LONGITUDES)
    share = grid.area_weights / grid.area_weights.sum() / 240
    np.testing.assert_allclose(share, WEIGHTS["globe"][:, 0], rtol=TOLERANCE)
    assert grid.area_weights[0] == pytest.approx(5.18e-3, rel=1e-2)  # the cosine would give 0


def test_crps_equals_its_definition(written, scores):
    ensemble, truth = written
    error = np.mean([abs(ensemble[:, member] - truth) for member in range(MEMBERS)], axis=0)
    pairs = sum(abs(ensemble[:, one] - ensemble[:, other]) for one in range(MEMBERS) for other in range(MEMBERS))
    assert_regional(scores["crps_fair"], area_means(error - pairs / (2 * MEMBERS * (MEMBERS - 1))))
    assert_regional(scores["crps_standard"], area_means(error - pairs / (2 * MEMBERS**2)))


def test_errors_and_spread_equal_their_definitions(written, scores):
    ensemble, truth = written
    mean = sum(ensemble[:, member] for member in range(MEMBERS)) / MEMBERS
    variance = sum((ensemble[:, member] - mean) ** 2 for member in range(MEMBERS)) / (MEMBERS - 1)
    square, spread, debiased = (area_means(field) for field in ((mean - truth) ** 2, variance, (mean - truth) ** 2 - variance / MEMBERS))
    assert_regional(scores["bias"], area_means(mean - truth), 1e-5)  # a small difference of large numbers
    assert_regional(scores["rmse"], {region: np.sqrt(values) for region, values in square.items()})
    assert_regional(scores["spread"], {region: np.sqrt(values) for region, values in spread.items()})
    assert_regional(scores["spread_skill"], {region: np.sqrt(spread[region] / debiased[region]) for region in WEIGHTS})
    for region in WEIGHTS:
        both = scores.sel(region=region)
        assert both["rmse"].sel(variable="both").item() == pytest.approx(np.sqrt(square[region][:2].mean()), rel=TOLERANCE)
        assert both["rmse"].sel(variable="vector").item() == pytest.approx(np.sqrt(square[region][:2].sum()), rel=TOLERANCE)


def test_rank_histogram_equals_its_definition(written, scores):
    ensemble, truth = written
    below = sum((ensemble[:, member] < truth).astype(int) for member in range(MEMBERS))
    for rank in range(MEMBERS + 1):
        assert_regional(scores["rank_histogram"].sel(rank=rank), area_means((below == rank).astype(float)))


def test_rank_histogram_spreads_ties_evenly(plain):
    """With ties all possible ranks count the same."""
    grid = Grid(LATITUDES, LONGITUDES)
    ensemble, truth = (np.round(read_wind(dataset.isel(time=0)) / 4) for dataset in plain)
    result = statistics(ensemble, truth, grid)["rank_histogram"].sel(region="globe").isel(prediction_timedelta=0)
    for channel in range(2):
        below, equal = ((getattr(ensemble[:, 0, channel], how)(truth[0, channel])).sum(axis=0) for how in ("__lt__", "__eq__"))
        assert (equal > 0).mean() > 0.3
        for rank in range(MEMBERS + 1):
            possible = ((below <= rank) & (rank <= below + equal)) / (equal + 1)
            assert result[channel, rank].item() == pytest.approx((WEIGHTS["globe"] * possible).sum(), abs=1e-12)


def test_energy_score_equals_its_definition(written, scores):
    ensemble, truth = written
    for region, weight in WEIGHTS.items():

        def norm(field, weight=weight):
            return np.sqrt((field[:, :2] ** 2 * weight).sum(axis=(1, 2, 3)))

        error = sum(norm(ensemble[:, member] - truth) for member in range(MEMBERS)) / MEMBERS
        pairs = sum(norm(ensemble[:, one] - ensemble[:, other]) for one in range(MEMBERS) for other in range(MEMBERS))
        expected = (error - pairs / (2 * MEMBERS * (MEMBERS - 1))).mean()
        assert scores["energy_score"].sel(region=region).item() == pytest.approx(expected, rel=TOLERANCE)


def test_variogram_score_equals_its_definition(written, scores):
    ensemble, truth = written
    for lag in (1, 4):
        east = (np.arange(240) + lag) % 240
        true = abs(truth - truth[..., east]) ** 0.5
        members = (abs(ensemble - ensemble[..., east]) ** 0.5).mean(axis=1)
        assert_regional(scores["variogram_score"].sel(lag=lag), area_means((true - members) ** 2))


def test_brier_score_and_reliability_equal_their_definitions(written, scores):
    speed, truth = written[0][:, :, 2], written[1][:, 2]
    for threshold in (10.8, 17.2, 24.5):
        share = sum((speed[:, member] > threshold).astype(float) for member in range(MEMBERS)) / MEMBERS
        observed = (truth > threshold).astype(float)
        assert observed.any()
        for region, weight in WEIGHTS.items():
            ours = scores.sel(region=region, threshold=threshold)
            expected = ((share - observed) ** 2 * weight).sum(axis=(1, 2)).mean()
            assert ours["brier_score"].item() == pytest.approx(expected, rel=TOLERANCE)
            for number in range(11):
                members = (abs(share - number / 10) < 0.05) * weight
                sums = [(members * value).sum(axis=(1, 2)).mean() for value in (np.ones_like(share), share, observed)]
                np.testing.assert_allclose(ours["reliability"].isel(probability=number), sums, rtol=TOLERANCE, atol=1e-15)


def test_zonal_spectrum_equals_its_definition(written, sums, scores):
    """The spectrum is compared with sums of cosines and sines, not with a fast transform."""
    angle = 2 * np.pi * np.outer(np.arange(121), np.arange(240)) / 240
    circumference = 2 * np.pi * 6367.5e3 * np.cos(np.radians(LATITUDES[1:-1]))

    def spectrum(field):
        cosines, sines = (field[..., 1:-1, :] @ wave(angle).T / 240 for wave in (np.cos, np.sin))
        power = (circumference[:, None] * (cosines**2 + sines**2)).mean(axis=-2)
        power[..., 1:-1] *= 2
        return power

    power, truth = spectrum(written[0]).mean(axis=(0, 1)), spectrum(written[1]).mean(axis=0)
    mean = sums.mean("time").isel(prediction_timedelta=0)
    for channel, name in enumerate(CHANNELS):
        np.testing.assert_allclose(mean["power"].sel(variable=name), power[channel], rtol=TOLERANCE)
        np.testing.assert_allclose(mean["power_truth"].sel(variable=name), truth[channel], rtol=TOLERANCE)
        ratio = power[channel, 1:] / truth[channel, 1:]
        np.testing.assert_allclose(scores["power_ratio"].sel(variable=name), ratio, rtol=TOLERANCE)
        energetic = truth[channel, 1:] > 1e-3 * truth[channel, 1:].sum()
        ours = scores.sel(variable=name)
        assert ours["energetic_wavenumbers"].item() == energetic.sum()
        for suffix, function in (("", np.max), ("_mean", np.mean), ("_sum", np.sum)):
            assert ours[f"power_deviation{suffix}"].item() == pytest.approx(function(abs(1 - ratio[energetic])), rel=1e-5)


def test_one_member_is_scored_as_a_deterministic_forecast(plain):
    """With one member CRPS is the absolute error and there is no spread. No other score is missing."""
    grid = Grid(LATITUDES, LONGITUDES)
    forecast, truth = (read_wind(dataset.isel(time=0)) for dataset in plain)
    result = xr.merge([function(forecast[:1], truth, grid) for function in (statistics, joint_statistics)])
    scores = metrics(with_both(result)).isel(prediction_timedelta=0)
    error = with_speed(forecast[:1])[0, 0] - with_speed(truth)[0]
    assert_regional(scores["crps_fair"], area_means(abs(error)[None]))
    assert_regional(scores["crps_standard"], area_means(abs(error)[None]))
    assert_regional(scores["rmse"], {region: np.sqrt(mean) for region, mean in area_means(error[None] ** 2).items()})
    for region, weight in WEIGHTS.items():
        expected = np.sqrt((error[:2] ** 2 * weight).sum())
        assert scores["energy_score"].sel(region=region).item() == pytest.approx(expected, rel=TOLERANCE)
    assert np.isnan(scores["spread"]).all()
    assert np.isnan(scores["spread_skill"]).all()
    components = scores.sel(variable=list(CHANNELS)).drop_vars(["spread", "spread_skill"])
    assert all(np.isfinite(field).all() for field in components.data_vars.values())


def test_a_forecast_that_is_the_truth_has_ratio_one_at_every_wavenumber_and_degree(plain):
    grid = Grid(LATITUDES, LONGITUDES)
    truth = read_wind(plain[1].isel(time=0))
    ensemble = np.repeat(truth[None], 3, axis=0)
    scores = metrics(statistics(ensemble, truth, grid)).merge(kinetic_energy_metrics(kinetic_energy_statistics(ensemble, truth, grid)))
    assert scores.sizes["wavenumber"] == 120
    assert scores.sizes["degree"] == 119
    for name in ("power_ratio", "kinetic_energy_ratio"):
        np.testing.assert_allclose(scores[name], 1, rtol=TOLERANCE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda dataset: dataset.drop_vars("10m_v_component_of_wind"), "has no 10m_v_component_of_wind"),
        (lambda dataset: dataset.isel(latitude=slice(40, None)), "leave out a pole"),
        (lambda dataset: dataset.isel(longitude=slice(100)), "not equal steps round the whole circle"),
        (lambda dataset: dataset.rename(number="quantile"), "has a dimension 'quantile' of length 5"),
        (lambda dataset: dataset.expand_dims(member=[0]), "both 'member' and 'number' may be its 'number'"),
        (lambda dataset: dataset.rename(latitude="y"), "has no coordinate 'latitude'"),
        (lambda dataset: dataset.assign({name: dataset[name].assign_attrs(units="knots") for name in NAMES.values()}), "has units 'knots'"),
    ],
)
def test_unusable_conventions_are_refused_by_name(plain, change, message):
    with pytest.raises(UserError, match=message):
        to_conventions(change(plain[0]))
