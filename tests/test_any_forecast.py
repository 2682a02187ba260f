"""Forecasts of any origin against truth of any origin."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

import commands
import numpy as np
import pytest
import xarray as xr
from servers import serve
from typer.testing import CliRunner

import wsdcast
from wsdcast.cli import app
from wsdcast.data.grid import Grid
from wsdcast.data.sources.file_lock import FILE_LOCK
from wsdcast.data.sources.foreign_forecasts import open_forecast
from wsdcast.report.figures import at_scored_leads
from wsdcast.report.page import write_report
from wsdcast.runs.errors import UserError
from wsdcast.verification.bootstrap import blocks_in_words
from wsdcast.verification.truth import open_truth
from wsdcast.weather.stages import score_output

NAMES = ("10m_u_component_of_wind", "10m_v_component_of_wind")
GRID = Grid.regular("24x13")
LEADS = np.array([6, 12, 24], "timedelta64[h]").astype("timedelta64[ns]")
STARTS = np.datetime64("2020-02-01", "ns") + np.arange(6) * np.timedelta64(24, "h")


def weather(times: np.ndarray) -> np.ndarray:
    """Waves that travel, (time, channel, latitude, longitude), m/s."""
    random = np.random.default_rng(3)
    hours = (times - np.datetime64("2020-01-01")) / np.timedelta64(1, "h")
    east, north = np.deg2rad(GRID.longitude), np.deg2rad(GRID.latitude)[:, None]
    wind = np.zeros((times.size, 2, *GRID.shape))
    for channel in range(2):
        for k in range(1, 7):
            for _ in range(4):
                phase, speed, slope, size = random.uniform(0, 6, 4)
                moving = k * east + slope * np.sin(north) + phase - hours[:, None, None] * 0.03 * (1 + speed)
                wind[:, channel] += size * np.cos(moving) * np.cos(north) ** (1 + speed) * (1 + np.sin(north) / 2)
    return wind.astype(np.float32)


def truth_dataset(times: np.ndarray | None = None) -> xr.Dataset:
    times = np.datetime64("2020-01-20", "ns") + np.timedelta64(6, "h") * np.arange(120) if times is None else times
    dimensions = ("time", "latitude", "longitude")
    coordinates = {"time": times, "latitude": GRID.latitude, "longitude": GRID.longitude}
    fields = weather(times)
    return xr.Dataset({name: (dimensions, fields[:, channel], {"units": "m/s"}) for channel, name in enumerate(NAMES)}, coordinates)


def forecast_dataset(members: int = 4, noise: float = 0.8, seed: int = 0) -> xr.Dataset:
    true = np.stack([weather(start + LEADS) for start in STARTS])
    random = np.random.default_rng(seed)
    fields = true[:, None] + noise * random.standard_normal((STARTS.size, members, *true.shape[1:])).astype(np.float32)
    dimensions = ("time", "number", "prediction_timedelta", "latitude", "longitude")
    coordinates = {
        "time": STARTS,
        "number": np.arange(members),
        "prediction_timedelta": LEADS,
        "latitude": GRID.latitude,
        "longitude": GRID.longitude,
    }
    return xr.Dataset({name: (dimensions, fields[:, :, :, channel]) for channel, name in enumerate(NAMES)}, coordinates)


def write(dataset: xr.Dataset, path: Path) -> str:
    dataset.to_zarr(path, zarr_format=2, consolidated=True)
    return str(path)


@pytest.fixture(scope="module", autouse=True)
def without_the_page():
    """Leave out the page, which takes longer than the scores. One test writes it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(score_output, "write_report", lambda path, *arguments, **more: path.write_text("page"))
        yield


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> str:
    return write(truth_dataset(), tmp_path_factory.mktemp("truth") / "truth.zarr")


@pytest.fixture(scope="module")
def scored(truth, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("scored")
    wsdcast.score_forecast(write(forecast_dataset(), directory / "model.zarr"), truth, directory / "run")
    return directory / "run"


def test_paths_may_be_path_objects_and_what_is_odd_about_the_truth_is_said(scored, tmp_path):
    means = truth_dataset()
    for name in NAMES:
        means[name].attrs["cell_methods"] = "time: mean"
    summary = wsdcast.score_forecast(scored.parent / "model.zarr", Path(write(means, tmp_path / "means.zarr")), tmp_path / "run")
    words = "is the mean over an interval (cell_methods), not the value at its time"
    assert summary.facts["notes"] == "; ".join(f"{name} {words}" for name in NAMES)
    xr.testing.assert_identical(*(opened_scores(run).drop_attrs() for run in (tmp_path / "run", scored)))
    assert not (scored.parent / "model.zarr/scores.nc").exists()


refuses = partial(commands.refused, "score")


def opened_scores(run: Path) -> xr.Dataset:
    with xr.open_dataset(run / "scores.nc", decode_timedelta=True) as scores:
        return scores.load()


def test_scores_of_a_store_equal_their_definitions(scored):
    scores = opened_scores(scored)
    forecast, weights = forecast_dataset(), GRID.area_weights[:, None] / GRID.longitude.size / GRID.latitude.size
    assert list(scores["forecast"].values) == ["model", "persistence", "climatology", "climatological mean"]
    ours = scores.sel(forecast="model", region="globe", variable=NAMES[1])
    for lead, delta in enumerate(LEADS):
        members = forecast[NAMES[1]].values[:, :, lead]
        true = np.stack([weather(start + LEADS)[lead, 1] for start in STARTS])
        pairs = np.abs(members[:, :, None] - members[:, None]).sum(axis=(1, 2)) / (2 * 4 * 3)
        crps = np.abs(members - true[:, None]).mean(axis=1) - pairs
        expected = (crps * weights).sum(axis=(1, 2)).mean()
        assert float(ours["crps_fair"].sel(prediction_timedelta=delta)) == pytest.approx(expected, rel=1e-6)
        stays = np.abs(weather(STARTS)[:, 1] - true)
        persistence = scores["crps_fair"].sel(forecast="persistence", region="globe", variable=NAMES[1], prediction_timedelta=delta)
        assert float(persistence) == pytest.approx((stays * weights).sum(axis=(1, 2)).mean(), rel=1e-6)
        usual = scores["rmse"].sel(forecast="climatological mean", region="globe", variable=NAMES[1], prediction_timedelta=delta)
        past = weather(np.arange(np.datetime64("2020-01-20"), STARTS[0], np.timedelta64(6, "h")))[:, 1].mean(axis=0)  # before all forecasts
        assert float(usual) == pytest.approx((((past - true) ** 2 * weights).sum(axis=(1, 2)).mean()) ** 0.5, rel=1e-5)
    assert (scores["pairs"] == STARTS.size).all()
    assert (scored / "scores.csv").exists()
    np.testing.assert_allclose(scores["wavelength_of_wavenumber"][1:3], 2 * np.pi * 6367.5 / np.array([1, 2]))
    np.testing.assert_allclose(scores["wavelength_of_degree"][1:3], 2 * np.pi * 6367.5 / np.sqrt([2, 6]))


def test_the_page_is_of_the_forecast(truth, tmp_path, monkeypatch):
    monkeypatch.setattr(score_output, "write_report", write_report)
    wsdcast.score_forecast(write(forecast_dataset(), tmp_path / "model.zarr"), truth, tmp_path / "run")
    page = (tmp_path / "run/report.html").read_text()
    assert "Ensemble forecast of 10 m wind: model" in page
    assert ">Recipe<" not in page
    assert "6, 2020-02-01 00 UTC to 2020-02-06 00 UTC" in page


def turned(dataset: xr.Dataset) -> xr.Dataset:
    """Longitude first, latitude from the south, longitudes from -180, other names, and the analysis at lead time 0."""
    analysis = dataset.isel(prediction_timedelta=[0]).assign_coords(prediction_timedelta=[np.timedelta64(0, "ns")])
    whole = xr.concat([analysis, dataset], dim="prediction_timedelta")
    whole = whole.assign_coords(longitude=(whole.longitude + 180) % 360 - 180).sortby("longitude").sortby("latitude")
    whole = whole.transpose("longitude", "latitude", "prediction_timedelta", "number", "time")
    return whole.rename(number="sample", latitude="lat", longitude="lon", prediction_timedelta="lead_time", time="init_time")


def test_order_and_names_of_dimensions_do_not_matter(scored, truth, tmp_path):
    reversed_truth = write(truth_dataset().transpose("time", "longitude", "latitude").sortby("latitude"), tmp_path / "truth.zarr")
    store = write(turned(forecast_dataset()), tmp_path / "model.zarr")
    wsdcast.score_forecast(store, reversed_truth, tmp_path / "run")
    ours, theirs = opened_scores(tmp_path / "run"), opened_scores(scored)
    xr.testing.assert_allclose(ours.drop_attrs(), theirs.drop_attrs(), rtol=1e-6)


def test_a_forecast_without_members_is_one_member(truth, tmp_path):
    alone = forecast_dataset().isel(number=0, drop=True).isel(time=[0])
    wsdcast.score_forecast(write(alone, tmp_path / "one.zarr"), truth, tmp_path / "run")
    scores = opened_scores(tmp_path / "run").sel(forecast="one", region="globe", variable=NAMES[0])
    true = weather(STARTS[:1] + LEADS[2])[0, 0]
    error = np.abs(alone[NAMES[0]].values[0, 2] - true)
    assert float(scores["crps_fair"][2]) == pytest.approx((error.mean(axis=1) * GRID.area_weights).mean(), rel=1e-6)
    assert np.isnan(scores["spread_skill"]).all()


def test_missing_truth_drops_the_pair_for_all_and_is_counted(scored, tmp_path):
    lost = STARTS[5] + LEADS[2]
    source = truth_dataset()
    source[NAMES[0]].loc[{"time": lost, "latitude": 0}] = np.nan
    without = write(source.drop_sel(time=STARTS[4] + LEADS[1]), tmp_path / "truth.zarr")
    summary = wsdcast.score_forecast(write(forecast_dataset(), tmp_path / "model.zarr"), without, tmp_path / "run")
    assert summary.facts["dropped"].startswith("2 of 18 initial and lead times")
    scores, whole = opened_scores(tmp_path / "run"), opened_scores(scored)
    assert scores["pairs"].values.tolist() == [6, 5, 5]
    kept = whole["crps_fair_by_start"].isel(time=slice(0, 5), prediction_timedelta=2).mean("time")
    for name in ("model", "persistence"):
        np.testing.assert_allclose(scores["crps_fair"].isel(prediction_timedelta=2).sel(forecast=name), kept.sel(forecast=name), rtol=1e-6)
    assert np.isfinite(scores["crps_fair_interval"].sel(region="globe", variable="both")).all()


def test_lead_times_without_scores_are_not_shown(scored, tmp_path):
    """Such as every other lead time of a three-hourly forecast against six-hourly truth."""
    scores = opened_scores(scored)
    for name in ("crps_fair", "crps_fair_by_start"):
        scores[name][{"prediction_timedelta": 0}] = np.nan
    scores.to_netcdf(tmp_path / "fewer.nc")
    np.testing.assert_array_equal(at_scored_leads(scores)["prediction_timedelta"], LEADS[1:])
    assert [row["lead_hours"] for row in score_output.table(scores)] == [12, 24]
    assert [row["lead_hours"] for row in wsdcast.score_pair(tmp_path / "fewer.nc", scored).scores[::3]] == [12, 24]
    scores["crps_fair_by_start"] *= np.nan
    scores.to_netcdf(tmp_path / "none.nc")
    assert "no initial and lead time in common at which both have scores" in refuses(scored, tmp_path / "none.nc")


def test_missing_members_are_left_out_where_they_are_missing(truth, tmp_path):
    forecast = forecast_dataset()
    forecast[NAMES[1]][1, 3, 1:] = np.nan
    wsdcast.score_forecast(write(forecast, tmp_path / "model.zarr"), truth, tmp_path / "run")
    fewer = forecast_dataset().isel(number=[0, 1, 2])
    wsdcast.score_forecast(write(fewer, tmp_path / "fewer.zarr"), truth, tmp_path / "other")
    with_gap, without_member = (opened_scores(tmp_path / name).isel(forecast=0) for name in ("run", "other"))
    np.testing.assert_allclose(with_gap["crps_fair_by_start"][1, 1:], without_member["crps_fair_by_start"][1, 1:], rtol=1e-6)
    assert np.isnan(with_gap["rank_histogram_by_start"][1, 1:]).all()
    assert np.isfinite(with_gap["rank_histogram_by_start"].sel(region="globe", variable=[*NAMES])[1, 0, :, :5]).all()


def test_bad_forecasts_are_scored_as_worse_and_not_refused(scored, truth, tmp_path):
    """The bad forecasts are the initial state at all lead times, the forecast of another week, and noise."""
    good = score_output.table(opened_scores(scored))
    stays = forecast_dataset()
    for channel, name in enumerate(NAMES):
        stays[name][:] = weather(STARTS)[:, None, None, channel]
    week = forecast_dataset().assign_coords(time=STARTS + np.timedelta64(5, "D"))
    noise = forecast_dataset() * 0 + np.random.default_rng(0).standard_normal((6, 4, 3, *GRID.shape))
    for number, store in enumerate((stays, week, noise)):
        summary = wsdcast.score_forecast(write(store, tmp_path / f"{number}.zarr"), truth, tmp_path / str(number))
        assert "dropped" not in summary.facts
        for bad, better in zip(summary.scores, good, strict=True):
            assert bad[f"crps_fair: {number}"] > better["crps_fair: model"]


def test_other_grids_and_other_stores_are_refused(truth, tmp_path):
    moved = forecast_dataset().assign_coords(longitude=GRID.longitude + 7.5)
    line = refuses(write(moved, tmp_path / "a.zarr"), "--truth", truth, "--run", tmp_path / "run")
    assert "24x13 from 90 N, 7.5 E" in line
    no_wind = forecast_dataset().rename({NAMES[0]: "gust"})
    assert "has no 10m_u_component_of_wind" in refuses(write(no_wind, tmp_path / "b.zarr"), "--truth", truth, "--run", tmp_path / "run")
    flat = forecast_dataset().isel(prediction_timedelta=0, drop=True)
    assert "no coordinate 'prediction_timedelta'" in refuses(write(flat, tmp_path / "c.zarr"), "--truth", truth, "--run", tmp_path / "run")
    in_kelvin = forecast_dataset()
    in_kelvin[NAMES[0]].attrs["units"] = "K"
    assert "units 'K'" in refuses(write(in_kelvin, tmp_path / "d.zarr"), "--truth", truth, "--run", tmp_path / "run")
    late = forecast_dataset().assign_coords(time=STARTS + np.timedelta64(999, "D"))
    line = refuses(write(late, tmp_path / "e.zarr"), "--truth", truth, "--run", tmp_path / "run")
    assert "no truth for any initial time" in line
    (tmp_path / "words.txt").write_text("no weather")
    line = refuses(tmp_path / "a.zarr", "--truth", tmp_path / "words.txt", "--run", tmp_path / "run")
    assert line.count(str(tmp_path / "words.txt")) == 1
    assert "neither NetCDF nor GRIB" in line
    for name in (tmp_path / "a.zarr", tmp_path / "?.zarr", "wb2:gencast", "gs://bucket/a.zarr"):
        assert refuses(name).endswith(f"{name}: give its truth with --truth SOURCE\n")
    assert "planet: no such forecast; a run directory is given as --run, a recipe as --recipe" in refuses("planet")
    (tmp_path / "run/analysis.zarr").mkdir(parents=True)
    line = refuses(tmp_path / "run")
    assert f"its own record is the truth with wsdcast score --run {tmp_path / 'run'}; other analyses need --truth SOURCE" in line
    line = refuses(tmp_path / "nothing.zarr", "--truth", truth)
    assert f"{tmp_path / 'nothing.zarr'}: no such forecast; expected a store, or a run directory with a forecast.zarr" in line


@pytest.mark.parametrize("name", ["climatological mean", "moments, past errors"])
def test_a_store_that_is_called_like_a_baseline_keeps_its_own_scores(name, scored, truth, tmp_path):
    shutil.copytree(scored.parent / "model.zarr", tmp_path / f"{name}.zarr")
    summary = wsdcast.score_forecast(tmp_path / f"{name}.zarr", truth, tmp_path / "run")
    ours, theirs = opened_scores(tmp_path / "run"), opened_scores(scored)
    assert ours["forecast"].values.tolist() == [f"{name} (store)", *theirs["forecast"].values[1:]]
    xr.testing.assert_identical(*(scores.drop_vars("forecast").drop_attrs() for scores in (ours, theirs)))
    assert f"crps_fair: {name} (store)" in summary.scores[0]


def test_scores_of_another_forecast_are_not_replaced(scored, truth, tmp_path):
    store = write(forecast_dataset(seed=5), tmp_path / "other.zarr")
    before = (scored / "scores.nc").read_bytes()
    assert "scores.nc is of another forecast;" in refuses(store, "--truth", truth, "--run", scored)
    same = opened_scores(scored).attrs["forecast"]
    assert f"scores.nc is of another truth ({truth});" in refuses(same, "--truth", store, "--run", scored)
    assert (scored / "scores.nc").read_bytes() == before


@pytest.mark.slow
def test_a_cluster_gives_the_same(scored, truth, tmp_path):
    store = str(scored.parent / "model.zarr")
    wsdcast.score_forecast(store, truth, tmp_path / "run", workers=1)
    ours, theirs = opened_scores(tmp_path / "run"), opened_scores(scored)
    xr.testing.assert_identical(ours.drop_attrs(), theirs.drop_attrs())


def test_two_forecasts_compared(scored, truth, tmp_path):
    store = write(forecast_dataset(noise=1.2, seed=1).isel(time=slice(1, 6)), tmp_path / "worse.zarr")
    wsdcast.score_forecast(store, truth, tmp_path / "worse")
    compared = wsdcast.score_pair(scored, tmp_path / "worse")
    assert "scores below" not in compared.facts  # the 10 m wind alone
    assert "members" not in compared.facts
    assert compared.facts["initial times in common"] == 5
    assert compared.facts["intervals"] == blocks_in_words(STARTS[1:], LEADS[-1])
    rows = compared.scores
    first, second = opened_scores(scored), opened_scores(tmp_path / "worse")
    row = next(row for row in rows if row["metric"] == "crps_fair" and row["lead_hours"] == 12)
    kept = {"variable": "both", "region": "globe", "prediction_timedelta": np.timedelta64(12, "h")}
    by_start = [scores["crps_fair_by_start"].isel(forecast=0).sel(**kept) for scores in (first, second)]
    assert row["starts"] == 5
    assert row["difference"] == pytest.approx(float(by_start[0][1:].mean() - by_start[1].mean()))
    low, high = row["interval"]
    assert low < row["difference"] < high < 0
    assert row["p"] == pytest.approx(2 ** (1 - 5 / 2))  # better on all five days, but these are only two and a half blocks
    same = wsdcast.score_pair(scored, scored / "scores.nc").scores
    assert all(row["difference"] == 0 and row["p"] == 1 and row["interval"] == [0, 0] for row in same)
    done = CliRunner().invoke(app, ["score", str(scored), str(tmp_path / "worse"), "--json"])
    assert json.loads(done.stdout)["scores"] == rows


def test_ensembles_of_different_size_are_named_where_they_are_compared(scored, truth, tmp_path):
    store = write(forecast_dataset(members=3), tmp_path / "smaller.zarr")
    (tmp_path / "smaller").mkdir()
    xr.Dataset(attrs={"forecast": store, "truth": "another"}).to_netcdf(tmp_path / "smaller/scores.nc")
    assert "scores.nc is of another truth (another)" in refuses(store, "--truth", truth, "--run", tmp_path / "smaller")
    wsdcast.score_forecast(store, truth, tmp_path / "smaller", overwrite=True)
    facts = wsdcast.score_pair(tmp_path / "smaller", scored).facts
    assert facts["members"] == "3 and 4: fewer make RMSE, standard CRPS, Brier and variogram score larger, not fair CRPS and energy score"
    assert (facts["first"], facts["second"]) == (f"{tmp_path / 'smaller'}: smaller", f"{scored}: model")


def test_a_difference_below_rounding_is_none(truth, tmp_path):
    """Errors that are all smaller by a share: of 3e-7, as float32 rounds fields, it means nothing; of 1e-4 p is the least of two blocks."""
    true = np.stack([weather(start + LEADS) for start in STARTS])
    shares = {"a": 0, "b": 3e-7, "c": 1e-4}
    for name, share in shares.items():
        store = forecast_dataset().astype(np.float64)
        for channel, field in enumerate(store.data_vars.values()):
            field -= share * (field - true[:, None, :, channel])
        wsdcast.score_forecast(write(store, tmp_path / f"{name}.zarr"), truth, tmp_path / name)
    for name, p in (("b", 1), ("c", 0.5)):
        for row in wsdcast.score_pair(tmp_path / "a", tmp_path / name).scores:
            assert row["difference"] == pytest.approx(shares[name] * row["first"], rel=0.5, abs=1e-8)
            assert row["p"] == p


def test_comparisons_that_would_mean_nothing_are_refused(scored, tmp_path):
    other = truth_dataset()
    for name in NAMES:
        other[name] *= 1.001
    store = str(scored.parent / "model.zarr")
    wsdcast.score_forecast(store, write(other, tmp_path / "truth.zarr"), tmp_path / "run")
    line = refuses(scored, tmp_path / "run")
    assert "different truth" in line
    assert "score both with the same --truth, such as RUN/analysis.zarr" in line
    assert "is not there" in refuses(scored, tmp_path / "nowhere")
    (tmp_path / "broken.nc").write_bytes(b"no")
    assert "cannot be read as scores" in refuses(scored, tmp_path / "broken.nc")
    (tmp_path / "run/scores.nc").write_bytes(b"")
    with pytest.raises(UserError, match=r"run/scores.nc: cannot be read as scores \("):
        wsdcast.score_forecast(store, tmp_path / "truth.zarr", tmp_path / "run")


def test_truth_is_read_where_it_is_there(truth, tmp_path):
    source = open_truth(truth, tmp_path, np.datetime64("2020-02-01", "ns"))
    times = np.array(["2020-01-21T06", "1999-01-01", "2020-01-20T12"], "datetime64[ns]")
    wind = source.at(times)
    np.testing.assert_array_equal(wind[[0, 2]], weather(times[[0, 2]]))
    assert np.isnan(wind[1]).all()
    assert source.past.size == 48


def test_leads_without_units_are_refused(tmp_path):
    store = write(forecast_dataset().assign_coords(prediction_timedelta=[6, 12, 24]), tmp_path / "model.zarr")
    with pytest.raises(UserError, match="no units of time"):
        open_forecast(store)


def test_stores_behind_urls_are_scored_too(scored, truth, tmp_path):
    write(truth_dataset(), tmp_path / "served/truth.zarr")
    write(forecast_dataset(), tmp_path / "served/model.zarr")
    with serve(tmp_path / "served") as (url, handler):
        wsdcast.score_forecast(f"{url}/model.zarr", f"{url}/truth.zarr", tmp_path / "run")
        assert sum(handler.requests.values()) > 10
    ours, theirs = opened_scores(tmp_path / "run"), opened_scores(scored)
    xr.testing.assert_identical(ours.drop_attrs(), theirs.drop_attrs())


@pytest.mark.parametrize("suffix", ["nc", "zarr"])
def test_files_are_read_by_one_thread_at_a_time_and_stores_by_several(suffix, tmp_path):
    forecast, truth = (str(tmp_path / f"{name}.{suffix}") for name in ("model", "truth"))
    for path, dataset in ((forecast, forecast_dataset()), (truth, truth_dataset())):
        dataset.to_netcdf(path) if suffix == "nc" else write(dataset, Path(path))
    opened, analyses = open_forecast(forecast), open_truth(truth, tmp_path, STARTS[0])
    for read in (lambda: opened.read(0), lambda: analyses.at(STARTS), lambda: open_forecast(forecast)):
        with ThreadPoolExecutor(1) as thread:
            with FILE_LOCK:
                pending = thread.submit(read)
                done, _ = wait([pending], timeout=0.3 if suffix == "nc" else 60)
            assert bool(done) == (suffix == "zarr")
            pending.result()
