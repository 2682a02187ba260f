"""Products of a forecast on its grid: each equals a plain computation with xarray."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from random_forecast import (
    GRID,
    HOUR,
    LEADS,
    STARTS,
    made,
    share_above,
    speed_of,
    their_store,
)
from typer.testing import CliRunner

import wsdcast
from wsdcast.cli import app
from wsdcast.data.variables import DEFAULT
from wsdcast.output import fields
from wsdcast.output.ensemble import Choice, direction_of, most_likely_direction, products_of, quantiles_of
from wsdcast.output.products import in_order
from wsdcast.runs.errors import UserError
from wsdcast.verification.members import remaining


@pytest.fixture(scope="module")
def forecast(tmp_path_factory) -> str:
    return their_store(tmp_path_factory.mktemp("products"))


def expected_of(store: xr.Dataset, thresholds: list[float], quantiles: list[float], steps: int) -> dict[str, xr.DataArray]:
    """The products, written out with xarray, which leaves missing members out by itself."""
    speed, expected = speed_of(store), {}
    for name, members in (("u", store[DEFAULT[0]]), ("v", store[DEFAULT[1]]), ("speed", speed)):
        expected[f"{name}_mean"] = members.mean("number")
        expected[f"{name}_spread"] = members.std("number", ddof=1)
        expected[f"{name}_quantile"] = members.quantile(quantiles, "number")
    highest = speed.rolling(prediction_timedelta=steps).max()
    levels = xr.DataArray(thresholds, {"threshold": thresholds}, ["threshold"])
    expected["speed_probability"], expected["window_probability"] = share_above(speed, levels), share_above(highest, levels)
    expected["members"] = speed.notnull().all(["latitude", "longitude"]).sum("number")
    ended = xr.where(np.arange(store.sizes["prediction_timedelta"]) >= steps - 1, 1.0, np.nan)
    counted = highest.notnull().all(["latitude", "longitude"]).sum("number")
    expected["window_members"] = counted * xr.DataArray(ended, dims="prediction_timedelta")
    from_degrees = (270 - np.rad2deg(np.arctan2(store[DEFAULT[1]], store[DEFAULT[0]]))) % 360
    off = [abs((from_degrees - centre + 180) % 360 - 180) for centre in range(0, 360, 45)]
    counts = xr.concat([((degrees < 22.5) & (speed >= 0.3)).sum("number") for degrees in off], dim="sector")
    expected["direction"] = 45.0 * counts.argmax("sector")
    u, v = expected["u_mean"], expected["v_mean"]
    expected["direction_mean"] = ((270 - np.rad2deg(np.arctan2(v, u))) % 360).where(np.hypot(u, v) >= 0.3)
    expected["direction_share"] = counts.max("sector") / expected["members"]
    return expected


def test_every_product_is_that_of_xarray(forecast, tmp_path):
    thresholds, quantiles = [5.0, 10.8, 20.0], [0.05, 0.5, 0.95]
    summary = wsdcast.products(forecast, tmp_path / "p.zarr", to="zarr", thresholds=thresholds[::-1], quantiles=quantiles, window_hours=24)
    assert summary.facts["members"] == 5
    assert summary.facts["left out"] == "16 of 100 members and lead times without values, at 16 of 20 initial and lead times"
    expected = expected_of(made(), thresholds, quantiles, 4)
    with xr.open_zarr(tmp_path / "p.zarr", decode_timedelta=True, chunks=None) as products:
        assert set(products.data_vars) == set(expected)
        for name, values in expected.items():
            assert products[name].dims[:2] == ("time", "prediction_timedelta")
            assert products[name].attrs["units"]
            small = 1e-4 if name == "direction_mean" else 1e-6
            np.testing.assert_allclose(products[name], values.transpose(*products[name].dims), rtol=2e-5, atol=small, err_msg=name)
        for name in ("speed_probability", "window_probability", "direction_share"):
            assert products[name].attrs["units"] == "1"
            assert "realization: mean" in products[name].attrs["cell_methods"]
        assert products["u_spread"].attrs["cell_methods"] == "realization: standard_deviation"
        assert products["threshold"].attrs["units"] == "m s-1"
        np.testing.assert_array_equal(products["threshold"], thresholds)
        np.testing.assert_array_equal(products["longitude"], GRID.longitude)


def test_netcdf_has_the_same_values_by_valid_time(forecast, tmp_path):
    wsdcast.products(forecast, tmp_path / "p.zarr", to="zarr", window_hours=12)
    summary = wsdcast.products(forecast, tmp_path / "p.nc", window_hours=12)
    assert [Path(path).name for path in summary.written] == ["p-2020-02-01T00.nc", "p-2020-02-02T00.nc"]
    with xr.open_zarr(tmp_path / "p.zarr", decode_timedelta=True, chunks=None) as whole:
        for row, path in enumerate(summary.written):
            with xr.open_dataset(path, decode_timedelta=True) as one:
                np.testing.assert_array_equal(one["time"], STARTS[row] + LEADS)
                np.testing.assert_array_equal(one["forecast_period"], LEADS)
                assert one["forecast_reference_time"].values == STARTS[row]
                assert set(one.data_vars) == set(whole.data_vars)
                for name, values in whole.isel(time=row).data_vars.items():
                    np.testing.assert_array_equal(one[name], values, err_msg=name)
                    assert one[name].attrs == values.attrs


def test_windows_of_uneven_lead_times(tmp_path):
    """A window ends at each lead time that is as long as it, and holds the lead times after its begin."""
    leads = (HOUR * np.array([3, 6, 9, 12, 24, 36])).astype("timedelta64[ns]")
    store = made(leads=leads).isel(time=[0])
    store.to_zarr(tmp_path / "f.zarr", zarr_format=2)
    wsdcast.products(str(tmp_path / "f.zarr"), tmp_path / "p.nc", window_hours=12)
    members = speed_of(store).values[0]
    spans = {3: [0, 1, 2, 3], 4: [4], 5: [5]}
    with xr.open_dataset(tmp_path / "p.nc", decode_timedelta=True) as products:
        assert np.isnan(products["window_probability"][:3]).all()
        for lead, span in spans.items():
            highest = members[:, span].max(axis=1)
            kept = highest[np.isfinite(highest).all(axis=(1, 2))]
            np.testing.assert_allclose(products["window_probability"][lead, 0], (kept > 10.8).mean(axis=0))
            assert products["window_members"][lead] == len(kept)


@pytest.mark.parametrize(("step", "window", "hours"), [(1, "1h", 1), (1, "9h", 9), (3, "3h", 3), (3, "0.125d", 3), (3, "9h", 9)])
def test_a_window_is_any_whole_number_of_hours(tmp_path, step, window, hours):
    leads = (HOUR * step * np.arange(1, 10)).astype("timedelta64[ns]")
    store = made(leads=leads).isel(time=[0])
    store.to_zarr(tmp_path / "f.zarr", zarr_format=2)
    result = CliRunner().invoke(app, ["products", str(tmp_path / "f.zarr"), "--out", str(tmp_path / "p.nc"), "--window", window])
    assert result.exit_code == 0, result.stderr
    members, length = speed_of(store).values[0], hours // step
    with xr.open_dataset(tmp_path / "p.nc", decode_timedelta=True) as products:
        assert np.isnan(products["window_probability"][: length - 1]).all()
        for lead in range(length - 1, leads.size):
            highest = members[:, lead - length + 1 : lead + 1].max(axis=1)
            kept = highest[np.isfinite(highest).all(axis=(1, 2))]
            np.testing.assert_allclose(products["window_probability"][lead, 0], (kept > 10.8).mean(axis=0))


def test_a_probability_of_the_maximum_is_never_below_that_of_its_last_lead_time(forecast, tmp_path):
    wsdcast.products(forecast, tmp_path / "p.zarr", to="zarr", window_hours=18)
    with xr.open_zarr(tmp_path / "p.zarr", chunks=None) as products:
        same = products["window_members"] == products["members"]
        difference = (products["window_probability"] - products["speed_probability"]).where(same)
        assert same.sum() > 8
        assert difference.min() >= 0
        assert difference.max() > 0


def test_masked_points_have_no_products_and_gaps_take_a_member_out():
    wind = np.random.default_rng(1).normal(0, 9, (4, 2, 3, 5)).astype(np.float32)
    wind[:, :, 0, 0] = np.nan  # masked in all members
    wind[2, 1, 2, 2] = np.nan  # a gap in one member
    assert remaining(np.hypot(wind[:, 0], wind[:, 1])).tolist() == [True, True, False, True]
    found = products_of(wind, Choice((10.8,), (0.5,)))
    assert found["members"] == 3
    for name, values in found.items():
        if name != "members":
            assert np.isnan(values[..., 0, 0]).all(), name
            assert np.isfinite(values).sum() == 14, name
    np.testing.assert_allclose(found["u_quantile"][0], np.quantile(wind[[0, 1, 3], 0], 0.5, axis=0), rtol=1e-6)


def test_one_member_has_no_spread_and_none_has_nothing():
    wind = np.full((3, 2, 2, 2), np.nan, dtype=np.float32)
    wind[1] = 4.0
    found = products_of(wind, Choice((5.0,), (0.1, 0.9)))
    assert found["members"] == 1
    assert np.isnan(found["speed_spread"]).all()
    np.testing.assert_allclose(found["speed_quantile"], np.sqrt(32), rtol=1e-6)
    assert (found["speed_probability"] == 1).all()
    nothing = products_of(np.full_like(wind, np.nan), Choice((5.0,), (0.1, 0.9)))
    assert nothing["members"] == 0
    assert all(np.isnan(values).all() for name, values in nothing.items() if name != "members")


@pytest.mark.parametrize(
    ("u", "v", "direction"), [(0, -1, 0), (-1, -1, 45), (-1, 0, 90), (-1, 1, 135), (0, 1, 180), (1, 1, 225), (1, 0, 270), (1, -1, 315)]
)
def test_direction_is_the_one_from_which_the_wind_comes(u, v, direction):
    angle = np.deg2rad([-22, 0, 22, 23])  # the last one is in the next sector
    wind = np.stack([u * np.cos(angle) - v * np.sin(angle), u * np.sin(angle) + v * np.cos(angle)], axis=1)
    found, share = most_likely_direction(5 * wind)
    assert found == direction
    assert share == 0.75


@pytest.mark.parametrize("count", [1, 2, 7])
def test_quantiles_are_those_of_numpy(count):
    members = np.random.default_rng(count).normal(size=(count, 3, 4)).astype(np.float32)
    shares = (0.0, 0.1, 1 / 3, 0.5, 0.99, 1.0)
    np.testing.assert_allclose(quantiles_of(members, shares), np.quantile(members, shares, axis=0), rtol=1e-6, atol=1e-7)


def test_calm_members_have_no_direction_but_count():
    wind = np.array([[0.0, 0.29], [0.1, 0.1], [0, 0], [5.0, 0], [0.3, 0]])
    assert most_likely_direction(wind) == (270, 0.4)
    direction, share = most_likely_direction(wind[:3])
    assert np.isnan(direction)
    assert share == 0


def test_the_direction_of_a_mean_wind_is_below_360_degrees_and_none_if_calm():
    u, v = np.array([1e-9, -5, 0.3, 0.29]), np.array([-5.0, 0, 0, 0])  # the first one rounds to 360
    np.testing.assert_array_equal(direction_of(u, v), [0, 90, 270, np.nan])


def test_a_region_across_the_date_line_or_greenwich(forecast, tmp_path):
    for number, (region, degrees) in enumerate(
        [((157.5, -50, -150, 22.5), [157.5, 180, 202.5]), ((-50, 0, 30, 90), [-45, -22.5, 0, 22.5]), ((350, -90, 10, 90), [0])]
    ):
        wsdcast.products(forecast, tmp_path / f"{number}.zarr", to="zarr", region=region)
        rows = (GRID.latitude >= region[1]) & (GRID.latitude <= region[3])
        part = made().sel(latitude=GRID.latitude[rows], longitude=np.array(degrees) % 360)
        with xr.open_zarr(tmp_path / f"{number}.zarr", chunks=None) as products:
            np.testing.assert_array_equal(products["longitude"], degrees)
            np.testing.assert_array_equal(products["latitude"], GRID.latitude[rows])
            np.testing.assert_allclose(products["speed_mean"], speed_of(part).mean("number"), rtol=1e-5)


def test_few_lead_times_are_in_memory(forecast, tmp_path, monkeypatch):
    read, sizes = fields.Fields.read, []

    def counted(self, row, leads):
        sizes.append(leads.stop - leads.start)
        return read(self, row, leads)

    monkeypatch.setattr(fields.Fields, "read", counted)
    wsdcast.products(forecast, tmp_path / "p.nc")
    assert sizes == [8, 2, 8, 2]
    monkeypatch.setattr("wsdcast.runs.resources.free_memory", lambda: 10)
    with pytest.raises(UserError, match="8 lead times of all members needs 184 kB of memory"):
        wsdcast.products(forecast, tmp_path / "other.nc")
    with pytest.raises(UserError, match="needs 196 kB of memory"):  # speeds at four more lead times
        wsdcast.products(forecast, tmp_path / "other.nc", window_hours=24)


def test_files_have_names_if_none_are_given(forecast, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    summary = wsdcast.products(forecast)
    assert list(summary.written) == ["products-2020-02-01T00.nc", "products-2020-02-02T00.nc"]
    assert summary.facts["thresholds"] == "10.8 m/s (Beaufort 6), 17.2 m/s (Beaufort 8), 24.5 m/s (Beaufort 10)"
    summary = wsdcast.products(forecast, to="zarr", thresholds=["25kn", 8])
    assert list(summary.written) == ["products.zarr"]
    assert summary.facts["thresholds"] == "8 m/s (Beaufort 5), 12.86 m/s (25 kn)"


def test_thresholds_may_have_a_unit_of_speed_or_an_exponent():
    assert in_order("thresholds", ["25kn", "40 km/h", "30", 5, "34 kt", 30, " 10.5 kn "]) == pytest.approx(
        (5, 10.5 * 1852 / 3600, 40 / 3.6, 25 * 1852 / 3600, 34 * 1852 / 3600, 30)
    )
    assert in_order("thresholds", ["1e1", "5E-1"]) == (0.5, 10)


def test_numbers_of_an_option_are_in_order_each_once_and_may_be_the_bounds():
    assert in_order("quantiles", ["1", 0, 0.5, 0.5], 1) == (0, 0.5, 1)
    assert in_order("thresholds", [3, 0]) == (0, 3)
