"""What `wsdcast products` cannot do ends in one line, and replaces nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from commands import refused
from random_forecast import (
    made,
    prepared_with_forecast,
    their_store,
    written,
)
from typer.testing import CliRunner

import wsdcast
from wsdcast.cli import app
from wsdcast.data.variables import DEFAULT
from wsdcast.runs.errors import UserError


@pytest.fixture(scope="module")
def forecast(tmp_path_factory) -> str:
    return their_store(tmp_path_factory.mktemp("products"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    return prepared_with_forecast(tmp_path_factory.mktemp("prepared"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,latitude\nA,1\n", "has no column 'longitude'; expected name, latitude, longitude"),
        ("name,latitude,longitude,Name\nA,1,2,B\n", "has 2 columns 'name'"),
        ("name,latitude,longitude\n", "has no place"),
        ("", "cannot be read as CSV"),
        ("name,latitude,longitude\nA,1,2\nA,3,4\n", "place 2, 'A' 3,4: occurs twice"),
        ("name,latitude,longitude\nBerlin,52.5,13.4,34\n", "rows have more cells than there are columns"),  # the height
        ("name,latitude,longitude\nBerlin,52,5,13,4\n", "rows have more cells than there are columns"),  # decimal commas
        ("name;latitude;longitude\nBerlin;52,5;13,4\n", "expected commas between cells, and points in numbers, not 'name;lat"),
        ("name\tlatitude\tlongitude\nBerlin\t52.5\t13.4\n", "expected commas between cells"),
        ("name,latitude,longitude\nZürich,47.4,8.5\n", "its text is not UTF-8"),  # Latin-1
        ("name,latitude,longitude\nA,91,2\n", "place 1, 'A' 91,2: expected a latitude from -90 to 90"),
        ("name,latitude,longitude\nA,1,361\n", "a longitude from -180 to 360"),
        ("name,latitude,longitude\nA,north,2\n", "place 1, 'A' north,2: expected a latitude"),
        ("name,latitude,longitude\n ,1,2\n", "place 1, '' 1,2: has no name"),
        ('name,latitude,longitude\n"A,1,2\n', "cannot be read as CSV"),
    ],
)
def test_bad_files_of_places_are_one_line(forecast, tmp_path, text, message):
    (tmp_path / "places.csv").write_text(text, encoding="latin-1")
    line = refused("products", forecast, "--at", tmp_path / "places.csv", "--out", tmp_path / "p.csv")
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
    corners = made()[DEFAULT[0]][0, :, 0].sel(latitude=[22.5, 0], longitude=[337.5, 0]).mean(["number", "longitude"])
    assert first == pytest.approx(float(corners[0] * 10 / 22.5 + corners[1] * 12.5 / 22.5), rel=1e-5)
    for place in ("10,23", "46,0", "-30,0", "0,180"):
        outside = written(tmp_path / "out.csv", f"name,latitude,longitude\nA,10,0\nFar,{place}\n")
        line = refused("products", tmp_path / "part.zarr", "--at", outside, "--out", tmp_path / "p.csv")
        assert f"Far ({place}) lies outside {tmp_path / 'part.zarr'}, which covers" in line
        assert "latitudes -22.5 to 45 and longitudes -22.5 to 22.5" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--thresholds", "a"], "--thresholds a: expected numbers of 0 or more, in m/s, such as 10.8,17.2"),
        (["--thresholds", "25m"], "--thresholds 25m: expected numbers of 0 or more, in m/s, such as 10.8,17.2, or with a unit of speed"),
        (["--thresholds", "-5kn"], "--thresholds -5kn: expected numbers of 0 or more"),
        (["--thresholds", "nan"], "--thresholds nan: expected numbers of 0 or more, in m/s"),
        (["--thresholds", "inf"], "--thresholds inf: expected numbers of 0 or more, in m/s"),
        (["--thresholds", ""], "--thresholds : expected numbers"),
        (["--quantiles", "0.5,1.5"], "--quantiles 0.5,1.5: expected numbers from 0 to 1, such as 0.1,0.9"),
        (["--window", "1.5h"], "--window '1.5h': expected a positive multiple of 1 h, such as 12h or 10d"),
        (["--window", "0h"], "--window '0h': expected a positive multiple of 1 h"),
        (["--window", "24"], "--window '24': expected a positive multiple of 1 h"),
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
        (["--at", "places.csv", "--out", "./places.csv", "--overwrite"], "--out places.csv: is places.csv, which this command reads"),
        (["--at", "places.csv", "--out", "p.xlsx"], "--out p.xlsx: a table of places is written as .csv or .parquet, not as '.xlsx'"),
    ],
)
def test_mistakes_end_in_one_line(forecast, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    written(Path("places.csv"))
    assert message in refused("products", forecast, *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["places.csv"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"thresholds": "5,10"}, "--thresholds '5,10': expected a list of numbers of 0 or more, in m/s, such as 10.8,17.2"),
        ({"thresholds": 5}, "--thresholds 5: expected a list of numbers of 0 or more"),
        ({"thresholds": [5, None]}, "--thresholds 5,None: expected numbers of 0 or more"),
        ({"quantiles": 0.5}, "--quantiles 0.5: expected a list of numbers from 0 to 1"),
        ({"quantiles": "0.5"}, "--quantiles '0.5': expected a list of numbers from 0 to 1"),
        ({"climatology": "c.nc", "climate_quantiles": 0.9}, "--climate-quantiles 0.9: expected a list of numbers from 0 to 1"),
        ({"at": [("B", 52, 13)]}, "--at: expected the path of a file, not list"),
        ({"at": pd.DataFrame({"name": ["B"]})}, "--at: expected the path of a file, not DataFrame"),
        ({"window_hours": "24h"}, "window_hours '24h': expected a number of hours above 0"),
        ({"window_hours": 0}, "window_hours 0: expected a number of hours above 0"),
        ({"window_hours": np.inf}, "window_hours inf: expected a number of hours above 0"),
        ({"region": "0,30,40,72"}, "--region '0,30,40,72': expected W,S,E,N in degrees"),
        ({"region": (0, 30)}, "--region (0, 30): expected W,S,E,N in degrees"),
        ({"region": 5}, "--region 5: expected W,S,E,N in degrees"),
    ],
)
def test_arguments_of_a_wrong_type_are_named_in_one_line(forecast, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        wsdcast.products(forecast, **arguments)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("function", [wsdcast.products, wsdcast.forecast_page])
def test_thresholds_of_a_wrong_type_are_named_by_every_function(forecast, tmp_path, function):
    with pytest.raises(UserError, match=r"^--thresholds '5,10': expected a list of numbers of 0 or more"):
        function(forecast, tmp_path / "out", thresholds="5,10")


def test_lists_of_numbers_may_be_arrays(prepared, tmp_path):
    arrays = {"thresholds": np.array([10, 5]), "quantiles": np.array([0.5, 0.1]), "climate_quantiles": np.array([0.9, 0.5])}
    wsdcast.products(prepared / "f.zarr", tmp_path / "p.zarr", to="zarr", climatology=prepared / "run/analysis.zarr", **arrays)
    with xr.open_zarr(tmp_path / "p.zarr", consolidated=False) as stored:
        found = [stored[name].values.tolist() for name in ("threshold", "quantile", "climate_quantile")]
        assert found == [[5, 10], [0.1, 0.5], [0.5, 0.9]]


def test_unknown_formats_are_named_with_the_known_ones(forecast, tmp_path):
    with pytest.raises(UserError, match=r"format 'csv': expected netcdf, zarr, grib2$"):
        wsdcast.convert(forecast, "csv", tmp_path / "a.csv")
    with pytest.raises(UserError, match=r"format 'grib2': expected netcdf, zarr$"):
        wsdcast.products(forecast, tmp_path / "a.grib2", to="grib2")
    assert not list(tmp_path.iterdir())


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
