"""Tests of scores at stations, against scores written out pair by pair, and of tables of observations that are wrong."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.interpolate import RegularGridInterpolator
from test_any_forecast import GRID, LEADS, NAMES, STARTS, forecast_dataset, write
from typer.testing import CliRunner

import wsdcast
from wsdcast.cli import app
from wsdcast.output.observations import read_observations
from wsdcast.runs.errors import UserError
from wsdcast.verification.thresholds import THRESHOLDS

STATIONS = {"inland": (47.3, 8.4), "date line": (12.0, 181.0), "pole": (89.9, 33.0)}


@pytest.fixture(scope="module")
def forecast(tmp_path_factory) -> str:
    return write(forecast_dataset(), tmp_path_factory.mktemp("forecast") / "forecast.zarr")


def table(components: bool = True, seed: int = 0) -> pd.DataFrame:
    """Observations of all stations at all valid times of two initial times, and at one hour that no forecast has."""
    random = np.random.default_rng(seed)
    times = np.unique((np.asarray(STARTS)[:2, None] + np.asarray(LEADS)).ravel())
    times = np.append(times, times[-1] + np.timedelta64(1, "h"))
    rows = [(str(time)[:16], name, *place) for time in times for name, place in STATIONS.items()]
    frame = pd.DataFrame(rows, columns=["time", "station", "latitude", "longitude"])
    u, v = random.normal(0, 8, (2, len(frame)))
    frame["units"] = "m/s"
    return frame.assign(u=u, v=v) if components else frame.assign(speed=np.hypot(u, v))


def test_a_table_in_the_place_of_its_file_is_refused(forecast):
    with pytest.raises(UserError, match=r"^--stations: expected the path of a file, not DataFrame$"):
        wsdcast.score_stations(forecast, table())


def written(frame: pd.DataFrame, path) -> str:
    frame.to_csv(path, index=False)
    return str(path)


def at_station(row: int, lead: int, place: tuple[float, float], **choices) -> dict[str, np.ndarray]:
    """Members of u, v and speed at a place, interpolated by scipy on a grid that wraps around and has no gap at the poles."""
    dataset = forecast_dataset(**choices).isel(time=row, prediction_timedelta=lead)
    members = {}
    for name, component in zip("uv", dataset.data_vars.values(), strict=False):
        field = component.transpose("number", "latitude", "longitude")
        field = field.reindex(latitude=GRID.latitude, longitude=GRID.longitude).values.astype(float)
        longitude = np.append(GRID.longitude, 360.0)
        field = np.concatenate([field, field[..., :1]], axis=-1)[:, ::-1]
        point = [place[0], place[1] % 360]
        members[name] = np.array([RegularGridInterpolator((GRID.latitude[::-1], longitude), member)(point)[0] for member in field])
    return members | {"speed": np.hypot(members["u"], members["v"])}


def pair_scores(members: np.ndarray, truth: float) -> tuple[float, float, float, float, float]:
    count = members.size
    difference = np.abs(members[:, None] - members).sum() / (count * (count - 1))
    error = members.mean() - truth
    variance = members.var(ddof=1)
    return np.abs(members - truth).mean() - difference / 2, error, error**2, error**2 - variance / count, variance


def test_scores_are_those_of_all_pairs_written_out(forecast, tmp_path):
    frame = table()
    summary = wsdcast.score_stations(forecast, written(frame, tmp_path / "stations.csv"), tmp_path / "run")
    scores = xr.open_dataset(tmp_path / "run/station_scores.nc", decode_timedelta=True).load()
    pairs: dict[tuple[str, str, int], list] = {}
    for row, start in enumerate(np.asarray(STARTS)):
        for lead, length in enumerate(np.asarray(LEADS)):
            now = frame[frame["time"] == str(start + length)[:16]]
            for _, observed in now.iterrows():
                members = at_station(row, lead, STATIONS[observed["station"]])
                truth = {"u": observed["u"], "v": observed["v"], "speed": np.hypot(observed["u"], observed["v"])}
                for name in truth:
                    for station in (observed["station"], "all stations"):
                        pairs.setdefault((name, station, lead), []).append(pair_scores(members[name], truth[name]))
    assert pairs
    for (name, station, lead), values in pairs.items():
        at = scores.sel(variable=name, station=station).isel(prediction_timedelta=lead)
        crps, error, squared, debiased, variance = np.mean(values, axis=0)
        assert int(at["pairs"]) == len(values)
        assert float(at["crps_fair"]) == pytest.approx(crps, rel=1e-4)
        assert float(at["bias"]) == pytest.approx(error, rel=1e-3, abs=1e-4)
        assert float(at["rmse"]) == pytest.approx(np.sqrt(squared), rel=1e-4)
        assert float(at["spread"]) == pytest.approx(np.sqrt(variance), rel=1e-4)
        if debiased > 0:
            assert float(at["spread_skill"]) == pytest.approx(np.sqrt(variance / debiased), rel=1e-3)
    assert scores["pairs"].sel(variable="u", station="all stations").sum() == sum(
        len(values) for (name, station, _), values in pairs.items() if (name, station) == ("u", "all stations")
    )
    csv = pd.read_csv(tmp_path / "run/station_scores.csv")
    row = csv[(csv.variable == "speed") & (csv.station == "pole")].iloc[0]
    lead = list((np.asarray(LEADS) / np.timedelta64(1, "h")).astype(int)).index(row.lead_hours)
    expected = scores.sel(variable="speed", station="pole").isel(prediction_timedelta=lead)
    assert row.crps_fair == pytest.approx(float(expected["crps_fair"]), rel=1e-5)
    assert "the wind of one point" in summary.facts["representativeness"]


def test_the_command_prints_the_scores_of_all_stations_by_lead_time(forecast, tmp_path):
    stations, run = written(table(), tmp_path / "stations.csv"), tmp_path / "run"
    result = CliRunner().invoke(app, ["score", forecast, "--stations", stations, "--run", str(run)])
    assert result.exit_code == 0, result.exception
    assert "10 m wind speed at all stations" in result.stdout
    scores = xr.open_dataset(run / "station_scores.nc", decode_timedelta=True).sel(station="all stations", variable="speed")
    for lead in scores["prediction_timedelta"].values:
        at = scores.sel(prediction_timedelta=lead)
        cells = [f"{lead // np.timedelta64(1, 'h')} h", f"{int(at['pairs'])}", f"{float(at['crps_fair']):.3f}", f"{float(at['bias']):+.3f}"]
        cells += [f"{float(at['rmse']):.3f}", f"{float(at['spread_skill']):.2f}"]
        assert any(line.split() == " ".join(cells).split() for line in result.stdout.splitlines()), cells


def test_reliability_counts_every_pair_in_its_bin(tmp_path):
    frame, spread = table(components=False), {"noise": 8.0}  # so large that members are on both sides of the thresholds
    forecast = write(forecast_dataset(**spread), tmp_path / "forecast.zarr")
    wsdcast.score_stations(forecast, written(frame, tmp_path / "stations.csv"), tmp_path / "run")
    scores = xr.open_dataset(tmp_path / "run/station_scores.nc", decode_timedelta=True).load()
    assert list(scores["variable"].values) == ["speed"]
    counts = np.zeros((3, len(THRESHOLDS), 11))
    for row, start in enumerate(np.asarray(STARTS)):
        for lead, length in enumerate(np.asarray(LEADS)):
            for _, observed in frame[frame["time"] == str(start + length)[:16]].iterrows():
                speed = at_station(row, lead, STATIONS[observed["station"]], **spread)["speed"]
                for number, threshold in enumerate(THRESHOLDS):
                    probability = (speed > threshold).mean()
                    counts[:, number, round(10 * probability)] += 1, probability, observed["speed"] > threshold
    together = scores.sel(station="all stations")
    forecasts = together["forecasts"].sum("prediction_timedelta")
    np.testing.assert_array_equal(forecasts, counts[0])
    for name, expected in zip(("mean_forecast", "observed_frequency"), counts[1:], strict=True):
        total = (together[name].fillna(0) * together["forecasts"]).sum("prediction_timedelta")
        np.testing.assert_allclose(total, expected, atol=1e-9)
    assert (counts[1] != counts[0] * np.linspace(0, 1, 11)).any()  # a bin's mean probability need not be its middle
    assert all(field.attrs["long_name"] for field in scores.data_vars.values())


def test_units_positions_and_offsets_of_time_do_not_matter(forecast, tmp_path):
    plain = table(components=False)
    wsdcast.score_stations(forecast, written(plain, tmp_path / "plain.csv"), tmp_path / "plain")
    other = plain.assign(
        speed=plain["speed"] * 3600 / 1852,
        units="knots",
        longitude=plain["longitude"] - np.where(plain["longitude"] > 180, 360, 0),
        time=(pd.to_datetime(plain["time"]) + pd.Timedelta("2h")).dt.strftime("%Y-%m-%dT%H:%M:00+02:00"),
    ).sample(frac=1, random_state=0)
    empty = other.iloc[:1].assign(speed="", time="2031-01-01T00:00:00Z")
    summary = wsdcast.score_stations(forecast, written(pd.concat([other, empty]), tmp_path / "other.csv"), tmp_path / "other")
    assert "1 rows without a value are left out" in summary.facts["stations"]
    ours, theirs = (xr.open_dataset(tmp_path / name / "station_scores.nc", decode_timedelta=True) for name in ("other", "plain"))
    xr.testing.assert_allclose(ours.drop_vars("longitude").drop_attrs(), theirs.drop_vars("longitude").drop_attrs(), rtol=1e-5)


@pytest.mark.parametrize(
    ("units", "metres"),
    [
        *((spelling, 1) for spelling in ("m/s", "m s-1", "m s**-1", "ms-1", "mps", "meter/second", "metres per second", "M S^-1")),
        *((spelling, 1852 / 3600) for spelling in ("kt", "KTS", "kn", "knot", "knots")),
        *((spelling, 1 / 3.6) for spelling in ("km/h", "kmh", "kph", "km h-1")),
        *((spelling, 1609.344 / 3600) for spelling in ("mph", "mi/h")),
        ("cm/s", 0.01),
    ],
)
def test_spellings_of_units(tmp_path, units, metres):
    frame = table(components=False).assign(speed=30.0, units=units)
    values = read_observations(tmp_path / written(frame, tmp_path / "stations.csv")).values["speed"]
    np.testing.assert_allclose(values, 30 * metres, rtol=1e-12)


def test_members_that_were_stopped_are_left_out(tmp_path):
    dataset = forecast_dataset()
    stopped = dataset.where(
        (dataset["number"] != dataset["number"][0]) | (dataset["prediction_timedelta"] < dataset["prediction_timedelta"][1])
    )
    frame = table(components=False)
    stations = written(frame, tmp_path / "stations.csv")
    wsdcast.score_stations(write(stopped, tmp_path / "stopped.zarr"), stations, tmp_path / "stopped")
    fewer = dataset.isel(number=slice(1, None), prediction_timedelta=slice(1, None))
    wsdcast.score_stations(write(fewer, tmp_path / "fewer.zarr"), stations, tmp_path / "fewer")
    ours, theirs = (xr.open_dataset(tmp_path / name / "station_scores.nc", decode_timedelta=True) for name in ("stopped", "fewer"))
    ours = ours.sel(prediction_timedelta=theirs["prediction_timedelta"])
    for name in ("pairs", "crps_fair", "spread", "forecasts"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-6)


def test_what_is_missing_at_one_station_or_lead_time_does_not_count_there_alone(tmp_path):
    """A member without values east of 180, two members stopped at 30 h and a third at 60 h, and one observation less; in two chunks."""
    random = np.random.default_rng(3)
    starts, leads = pd.date_range("2020-02-01", periods=2, freq="12h"), np.arange(6, 66, 6) * np.timedelta64(1, "h")
    u = random.normal(0, 5, (2, 4, leads.size))  # the same everywhere
    u[:, 2:, 4:] = u[:, 1, 9:] = np.nan
    fields = u[..., None, None] + np.zeros(GRID.shape)
    fields[:, 0, ..., GRID.longitude > 180] = np.nan
    dimensions = ("time", "number", "prediction_timedelta", "latitude", "longitude")
    axes = dict(zip(dimensions, (starts, np.arange(4), leads, GRID.latitude, GRID.longitude), strict=True))
    store = write(xr.Dataset(dict.fromkeys(NAMES, (dimensions, fields)), axes), tmp_path / "forecast.zarr")
    times = pd.date_range(starts[0], starts[1] + leads[-1], freq="6h")
    observed = pd.DataFrame({"time": np.repeat(times, 2), "station": ["west", "east"] * times.size, "latitude": 10, "units": "m/s"})
    observed["longitude"] = [20, 200] * times.size
    observed["u"], observed["v"] = random.normal(0, 5, (2, 2 * times.size))
    observed.loc[2 * 3, "u"] = np.nan  # at 18 h
    wsdcast.score_stations(store, written(observed, tmp_path / "stations.csv"), tmp_path / "run")
    scores = xr.open_dataset(tmp_path / "run/station_scores.nc", decode_timedelta=True).load()
    truth = observed[observed["station"] == "west"].set_index("time")[["u", "v"]]
    for number, lead in enumerate(leads):
        alive = 4 if number < 4 else 2 if number < 9 else 1
        members_and_truth = [
            (u[row, :alive, number], truth.loc[start + lead].to_numpy())
            for row, start in enumerate(starts)
            if alive > 1 and truth.loc[start + lead].notna().all()
        ]
        pairs = [pair_scores(members, observation[0]) for members, observation in members_and_truth]
        for station, count in (("west", len(pairs)), ("east", 0), ("all stations", len(pairs))):
            at = scores.sel(variable="u", station=station, prediction_timedelta=lead)
            assert int(at["pairs"]) == count, (station, lead)
            crps, error, squared, _, variance = np.mean(pairs, axis=0) if count else np.full(5, np.nan)
            expected = [crps, error, squared**0.5, variance**0.5]
            np.testing.assert_allclose([at[name] for name in ("crps_fair", "bias", "rmse", "spread")], expected, rtol=1e-4, atol=1e-5)
            counts = np.zeros((3, len(THRESHOLDS), 11))
            for members, observation in members_and_truth if count else ():
                probability = (np.hypot(members, members) > np.array(THRESHOLDS)[:, None]).mean(axis=1)
                occurred = np.hypot(*observation) > THRESHOLDS
                bins = np.rint(10 * probability).astype(int)
                counts[:, range(len(THRESHOLDS)), bins] += np.ones(len(THRESHOLDS)), probability, occurred
            at = scores.sel(station=station, prediction_timedelta=lead)
            np.testing.assert_array_equal(at["forecasts"], counts[0])
            for name, expected in zip(("mean_forecast", "observed_frequency"), counts[1:], strict=True):
                np.testing.assert_allclose((at[name] * at["forecasts"]).fillna(0), expected, atol=1e-9)


@pytest.mark.parametrize("with_dimension", [True, False])
def test_a_deterministic_forecast_scores_its_absolute_error(tmp_path, with_dimension):
    dataset = forecast_dataset()
    path = write(dataset.isel(number=[0]) if with_dimension else dataset.isel(number=0, drop=True), tmp_path / "one.zarr")
    frame = table()
    wsdcast.score_stations(path, written(frame, tmp_path / "stations.csv"), tmp_path / "run")
    scores = xr.open_dataset(tmp_path / "run/station_scores.nc", decode_timedelta=True).load()
    errors: dict[tuple[str, int], list] = {}
    for row, start in enumerate(np.asarray(STARTS)):
        for lead, length in enumerate(np.asarray(LEADS)):
            for _, observed in frame[frame["time"] == str(start + length)[:16]].iterrows():
                error = at_station(row, lead, STATIONS[observed["station"]])["u"][0] - observed["u"]
                for station in (observed["station"], "all stations"):
                    errors.setdefault((station, lead), []).append(error)
    assert errors
    for (station, lead), values in errors.items():
        at = scores.sel(variable="u", station=station).isel(prediction_timedelta=lead)
        assert float(at["crps_fair"]) == pytest.approx(np.abs(values).mean(), rel=1e-4)
        assert float(at["rmse"]) == pytest.approx(np.sqrt(np.mean(np.square(values))), rel=1e-4)
        assert np.isnan(at["spread"])
        assert np.isnan(at["spread_skill"])


@pytest.mark.parametrize(("members", "left", "needed"), [(1, 0, "its member"), (2, 1, "two members")])
def test_a_forecast_without_values_where_there_are_observations_is_named(tmp_path, members, left, needed):
    dataset = forecast_dataset(members)
    path = write(dataset.where(dataset["number"] < left), tmp_path / "nothing.zarr")
    with pytest.raises(UserError, match=f"nothing.zarr has no values of {needed} at a station and time of an observation"):
        wsdcast.score_stations(path, written(table(), tmp_path / "stations.csv"), tmp_path / "run")


def without(column: str):
    return lambda frame: frame.drop(columns=column)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("units"), "has no column units"),
        (lambda frame: frame.assign(Time=frame["time"]), "has the column 'time' twice"),
        (without("latitude"), "has no column latitude"),
        (without("speed"), "has no column speed"),
        (lambda frame: frame.iloc[:0], "has no row"),
        (lambda frame: frame.assign(units="furlongs"), "row 1 has unknown units"),
        (lambda frame: frame.assign(time="yesterday"), "row 1 has no time that can be read"),
        (lambda frame: frame.assign(latitude=91), "row 1 has no position on the globe"),
        (lambda frame: frame.assign(speed=-1.0), "row 1 has no speed that can be read, or a speed outside of 0 to 120 m/s"),
        (lambda frame: frame.assign(speed="calm"), "row 1 has no speed that can be read"),
        (lambda frame: frame.assign(speed=""), "has no value"),
        (lambda frame: pd.concat([frame, frame.iloc[:1]]), "has two observations at"),
        (lambda frame: frame.assign(station="one"), "station 'one' has 3 positions"),
        (lambda frame: frame.assign(time="1990-01-01T05:50").drop_duplicates("station"), "from 1990-01-01T05:50 to 1990-01-01T05:50"),
    ],
)
def test_a_wrong_table_is_one_line(forecast, tmp_path, change, message):
    stations = written(change(table(components=False)), tmp_path / "stations.csv")
    result = CliRunner().invoke(app, ["score", forecast, "--stations", stations, "--run", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_without_a_run_scores_at_stations_are_where_other_scores_of_the_forecast_are(tmp_path, monkeypatch):
    """Those of a NetCDF file were in ``runs/forecast.nc``."""
    dataset = forecast_dataset().isel(time=[0], prediction_timedelta=[0])
    dataset.to_netcdf(tmp_path / "forecast.nc")
    length = np.asarray(LEADS)[0].item()
    write(dataset, tmp_path / "a run" / "forecast.zarr")
    row = {"latitude": 0, "longitude": 0, "units": "m/s", "speed": 5}
    written(pd.DataFrame(row | {"time": dataset["time"].values + length}), tmp_path / "stations.csv")
    monkeypatch.chdir(tmp_path)
    for forecast, run, place in (("forecast.nc", None, "runs/forecast"), ("a run", None, "a run"), ("a run", "b", "b")):
        assert f"{place}/station_scores.nc" in wsdcast.score_stations(forecast, "stations.csv", run).written


def test_only_where_cells_have_a_height_the_summary_says_their_width(tmp_path):
    row = {"time": "2020-02-01T06", "latitude": 45, "longitude": 3, "units": "m/s", "speed": 5}
    stations = written(pd.DataFrame([row]), tmp_path / "stations.csv")
    for rows, width in (([2, 3, 4], " about 1667 km wide"), ([3], "")):  # 15 degrees
        path = write(forecast_dataset().isel(latitude=rows), tmp_path / f"{len(rows)}.zarr")
        summary = wsdcast.score_stations(path, stations, tmp_path / str(len(rows)))
        assert summary.facts["representativeness"].startswith(f"a forecast value is the mean of a cell{width}, and a station")


def test_other_mistakes(forecast, tmp_path, monkeypatch):
    stations = written(table(components=False), tmp_path / "stations.csv")
    with pytest.raises(UserError, match="cannot be read"):
        wsdcast.score_stations(forecast, tmp_path / "absent.csv", tmp_path / "run")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)))
    with pytest.raises(UserError, match=r"cannot be read|has no column"):
        wsdcast.score_stations(forecast, tmp_path / "binary.csv", tmp_path / "run")
    (tmp_path / "binary.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match=r"cannot be read|Parquet needs"):
        wsdcast.score_stations(forecast, tmp_path / "binary.parquet", tmp_path / "run")
    region = write(forecast_dataset().isel(latitude=slice(2, 6), longitude=slice(3, 9)), tmp_path / "region.zarr")
    with pytest.raises(UserError, match="outside"):
        wsdcast.score_stations(region, stations, tmp_path / "run")
    for lost in ("station_scores.nc", "station_scores.csv"):
        wsdcast.score_stations(forecast, stations, tmp_path / "run", overwrite=True)
        (tmp_path / "run" / lost).unlink()
        with pytest.raises(UserError, match="is there already"):
            wsdcast.score_stations(forecast, stations, tmp_path / "run")
    monkeypatch.setattr("wsdcast.runs.resources.free_memory", lambda: 10)
    with pytest.raises(UserError, match="8 lead times of all members needs 120 kB of memory"):
        wsdcast.score_stations(forecast, stations, tmp_path / "new")
    monkeypatch.undo()
    result = CliRunner().invoke(app, ["score", forecast, "--stations", stations, "--truth", forecast])
    assert "--stations scores one FORECAST" in result.stderr
    assert result.exit_code == 2
