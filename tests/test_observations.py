"""Tables of observations at stations: what is read from CSV and Parquet, and what is refused by its row."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_stations import table, written

from wsdcast.output.observations import read_observations
from wsdcast.runs.errors import UserError


def test_parquet_is_read_like_csv(tmp_path):
    pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    frame = table()
    frame.loc[[1, 4], ["u", "v"]] = np.nan
    frame.loc[2, "v"] = np.nan
    typed = frame.assign(time=pd.to_datetime(frame["time"]))
    theirs = read_observations(tmp_path / written(frame, tmp_path / "stations.csv"))
    assert theirs.missing == 3
    nullable = typed.astype({"u": "Float64", "v": "Float64", "latitude": "Float64", "station": "string", "units": "category"})
    for parquet in (typed, nullable, typed.astype({"u": object, "v": object}).where(typed.notna(), None)):
        parquet.to_parquet(tmp_path / "stations.parquet")
        ours = read_observations(tmp_path / "stations.parquet")
        assert (ours.stations.name, ours.missing) == (theirs.stations.name, theirs.missing)
        np.testing.assert_array_equal(ours.times, theirs.times)
        for name in ("u", "v", "speed"):
            np.testing.assert_allclose(ours.values[name], theirs.values[name], rtol=1e-12)


@pytest.mark.parametrize("index", [["time"], ["time", "station"], ["Time"]])
def test_columns_of_parquet_may_be_its_index(tmp_path, index):
    pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    frame = table().assign(time=lambda frame: pd.to_datetime(frame["time"]))
    frame.to_parquet(tmp_path / "columns.parquet")
    frame.rename(columns={"time": index[0]}).set_index(index).to_parquet(tmp_path / "index.parquet")
    ours, theirs = (read_observations(tmp_path / f"{name}.parquet") for name in ("index", "columns"))
    np.testing.assert_array_equal(ours.times, theirs.times)
    np.testing.assert_array_equal(ours.values["speed"], theirs.values["speed"])
    assert ours.stations.name == theirs.stations.name


def test_stations_without_a_name_are_positions_to_the_last_digit(tmp_path):
    """A metre is 1e-5 degrees, and a longitude above 100 has three digits before the point."""
    close = pd.DataFrame(
        {"time": "2020-02-01T06", "latitude": 47.123456, "longitude": [123.456781, 123.456789], "units": "m/s", "speed": [3, 5]}
    )
    observed = read_observations(written(close, tmp_path / "close.csv"))
    assert observed.stations.name == ("47.123456,123.456781", "47.123456,123.456789")
    assert observed.values["speed"].tolist() == [[3, 5]]
    jitter = close.assign(station="A", time=["2020-02-01T06", "2020-02-01T12"])  # a station with a name is where it is to a metre
    assert read_observations(written(jitter, tmp_path / "jitter.csv")).values["speed"].tolist() == [[3], [5]]


def test_a_longitude_is_the_same_after_a_full_circle(tmp_path):
    """A station at 0 and 360 was refused for two positions."""
    for west, east in ((0, 360), (-0.1, 359.9), (-180, 180), (-73.987654, 286.012346)):
        rows = pd.DataFrame({"station": "A", "time": ["2020-02-01T06", "2020-02-01T12"], "latitude": 47, "longitude": [west, east]})
        observed = read_observations(written(rows.assign(units="m/s", speed=[3, 5]), tmp_path / "a.csv"))
        assert (observed.stations.longitude.tolist(), observed.values["speed"].tolist()) == ([west], [[3], [5]])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("time", "row 2 has no time that can be read: , date line, "),
        ("latitude", "row 2 has no position on the globe"),
        ("units", "row 2 has unknown units"),
        ("station", "row 2 has no station"),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_row_needs_all_but_its_wind(tmp_path, column, message, kind):
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    frame = table(components=False)
    frame = frame.assign(time=pd.to_datetime(frame["time"]))
    frame.loc[1, column] = None
    frame.to_parquet(tmp_path / "stations.parquet") if kind == "parquet" else frame.to_csv(tmp_path / "stations.csv", index=False)
    with pytest.raises(UserError, match=message):
        read_observations(tmp_path / f"stations.{kind}")


@pytest.mark.parametrize("code", [999.9, 9999, 1e20, np.inf, -9999, -999.9, -np.inf])
@pytest.mark.parametrize("column", ["speed", "u", "v"])
def test_codes_of_missing_values_are_no_wind(tmp_path, code, column):
    frame = table(components=column != "speed")
    frame.loc[1, column] = code
    with pytest.raises(UserError, match=r"row 2 has no (speed|u and v) that can be read, or a speed outside of 0 to 120 m/s"):
        read_observations(tmp_path / written(frame, tmp_path / "stations.csv"))


def test_a_missing_component_is_empty_or_one_of_the_usual_words_and_a_wrong_one_is_refused(tmp_path):
    cells = ["3", "", "nan", "NaN", "None", "NA", "<NA>", "4"]
    times = pd.date_range("2020-02-01", periods=len(cells), freq="6h")
    frame = pd.DataFrame({"time": times, "latitude": 90, "longitude": -180, "units": "m/s", "u": cells, "v": "4", "speed": "?"})
    observed = read_observations(written(frame, tmp_path / "stations.csv"))  # speed is not read beside u and v
    assert (observed.missing, observed.values["speed"].tolist()) == (6, [[5], [32**0.5]])
    np.testing.assert_array_equal(observed.times, times[[0, -1]])
    for u, v in (("calm", "4"), ("calm", ""), ("121", ""), ("", "-121"), ("100", "100")):
        frame.loc[1, ["u", "v"]] = u, v
        with pytest.raises(UserError, match=r"row 2 has no u and v that can be read, or a speed outside of 0 to 120 m/s"):
            read_observations(written(frame, tmp_path / "stations.csv"))
    alone = frame.drop(columns="v").assign(speed="7")  # so u is one of the other columns
    assert read_observations(written(alone, tmp_path / "alone.csv")).values["speed"].tolist() == [[7]] * len(cells)


def test_a_station_is_its_column_before_its_name_and_has_one_position(tmp_path):
    times = ["2020-02-01T06", "2020-02-01T12"]
    frame = pd.DataFrame({"time": times, "station": ["1", "2"], "name": "A", "latitude": -90, "longitude": [10, 190], "units": "m/s"})
    observed = read_observations(written(frame.assign(speed=[3, 5]), tmp_path / "stations.csv"))
    assert (observed.stations.name, observed.stations.longitude.tolist()) == (("1", "2"), [10, 190])
    np.testing.assert_array_equal(observed.values["speed"], [[3, np.nan], [np.nan, 5]])
    with pytest.raises(UserError, match="station 'A' has 2 positions"):
        read_observations(written(frame.drop(columns="station").assign(speed=[3, 5]), tmp_path / "stations.csv"))


def test_the_range_of_wind_is_that_in_metres_per_second(tmp_path):
    frame = table(components=False).assign(speed=200.0, units="knots")
    values = read_observations(tmp_path / written(frame, tmp_path / "stations.csv")).values["speed"]
    np.testing.assert_allclose(values[np.isfinite(values)], 200 * 1852 / 3600)
    with pytest.raises(UserError, match="row 1 has no speed"):
        read_observations(tmp_path / written(frame.assign(units="m/s"), tmp_path / "stations.csv"))
    frame = table().assign(u=-119.0, v=119.0)  # each can be, both together cannot
    with pytest.raises(UserError, match="row 1 has no u and v that can be read, or a speed outside"):
        read_observations(tmp_path / written(frame, tmp_path / "stations.csv"))


@pytest.mark.parametrize(("more", "read"), [("", True), ("7", False)])
def test_cells_beyond_the_columns_shift_no_others(tmp_path, more, read):
    """Commas at the ends of rows do not matter. Values there are refused: pandas would take the first column for an index."""
    rows = ["47,8,m/s,5,2020-02-01T06", "48,9,m/s,6,2020-02-01T06"]
    lines = ["latitude,longitude,units,speed,time", *(f"{row},{more}" for row in rows)]
    (tmp_path / "stations.csv").write_text("\n".join(lines))
    if not read:
        with pytest.raises(UserError, match="rows have more cells than there are columns"):
            read_observations(tmp_path / "stations.csv")
        return
    observed = read_observations(tmp_path / "stations.csv")
    np.testing.assert_array_equal(observed.stations.latitude, [47, 48])
    np.testing.assert_array_equal(observed.values["speed"], [[5, 6]])
