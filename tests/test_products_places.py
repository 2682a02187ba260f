"""Products of a forecast at places, and the figures of them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from commands import refused
from random_forecast import (
    LEADS,
    STARTS,
    made,
    prepared_with_forecast,
    share_above,
    speed_of,
    their_store,
    written,
)
from scipy.interpolate import RegularGridInterpolator

import wsdcast
from wsdcast.data.grid import Grid
from wsdcast.data.store.analysis import open_analysis
from wsdcast.data.store.forecasts import QUANTILES
from wsdcast.data.variables import DEFAULT
from wsdcast.output import plumes, tables
from wsdcast.output.ensemble import most_likely_direction
from wsdcast.output.observations import read_observations
from wsdcast.output.places import Places, interpolation, read_cells, read_places, require_inside
from wsdcast.output.plumes import plume_paths
from wsdcast.report import style
from wsdcast.report.subjects import WIND
from wsdcast.runs.complete import partial_of
from wsdcast.runs.errors import UserError


@pytest.fixture(scope="module")
def forecast(tmp_path_factory) -> str:
    return their_store(tmp_path_factory.mktemp("products"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    return prepared_with_forecast(tmp_path_factory.mktemp("prepared"))


@pytest.mark.parametrize("name", ["16x8", "16x9"])
def test_interpolation_is_that_of_scipy_on_a_grid_that_was_continued(name):
    grid, random = Grid.regular(name), np.random.default_rng(0)
    field = random.normal(size=(3, *grid.shape))
    places = Places(tuple("abcdefghij"), random.uniform(-90, 90, 10), random.uniform(-180, 360, 10))
    places.latitude[:4], places.longitude[:4] = (90, -90, 89.9, grid.latitude[3]), (0, 359.9, -0.1, grid.longitude[5])
    found = interpolation(grid.latitude, grid.longitude, places)(field)
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
    field[4, 5] = field[0, 1] = field[1, 0] = np.nan
    latitudes, columns = np.array([0, 0, 0, -1.0, 90, 90]), np.array([5, 4, 4.5, 6, 0, 0.1])
    places = Places(("on", "next", "row", "off", "corner", "beside it"), latitudes, 22.5 * columns)
    np.testing.assert_array_equal(interpolation(grid.latitude, grid.longitude, places)(field), [np.nan, 1, np.nan, 1, 1, np.nan])


@pytest.mark.parametrize(
    ("latitude", "longitude", "place", "at"),
    [
        # A region ends at its last points. Coordinates may be rounded.
        ([60, 50, 40], [-10, 0, 10], (60 + 1e-7, -10 - 1e-7), (60, -10)),
        ([60, 50, 40], [-10, 0, 10], (40 - 1e-7, 10 + 1e-7), (40, 10)),
        ([60, 50, 30], [-10, 0, 20], (35, 350.5), (35, -9.5)),
        ([60, 50, 30], [-10, 0, 20], (58, 5), (58, 5)),
        ([45], [-10, 0, 10], (45, 2), (45, 2)),
        ([60, 50], [10], (55, -350), (55, 10)),
        ([60, 50], [10], (55, 10.001), None),
        ([45], [-10, 0, 10], (45.001, 2), None),
        ([60, 50, 40], [-10, 0, 10], (60.001, 0), None),
        ([60, 50, 40], [-10, 0, 10], (39.999, 0), None),
        ([60, 50, 40], [-10, 0, 10], (50, 10.001), None),
        ([60, 50, 40], [-10, 0, 10], (50, -10.001), None),
        ([60, 50, 40], [-10, 0, 10], (50, -180), None),
        ([80, 70], [-10, 0, 10], (85, 0), None),
        # Longitudes round the globe reach a pole that is a row away, and no other.
        ([80, 70, 60], [0, 90, 180, 270], (90, 45), (80, 45)),
        ([80, 70, 60], [0, 90, 180, 270], (59.9, 45), None),
        ([-60, -70, -80], [0, 90, 180, 270], (-85, 45), (-80, 45)),
        ([-60, -70, -80], [0, 90, 180, 270], (-59.9, 45), None),
        ([75, 65, 55], [0, 90, 180, 270], (76, 45), None),
        ([80, 70, 60], [0, 90, 180, 270.00001], (70, 315), (70, 135)),  # halfway between the last column and the first
    ],
)
def test_a_place_is_in_a_region_and_not_a_hair_beyond(latitude, longitude, place, at):
    rows, columns = np.array(latitude, dtype=float), np.array(longitude, dtype=float)
    field = 1000 * rows[:, None] + columns
    here = Places(("A", "B"), np.array([rows[0], place[0]]), np.array([columns[0], place[1]]))
    if at is not None:
        found = interpolation(rows, columns, here)(field)
        np.testing.assert_allclose(found, [field[0, 0], 1000 * at[0] + at[1]], rtol=1e-6)
    else:
        with pytest.raises(UserError, match=rf"^--at: B \({place[0]:g},{place[1]:g}\) lies outside f, which covers"):
            require_inside(rows, columns, here, "f")
        np.testing.assert_array_equal(interpolation(rows, columns, here)(field), [field[0, 0], np.nan])


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

    assert value("u", "mean") == pytest.approx(float(at_fiji[DEFAULT[0]].mean("number")[row]), rel=1e-5)
    assert value("v", "spread") == pytest.approx(float(at_fiji[DEFAULT[1]].std("number", ddof=1)[row]), rel=1e-5)
    assert value("speed", "quantile", level=0.25) == pytest.approx(float(speed.quantile(0.25, "number")[row]), rel=1e-5)
    assert value("speed", "probability", threshold=10.8) == pytest.approx(float(share_above(speed, 10.8)[row]))
    highest = speed.rolling(prediction_timedelta=2).max()
    assert value("speed", "probability of maximum", threshold=10.8) == pytest.approx(float(share_above(highest, 10.8)[row]))
    wind = np.stack([at_fiji[name][row].values for name in DEFAULT], axis=1)
    direction, share = most_likely_direction(wind[np.isfinite(wind[:, 0])])
    assert value("direction", "mode") == direction
    assert value("direction", "share of mode") == pytest.approx(float(share))
    assert set(fiji["members"]) == {4}
    record = open_analysis(Path(climatology))
    states = record.states[:][record.part("train")]
    place = Places(("Fiji",), np.array([-17.7]), np.array([179.99]))
    states = interpolation(record.grid.latitude, record.grid.longitude, place)(states)[..., 0]
    threshold = np.quantile(np.hypot(states[:, 0], states[:, 1]), 0.9)
    assert value("speed", "climate probability", level=0.9, threshold=threshold) == pytest.approx(float(share_above(speed, threshold)[row]))
    # All of one place: 3 of mean and spread each, 6 quantiles, 3 probabilities, 1 of climate, 3 of direction; and at 9 of 10 lead times 4.
    assert len(table) == 3 * 2 * (10 * 19 + 9 * 4)


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
    of_killed = partial_of(tmp_path / "p-plumes")
    of_killed.mkdir()
    for name in ("p-A.png", "p-C.png"):
        (of_killed / name).write_text("cut sho")
    wsdcast.products(forecast, tmp_path / "p.csv", at=written(tmp_path / "a.csv", "name,latitude,longitude\nA,22.5,45\nB,0,337.5\n"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "p-A.png", "p-B.png", "p.csv"]
    for ((bands,), subjects, leads, title, start), at, name in zip(drawn, [(22.5, 45), (0, 337.5)], "AB", strict=True):
        members = speed_of(made().isel(time=1).sel(latitude=at[0], longitude=at[1]))
        np.testing.assert_allclose(bands, members.quantile(QUANTILES, "number"), rtol=1e-5)
        np.testing.assert_array_equal(leads, LEADS)
        assert title.startswith(name)
        assert title.endswith("bilinear, from 2020-02-02 00 UTC")
        assert (subjects, start) == ([WIND], np.datetime64("2020-02-02T00"))
    assert (tmp_path / "p-A.png").read_bytes().startswith(b"\x89PNG")


def test_a_plume_that_cannot_be_written_leaves_no_table(forecast, tmp_path, monkeypatch):
    """The table and the plumes before it stayed, so that the same command was refused without --overwrite."""
    places = written(tmp_path / "a.csv", "name,latitude,longitude\nA,22.5,45\nB,0,337.5\n")

    def failing(figure, path, save=style.save):
        if "B" in path.name:
            raise OSError(28, "No space left on device", str(path))
        save(figure, path)

    monkeypatch.setattr(style, "save", failing)
    before = set(tmp_path.iterdir())
    with pytest.raises(OSError, match="No space left"):
        wsdcast.products(forecast, tmp_path / "p.csv", at=places)
    assert {path for path in set(tmp_path.iterdir()) - before if not path.name.endswith(".lock")} == set()


def test_places_come_through_a_pipe():
    """As of ``--at <(...)``: it can be read only once."""
    reading, writing = os.pipe()
    os.write(writing, b'"name; height",latitude,longitude\nBerlin; 34 m,52.5,13.4\n')
    os.close(writing)
    table = read_cells(Path(f"/dev/fd/{reading}"))
    os.close(reading)
    assert table.to_dict("list") == {"name; height": ["Berlin; 34 m"], "latitude": ["52.5"], "longitude": ["13.4"]}


def test_commas_at_the_ends_of_rows_shift_no_cell(tmp_path):
    (tmp_path / "places.csv").write_text("name,latitude,longitude\nBerlin,52.5,13.4,\nNome,64.5,-165.4,\n")
    places = read_places(tmp_path / "places.csv")
    assert places.name == ("Berlin", "Nome")
    np.testing.assert_array_equal(places.latitude, [52.5, 64.5])
    np.testing.assert_array_equal(places.longitude, [13.4, -165.4])


def test_a_file_of_places_may_be_typed_by_hand_up_to_the_ends_of_the_globe(tmp_path):
    text = '\ufeffName, Latitude, Longitude\n"A, B", 90, -180\nC , -90, 360\n D, 0, "1.5"\n'
    (tmp_path / "places.csv").write_text(text, encoding="utf-8")
    places = read_places(tmp_path / "places.csv")
    assert places.name == ("A, B", "C", "D")
    assert (places.latitude.tolist(), places.longitude.tolist()) == ([90, -90, 0], [-180, 360, 1.5])


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    """The first one counted."""
    (tmp_path / "table.csv").write_text("name,latitude,latitude,longitude,time,units,speed\nA,50,60,10,2020-01-01,m s-1,5\n")
    with pytest.raises(UserError, match="has 2 columns 'latitude'"):
        read_places(tmp_path / "table.csv")
    with pytest.raises(UserError, match="has the column 'latitude' twice"):
        read_observations(tmp_path / "table.csv")
    (tmp_path / "levels.csv").write_text("name,u.1,latitude,longitude\nA,1,50,10\n")
    assert list(read_cells(tmp_path / "levels.csv").columns) == ["name", "u.1", "latitude", "longitude"]


def test_names_of_figures_are_safe_and_differ():
    paths = plume_paths(Path("x/p.csv"), ["St. John's", "st/john s", "../..", "Å"])
    assert [path.name for path in paths] == ["p-St-John-s.png", "p-st-john-s-2.png", "p-place.png", "p-Å.png"]
