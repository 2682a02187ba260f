"""Whether a forecast stands where it should: mistakes are named, and poor forecasts are not taken for mistakes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import gaussian_filter
from test_any_forecast import GRID, LEADS, NAMES, STARTS, forecast_dataset, refuses, truth_dataset, weather, write

from wsdcast.data.grid import Grid
from wsdcast.verification.alignment import misalignment
from wsdcast.verification.truth import open_truth


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> str:
    return write(truth_dataset(), tmp_path_factory.mktemp("truth") / "truth.zarr")


def row_means(store: xr.Dataset) -> xr.Dataset:
    """Each row takes the mean of itself and the one before it; the first stays."""
    return (store + store.shift(latitude=1).fillna(store)) / 2


WRONG = {
    "upside down": lambda store: store.assign_coords(latitude=store.latitude.values[::-1]),
    "rolled by 180 degrees": lambda store: store.roll(longitude=12, roll_coords=False),
    "rolled by 15 degrees of longitude to the east": lambda store: store.roll(longitude=1, roll_coords=False),
    "half a cell too far": lambda store: (store + store.roll(longitude=1, roll_coords=False)) / 2,
    "half a cell too far north": lambda store: row_means(store.isel(latitude=slice(None, None, -1))).isel(latitude=slice(None, None, -1)),
    "half a cell too far south": lambda store: row_means(store),
    "in knots": lambda store: store / 0.514444,
    "in km/h": lambda store: store * 3.6,
    "u and v in each other's place": lambda store: store.rename({NAMES[0]: NAMES[1], NAMES[1]: NAMES[0]}),
    "opposite sign": lambda store: -store,
    "6 h after": lambda store: store.assign_coords(time=store.time - np.timedelta64(6, "h")),
    "24 h before": lambda store: store.assign_coords(time=store.time + np.timedelta64(24, "h")),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_misaligned_forecasts_are_refused_by_name(wrong, truth, tmp_path):
    store = write(WRONG[wrong](forecast_dataset(noise=0.3)), tmp_path / "model.zarr")
    message = refuses(store, "--truth", truth, "--run", tmp_path / "run")
    assert wrong in message
    assert not (tmp_path / "run").exists()


def test_a_misaligned_forecast_is_refused_by_the_lead_times_that_have_truth(tmp_path):
    """Neither its first lead time, as of a three-hourly forecast, nor its first initial times have truth. It was scored."""
    store = forecast_dataset(noise=0.3).roll(longitude=12, roll_coords=False)
    early = store.isel(prediction_timedelta=[0]).assign_coords(prediction_timedelta=LEADS[:1] // 2)
    model = write(xr.concat([early, store], dim="prediction_timedelta"), tmp_path / "model.zarr")
    truth = write(truth_dataset(STARTS[3] + np.arange(-3, 5) * np.timedelta64(6, "h")), tmp_path / "truth.zarr")
    assert "rolled by 180 degrees" in refuses(model, "--truth", truth, "--run", tmp_path / "run")


@pytest.mark.parametrize(("behind", "mixed"), [(1, False), (2, False), (3, False), (5, False), (6, False), (1, True), (3, True), (5, True)])
def test_a_slow_forecast_is_not_taken_for_a_misplaced_one(behind, mixed):
    """It is so many hours behind in 6 h; or, as from a network that was trained too little, a mean of the truth now and 6 h before."""
    leads = LEADS[:2]

    def at(start: np.datetime64, hours: float) -> np.ndarray:
        return weather(np.array([start + np.timedelta64(round(3600 * hours), "s")]))[0].astype(float)

    def truth(hours: float) -> np.ndarray:
        return np.stack([[at(start, float(lead / np.timedelta64(1, "h")) + hours) for lead in leads] for start in STARTS])

    slow = np.stack([[at(start, (6 - behind) * number) for number in (1, 2)] for start in STARTS])
    forecast = behind / 10 * truth(-6) + (1 - behind / 10) * truth(0) if mixed else slow
    assert misalignment(forecast, truth, (6, 12), GRID) is None


MISTAKES = {
    "upside down": lambda fields: fields[..., ::-1, :],
    "in knots": lambda fields: fields / 0.514444,
    "in km/h": lambda fields: fields * 3.6,
    "u and v in each other's place": lambda fields: fields[:, :, ::-1],
    "opposite sign": lambda fields: -fields,
    "rolled by 180 degrees": lambda fields: np.roll(fields, 12, axis=-1),
}


def of_share(share: float) -> tuple[np.ndarray, Callable[[float], np.ndarray]]:
    """Return a forecast whose error has this share of the variance of the truth, and the truth as :func:`misalignment` takes it."""

    def truth(hours: float) -> np.ndarray:
        return np.stack([weather(start + LEADS[:2] + np.timedelta64(hours, "h")) for start in STARTS]).astype(float)

    error = weather(STARTS + np.timedelta64(999, "D"))[:, None]  # has the waves of the truth
    return np.sqrt(1 - share) * truth(0) + np.sqrt(share) * error, truth


@pytest.mark.parametrize("wrong", MISTAKES)
@pytest.mark.parametrize("share", [0.02, 0.1, 0.2])
def test_gross_mistakes_of_poor_forecasts_are_named_too(wrong, share):
    """A good forecast has an error of share 0.2 after three days."""
    forecast, truth = of_share(share)
    assert misalignment(forecast, truth, (6, 12), GRID) is None
    assert wrong in str(misalignment(MISTAKES[wrong](forecast), truth, (6, 12), GRID))


@pytest.mark.parametrize(("cells", "wrong"), [(6, "90 degrees of longitude to the east"), (-6, "90 degrees of longitude to the west")])
def test_a_poor_forecast_far_from_its_place_is_named_on_either_side(cells, wrong):
    """Weather does not move so far, so an error is allowed that would be too large for a shift by a cell or two."""
    forecast, truth = of_share(0.3)
    assert f"is rolled by {wrong}" in str(misalignment(np.roll(forecast, cells, axis=-1), truth, (6, 12), GRID))


@pytest.mark.parametrize("noise", [0.5, 1, 2, 4, 8, 16])
@pytest.mark.parametrize("seed", range(4))
def test_noise_is_not_taken_for_a_mistake(noise, seed):
    """Each change takes out some of the noise: a shift by half a cell is a mean of two rows, and smaller units shrink it."""
    grid, random = Grid.regular("32x17"), np.random.default_rng(seed)
    waves = gaussian_filter(random.standard_normal((40, 2, *grid.shape)), (1, 0, 2, 2), mode=("wrap", "wrap", "nearest", "wrap"))
    waves *= 6 / waves.std()
    starts, leads = np.array([8, 14, 20, 26])[:, None], np.array([1, 2])
    forecast = waves[starts + leads] + noise * random.standard_normal((4, 2, 2, *grid.shape))
    assert misalignment(forecast, lambda hours: waves[starts + leads + hours // 6], (6, 12), grid) is None


def test_alignment_is_not_judged_without_truth():
    fields = weather(STARTS)[:, None]
    assert misalignment(fields[..., ::-1, :], lambda hours: np.full(fields.shape, np.nan), (6,), GRID) is None
    assert "upside down" in str(misalignment(fields[..., ::-1, :], lambda hours: fields, (6,), GRID))


@pytest.mark.parametrize("hours", [1, 3])
def test_lead_times_between_the_six_hourly_ones_are_verified(tmp_path, hours):
    """Truth at other hours than 00, 06, 12 and 18 UTC is used: a forecast that equals it has no error at any lead time."""
    times = np.datetime64("2020-01-20", "ns") + np.timedelta64(hours, "h") * np.arange(480 // hours)
    truth_dataset(times).to_netcdf(tmp_path / "truth.nc")
    truth = open_truth(str(tmp_path / "truth.nc"), tmp_path / "scratch", STARTS[0])
    np.testing.assert_array_equal(truth.times, times)
    valid_times = STARTS[0] + np.array([hours, 2 * hours, 3 * hours], "timedelta64[h]")
    np.testing.assert_allclose(truth.at(valid_times), weather(valid_times), atol=1e-6)
