"""Products of a forecast: each equals a plain computation with xarray, on the grid and at places."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.interpolate import RegularGridInterpolator
from typer.testing import CliRunner

import wsdcast
from wsdcast.cli import app
from wsdcast.data.grid import Grid
from wsdcast.data.store.analysis import open_analysis
from wsdcast.data.store.forecasts import QUANTILES
from wsdcast.data.store.zarr_store import VARIABLES
from wsdcast.output import climate, fields, plumes, tables
from wsdcast.output.ensemble import Choice, most_likely_direction, products_of, quantiles_of
from wsdcast.output.places import Places, interpolation
from wsdcast.output.plumes import plume_paths
from wsdcast.runs.errors import UserError
from wsdcast.verification.members import remaining

GRID = Grid.regular("16x9")
HOUR = np.timedelta64(1, "h")
STARTS = np.datetime64("2020-02-01", "ns") + 24 * HOUR * np.arange(2)
LEADS = (HOUR * np.arange(6, 66, 6)).astype("timedelta64[ns]")
AXES = ("time", "number", "prediction_timedelta", "latitude", "longitude")


def made(grid: Grid = GRID, leads: np.ndarray = LEADS, members: int = 5) -> xr.Dataset:
    """Random wind. One member is stopped at 30 h, and one starts without values for the second initial time."""
    values = np.random.default_rng(0).normal(0, 9, (2, STARTS.size, members, leads.size, *grid.shape)).astype(np.float32)
    values[:, 0, 1, 4:], values[:, 1, 3] = np.nan, np.nan
    coordinates = dict(zip(AXES, (STARTS, np.arange(members), leads, grid.latitude, grid.longitude), strict=True))
    return xr.Dataset({name: (AXES, field) for name, field in zip(VARIABLES, values, strict=True)}, coordinates)


@pytest.fixture(scope="module")
def forecast(tmp_path_factory) -> str:
    """A store of another program: other names, latitudes from the south, longitudes from -180."""
    store = made().assign_coords(longitude=(GRID.longitude + 180) % 360 - 180).sortby("longitude").sortby("latitude")
    path = tmp_path_factory.mktemp("products") / "theirs.zarr"
    store.rename(time="init_time", prediction_timedelta="lead_time", number="realization").to_zarr(path, zarr_format=2, consolidated=True)
    return str(path)


def speed_of(store: xr.Dataset) -> xr.DataArray:
    return np.hypot(store[VARIABLES[0]], store[VARIABLES[1]])


def share_above(speed: xr.DataArray, threshold: object) -> xr.DataArray:
    return (speed > threshold).where(speed.notnull()).mean("number")


def expected_of(store: xr.Dataset, thresholds: list[float], quantiles: list[float], steps: int) -> dict[str, xr.DataArray]:
    """The products, written out with xarray, which leaves missing members out by itself."""
    speed, expected = speed_of(store), {}
    for name, members in (("u", store[VARIABLES[0]]), ("v", store[VARIABLES[1]]), ("speed", speed)):
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
    from_degrees = (270 - np.rad2deg(np.arctan2(store[VARIABLES[1]], store[VARIABLES[0]]))) % 360
    off = [abs((from_degrees - centre + 180) % 360 - 180) for centre in range(0, 360, 45)]
    counts = xr.concat([((degrees < 22.5) & (speed >= 0.3)).sum("number") for degrees in off], dim="sector")
    expected["direction"] = 45.0 * counts.argmax("sector")
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
            np.testing.assert_allclose(products[name], values.transpose(*products[name].dims), rtol=2e-5, atol=1e-6, err_msg=name)
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
    wind = np.array([[0.0, 0.29], [0.1, 0.1], [0, 0], [5.0, 0]])
    assert most_likely_direction(wind) == (270, 0.25)
    direction, share = most_likely_direction(wind[:3])
    assert np.isnan(direction)
    assert share == 0


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


# Thresholds of a climatology.


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A prepared record on 16x8, and a forecast on its grid."""
    directory = tmp_path_factory.mktemp("prepared")
    (directory / "tiny.yaml").write_text("name: tiny\ndata: {grid: 16x8, days: 20}\n")
    wsdcast.prepare(directory / "tiny.yaml", directory / "run")
    made(Grid.regular("16x8")).to_zarr(directory / "f.zarr", zarr_format=2)
    return directory


def climate_thresholds(prepared: Path, quantiles: list[float]) -> np.ndarray:
    record = open_analysis(prepared / "run/analysis.zarr")
    wind = record.states[:][record.times < record.validation_from]
    return np.quantile(np.hypot(wind[:, 0], wind[:, 1]), quantiles, axis=0)


def test_thresholds_are_quantiles_of_the_training_split(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(climate, "BYTES", 20000)  # rows are read in parts
    store = str(prepared / "run/analysis.zarr")
    wsdcast.products(
        str(prepared / "f.zarr"), tmp_path / "p.zarr", to="zarr", climatology=store, climate_quantiles=[0.5, 0.9], window_hours=12
    )
    expected = climate_thresholds(prepared, [0.5, 0.9])
    speed = speed_of(made(Grid.regular("16x8")))
    levels = xr.DataArray(expected, {"climate_quantile": [0.5, 0.9]}, ["climate_quantile", "latitude", "longitude"])
    with xr.open_zarr(tmp_path / "p.zarr", chunks=None) as products:
        np.testing.assert_allclose(products["climate_threshold"], expected, rtol=1e-6)
        assert products["climate_threshold"].attrs["comment"] == f"64 states of {store}"
        for name, members in (("speed", speed), ("window", speed.rolling(prediction_timedelta=2).max())):
            found = products[f"{name}_climate_probability"]
            np.testing.assert_allclose(found, share_above(members, levels).transpose(*found.dims), rtol=1e-6)


def test_a_climatology_of_other_analyses_ends_before_the_forecast(forecast, tmp_path):
    times = STARTS[0] + 6 * HOUR * np.arange(-20, 10)
    values = np.random.default_rng(5).normal(0, 9, (2, times.size, *GRID.shape)).astype(np.float32)
    coordinates = {"time": times, "latitude": GRID.latitude, "longitude": GRID.longitude}
    source = xr.Dataset({name: (tuple(coordinates), field, {"units": "m/s"}) for name, field in zip(("u10", "v10"), values, strict=True)})
    source.assign_coords(coordinates).to_netcdf(tmp_path / "analyses.nc")
    summary = wsdcast.products(
        forecast, tmp_path / "p.nc", climatology=tmp_path / "analyses.nc", climate_quantiles=[0.95], region=(0, -30, 50, 30)
    )
    assert summary.facts["climatology"].startswith("20 states of")
    expected = np.quantile(np.hypot(*values[:, :20]), [0.95], axis=0)[:, 3:6, :3]
    with xr.open_dataset(tmp_path / "p-2020-02-01T00.nc", decode_timedelta=False) as products:
        np.testing.assert_allclose(products["climate_threshold"], expected, rtol=1e-6)


def test_the_page_names_every_variable_and_its_units(prepared, tmp_path):
    page = (Path(__file__).parents[1] / "docs/products.md").read_text()
    named = {}
    for names, dimension, units in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (\w*) \| ([^|]+) \|", page, re.MULTILINE):
        named |= dict.fromkeys(re.findall(r"\w+", names), (dimension, units.strip()))
    store = str(prepared / "run/analysis.zarr")
    wsdcast.products(str(prepared / "f.zarr"), tmp_path / "p.zarr", to="zarr", climatology=store, window_hours=12)
    with xr.open_zarr(tmp_path / "p.zarr", chunks=None) as products:
        usual = {"time", "prediction_timedelta", "latitude", "longitude"}
        assert named == {name: ("".join({*array.dims} - usual), array.attrs["units"]) for name, array in products.data_vars.items()}
    columns = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| [^|]+ \|$", page, re.MULTILINE)))
    assert columns == list(tables.COLUMNS)


def test_the_commands_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made().to_zarr("runs/planet/forecast.zarr", zarr_format=2)
    page = (Path(__file__).parents[1] / "docs/products.md").read_text()
    Path("places.csv").write_text(re.findall(r"```\n(name,.*?)```", page, re.DOTALL)[0])
    lines = re.findall(r"^wsdcast (.*)$", page, re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        result = CliRunner().invoke(app, line.split())
        assert (result.exit_code, result.stderr) == (0, ""), line
    times = ("2020-02-01T00", "2020-02-02T00")
    assert {path.name for path in tmp_path.iterdir()} == {
        *(f"strong-wind-{time}.nc" for time in times),
        "forecast.grib2",
        "places-forecast-Berlin.png",
        "places-forecast-Nome.png",
        "places-forecast.csv",
        "places.csv",
        "runs",
    }
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    table = pd.read_csv("places-forecast.csv")
    table[table.initial_time == table.initial_time[0]].to_csv("places-forecast.csv")
    exec(code.replace("chosen.pivot", "pivoted = chosen.pivot"), found := {"pandas": pd})
    assert found["pivoted"].columns.tolist() == list(QUANTILES)
    assert len(found["pivoted"]) == 2 * LEADS.size


# Places.


@pytest.mark.parametrize("name", ["16x8", "16x9"])
def test_interpolation_is_that_of_scipy_on_a_grid_that_was_continued(name):
    grid, random = Grid.regular(name), np.random.default_rng(0)
    field = random.normal(size=(3, *grid.shape))
    places = Places(tuple("abcdefghij"), random.uniform(-90, 90, 10), random.uniform(-180, 360, 10))
    places.latitude[:4], places.longitude[:4] = (90, -90, 89.9, grid.latitude[3]), (0, 359.9, -0.1, grid.longitude[5])
    found = interpolation(grid.latitude, grid.longitude, places, "f")(field)
    # One more column on both sides, and where the poles have no row, one with the values of the last row.
    east = np.concatenate([grid.longitude[-1:] - 360, grid.longitude, [360.0]])
    north, wide = grid.latitude, np.concatenate([field[..., -1:], field, field[..., :1]], axis=-1)
    if not grid.includes_poles:
        north, wide = np.concatenate([[90.0], north, [-90.0]]), np.concatenate([wide[:, :1], wide, wide[:, -1:]], axis=1)
    for number in range(3):
        other = RegularGridInterpolator((-north, east), wide[number])
        np.testing.assert_allclose(found[number], other(np.stack([-places.latitude, places.longitude % 360], axis=1)), rtol=1e-5, atol=1e-6)
    assert found[0, 3] == pytest.approx(field[0, 3, 5])


def test_a_missing_value_counts_only_where_it_has_weight():
    grid = Grid.regular("16x9")
    field = np.ones(grid.shape)
    field[4, 5] = np.nan
    places = Places(("on", "next", "row", "off"), np.array([0, 0, 0, -1.0]), np.array([22.5 * 5, 22.5 * 4, 22.5 * 4.5, 22.5 * 6]))
    np.testing.assert_array_equal(interpolation(grid.latitude, grid.longitude, places, "f")(field), [np.nan, 1, np.nan, 1])


def written(path: Path, text: str = "Name,country,Latitude, Longitude\nNome,US,64.5,-165.4\n Fiji ,FJ,-17.7,179.99\nPole,,-90,0\n") -> Path:
    path.write_text(text)
    return path


def test_the_table_has_the_products_of_wind_interpolated_to_the_places(forecast, tmp_path, prepared):
    climatology = str(prepared / "run/analysis.zarr")  # its grid need not be that of the forecast
    summary = wsdcast.products(
        forecast,
        tmp_path / "p.csv",
        at=written(tmp_path / "places.csv"),
        window_hours=12,
        quantiles=[0.25, 0.5],
        climatology=climatology,
        climate_quantiles=[0.9],
    )
    assert summary.facts["interpolation"].startswith("bilinear in u and v")
    assert [Path(path).name for path in summary.written] == ["p.csv", "p-Nome.png", "p-Fiji.png", "p-Pole.png"]
    table = pd.read_csv(tmp_path / "p.csv", parse_dates=["initial_time", "valid_time"])
    assert tuple(table.columns) == tables.COLUMNS
    assert table["name"].unique().tolist() == ["Nome", "Fiji", "Pole"]
    assert (table["valid_time"] - table["initial_time"] == pd.to_timedelta(table["lead_hours"], "h")).all()
    assert (table["interpolation"] == "bilinear").all()
    # Fiji lies between 157.5 and 180 east, and -22.5 and 0 north.
    east, north = (179.99 - 157.5) / 22.5, 4.8 / 22.5
    corners = made().sel(latitude=[-22.5, 0], longitude=[157.5, 180])
    weights = xr.DataArray(np.outer([1 - north, north], [1 - east, east]), dims=("latitude", "longitude"))
    at_fiji = (corners * weights).sum(["latitude", "longitude"], skipna=False)
    speed = speed_of(at_fiji)
    fiji = table[(table["name"] == "Fiji") & (table["initial_time"] == STARTS[1]) & (table["lead_hours"] == 30)]
    row = {"time": 1, "prediction_timedelta": 4}

    def value(variable: str, statistic: str, **level: float) -> float:
        chosen = fiji[(fiji["variable"] == variable) & (fiji["statistic"] == statistic)]
        for column, number in level.items():
            chosen = chosen[np.isclose(chosen[column], number)]
        (only,) = chosen["value"]
        return only

    assert value("u", "mean") == pytest.approx(float(at_fiji[VARIABLES[0]].mean("number")[row]), rel=1e-5)
    assert value("v", "spread") == pytest.approx(float(at_fiji[VARIABLES[1]].std("number", ddof=1)[row]), rel=1e-5)
    assert value("speed", "quantile", level=0.25) == pytest.approx(float(speed.quantile(0.25, "number")[row]), rel=1e-5)
    assert value("speed", "probability", threshold=10.8) == pytest.approx(float(share_above(speed, 10.8)[row]))
    highest = speed.rolling(prediction_timedelta=2).max()
    assert value("speed", "probability of maximum", threshold=10.8) == pytest.approx(float(share_above(highest, 10.8)[row]))
    wind = np.stack([at_fiji[name][row].values for name in VARIABLES], axis=1)
    direction, share = most_likely_direction(wind[np.isfinite(wind[:, 0])])
    assert value("direction", "mode") == direction
    assert value("direction", "share of mode") == pytest.approx(float(share))
    assert set(fiji["members"]) == {4}
    record = open_analysis(Path(climatology))
    states = record.states[:][record.part("train")]
    place = Places(("Fiji",), np.array([-17.7]), np.array([179.99]))
    states = interpolation(record.grid.latitude, record.grid.longitude, place, "")(states)[..., 0]
    threshold = np.quantile(np.hypot(states[:, 0], states[:, 1]), 0.9)
    assert value("speed", "climate probability", level=0.9, threshold=threshold) == pytest.approx(float(share_above(speed, threshold)[row]))
    # All of one place: 3 of mean and spread each, 6 quantiles, 3 probabilities, 1 of climate, 2 of direction; and at 9 of 10 lead times 4.
    assert len(table) == 3 * 2 * (10 * 18 + 9 * 4)


def test_parquet_has_the_same_table(forecast, tmp_path):
    pytest.importorskip("pyarrow", reason="needs the extra parquet")
    places = written(tmp_path / "places.csv")
    wsdcast.products(forecast, tmp_path / "p.parquet", at=places)
    wsdcast.products(forecast, tmp_path / "q.csv", at=places)
    one, other = pd.read_parquet(tmp_path / "p.parquet"), pd.read_csv(tmp_path / "q.csv", parse_dates=["initial_time", "valid_time"])
    assert list(one.columns) == list(other.columns)
    np.testing.assert_allclose(one["value"], other["value"], rtol=1e-6)
    assert (one["name"].to_numpy() == other["name"].to_numpy()).all()
    assert (one["valid_time"].to_numpy() == other["valid_time"].to_numpy()).all()


def test_parquet_without_pyarrow_is_one_line(forecast, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    line = refused("products", forecast, "--at", written(tmp_path / "places.csv"), "--out", tmp_path / "p.parquet")
    assert "Parquet needs `pip install 'wsdcast[parquet]'`" in line


def test_plumes_are_of_the_last_initial_time_at_the_place(forecast, tmp_path, monkeypatch):
    drawn = []
    draw = plumes.plume
    monkeypatch.setattr(plumes, "plume", lambda *arguments: drawn.append(arguments) or draw(*arguments))
    wsdcast.products(forecast, tmp_path / "p.csv", at=written(tmp_path / "a.csv", "name,latitude,longitude\nA,22.5,45\nB,0,337.5\n"))
    for (bands, truth, leads, title), at, name in zip(drawn, [(22.5, 45), (0, 337.5)], "AB", strict=True):
        members = speed_of(made().isel(time=1).sel(latitude=at[0], longitude=at[1]))
        np.testing.assert_allclose(bands, members.quantile(QUANTILES, "number"), rtol=1e-5)
        assert np.isnan(truth).all()
        np.testing.assert_array_equal(leads, LEADS)
        assert title.startswith(name)
        assert title.endswith("bilinear, from 2020-02-02T00")
    assert (tmp_path / "p-A.png").read_bytes().startswith(b"\x89PNG")


def test_names_of_figures_are_safe_and_differ():
    paths = plume_paths(Path("x/p.csv"), ["St. John's", "st/john s", "../..", "Å"])
    assert [path.name for path in paths] == ["p-St-John-s.png", "p-st-john-s-2.png", "p-place.png", "p-Å.png"]


# What cannot be done.


def refused(*arguments: object) -> str:
    """The one line of a command that must fail."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("wsdcast: ")
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,latitude\nA,1\n", "has no column 'longitude'; expected name, latitude, longitude"),
        ("name,latitude,longitude,Name\nA,1,2,B\n", "has 2 columns 'name'"),
        ("name,latitude,longitude\n", "has no place"),
        ("", "cannot be read as CSV"),
        ("name,latitude,longitude\nA,1,2\nA,3,4\n", "place 2, 'A' 3,4: occurs twice"),
        ("name,latitude,longitude\nA,91,2\n", "place 1, 'A' 91,2: expected a latitude from -90 to 90"),
        ("name,latitude,longitude\nA,1,361\n", "a longitude from -180 to 360"),
        ("name,latitude,longitude\nA,north,2\n", "place 1, 'A' north,2: expected a latitude"),
        ("name,latitude,longitude\n ,1,2\n", "place 1, '' 1,2: has no name"),
        ('name,latitude,longitude\n"A,1,2\n', "cannot be read as CSV"),
    ],
)
def test_bad_files_of_places_are_one_line(forecast, tmp_path, text, message):
    line = refused("products", forecast, "--at", written(tmp_path / "places.csv", text), "--out", tmp_path / "p.csv")
    assert f"--at {tmp_path / 'places.csv'}: " in line
    assert message in line
    assert not (tmp_path / "p.csv").exists()


def test_a_place_outside_a_regional_store_is_one_line(tmp_path):
    part = made().isel(latitude=slice(2, 6), longitude=[15, 0, 1])  # 337.5 to 22.5 degrees, across Greenwich
    part.to_zarr(tmp_path / "part.zarr", zarr_format=2)
    inside = written(tmp_path / "in.csv", "name,latitude,longitude\nA,10,-11.25\nB,45,22.5\n")
    wsdcast.products(str(tmp_path / "part.zarr"), tmp_path / "in-part.csv", at=inside)
    table = pd.read_csv(tmp_path / "in-part.csv")
    first = table[(table["statistic"] == "mean") & (table["variable"] == "u")]["value"].iloc[0]
    corners = made()[VARIABLES[0]][0, :, 0].sel(latitude=[22.5, 0], longitude=[337.5, 0]).mean(["number", "longitude"])
    assert first == pytest.approx(float(corners[0] * 10 / 22.5 + corners[1] * 12.5 / 22.5), rel=1e-5)
    for place in ("10,23", "46,0", "-30,0", "0,180"):
        outside = written(tmp_path / "out.csv", f"name,latitude,longitude\nA,10,0\nFar,{place}\n")
        line = refused("products", tmp_path / "part.zarr", "--at", outside, "--out", tmp_path / "p.csv")
        assert f"Far ({place}) lies outside {tmp_path / 'part.zarr'}, which covers" in line
        assert "latitudes -22.5 to 45 and longitudes -22.5 to 22.5" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--thresholds", "a"], "--thresholds: could not convert"),
        (["--thresholds", "nan"], "--thresholds nan: expected numbers of 0 or more, in m/s"),
        (["--thresholds", ""], "--thresholds : expected numbers"),
        (["--quantiles", "0.5,1.5"], "--quantiles 0.5,1.5: expected numbers from 0 to 1"),
        (["--window", "7h"], "--window '7h': expected a multiple of 6 h"),
        (["--window", "10d"], "--window 240h: the forecast ends after 60 h"),
        (["--climate-quantiles", "0.9"], "--climate-quantiles needs a --climatology"),
        (["--climatology", "nowhere.nc"], "nowhere.nc"),
        (["--region", "1,2,3"], "--region '1,2,3': expected W,S,E,N"),
        (["--region", "1,50,3,40"], "with latitudes from south to north"),
        (["--region", "1,1,3,3"], "--region 1,1,3,3: no grid point of"),
        (["--out", "p.zarr"], "--out p.zarr: netcdf needs a name that ends in .nc or .nc4"),
        (["--at", "places.csv", "--to", "zarr"], "--to does not go with --at"),
        (["--at", "places.csv", "--region", "1,2,3,4"], "--region does not go with --at"),
        (["--at", "nowhere.csv"], "--at nowhere.csv: cannot be read as CSV (No such file or directory)"),
        (["--at", "places.csv", "--out", "p.xlsx"], "--out p.xlsx: a table of places is written as .csv or .parquet, not as '.xlsx'"),
    ],
)
def test_mistakes_end_in_one_line(forecast, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    written(Path("places.csv"))
    assert message in refused("products", forecast, *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["places.csv"]


def test_a_climatology_of_open_data_is_refused(forecast, tmp_path):
    line = refused("products", forecast, "--climatology", "gfs", "--out", tmp_path / "products.nc")
    assert "fetched only where the times are known; prepare a record of it" in line


def test_a_climatology_on_another_grid_is_one_line(forecast, prepared, tmp_path):
    line = refused("products", forecast, "--climatology", prepared / "run/analysis.zarr", "--out", tmp_path / "p.nc")
    assert "--climatology: is on a grid of 16x8" in line


def test_statistics_alone_and_scores_are_refused(tmp_path):
    store = made().isel(number=0, drop=True).expand_dims(statistic=["mean", "std"])
    store.to_zarr(tmp_path / "f.zarr", zarr_format=2)
    assert "has only statistics over members" in refused("products", tmp_path / "f.zarr")


def test_nothing_is_replaced_unasked(forecast, tmp_path):
    (tmp_path / "p-2020-02-02T00.nc").write_text("mine")
    line = refused("products", forecast, "--out", tmp_path / "p.nc")
    assert "p-2020-02-02T00.nc: is there already; choose another name, or replace it with --overwrite" in line
    assert [path.name for path in tmp_path.iterdir()] == ["p-2020-02-02T00.nc"]
    result = CliRunner().invoke(app, ["products", forecast, "--out", str(tmp_path / "p.nc"), "--overwrite", "--json"])
    assert result.exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p-2020-02-01T00.nc", "p-2020-02-02T00.nc"]
