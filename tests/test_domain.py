"""Forecasts of a part of the globe (land masked out, a region) are scored where they and the truth have values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import test_any_forecast
import xarray as xr
from test_any_forecast import GRID, LEADS, NAMES, STARTS, forecast_dataset, opened_scores, refuses, truth_dataset, weather, write
from typer.testing import CliRunner

import wsdcast
from wsdcast.cli import app
from wsdcast.data.grid import Grid
from wsdcast.data.regrid import regrid
from wsdcast.data.sources.foreign_forecasts import open_forecast
from wsdcast.data.variables import DEFAULT
from wsdcast.report.page import write_report
from wsdcast.report.shown_fields import choose, read_shown
from wsdcast.report.subjects import WIND
from wsdcast.verification.metrics import LAGS, PROBABILITIES, THRESHOLDS
from wsdcast.verification.regions import REGIONS
from wsdcast.verification.scoring import statistics_of
from wsdcast.verification.truth import Truth, truth_on_grid
from wsdcast.weather.stages import score_output

LAND = (np.random.default_rng(1).random(GRID.shape) < 0.3) | (GRID.longitude < 40)
"""Africa, Europe and islands of one cell."""


@pytest.fixture(scope="module", autouse=True)
def without_the_page():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(score_output, "write_report", lambda path, *arguments, **more: path.write_text("page"))
        yield


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> str:
    return write(truth_dataset(), tmp_path_factory.mktemp("truth") / "truth.zarr")


def cells(name: str) -> np.ndarray:
    """Return which cells of the grid are in a region."""
    (south, north), (west, east) = REGIONS[name]
    rows = (GRID.latitude >= south) & (GRID.latitude <= north)
    rows &= np.abs(GRID.latitude) > 20 if "extratropics" in name else True
    return rows[:, None] & ((GRID.longitude - west) % 360 <= east - west)


def pair_mean(values: np.ndarray) -> np.ndarray:
    """Return the mean absolute difference of distinct pairs along the first axis."""
    count = len(values)
    return np.abs(values[:, None] - values[None]).sum(axis=(0, 1)) / (count * (count - 1))


def defined_scores(members: np.ndarray, true: np.ndarray, part: np.ndarray) -> dict[str, np.ndarray]:
    """Return the scores of one lead time over the points of ``part`` by their definitions.

    Members are (member, channel, latitude, longitude), the truth is (channel, latitude, longitude).
    """
    members, true = (np.concatenate([w, np.hypot(w[..., :1, :, :], w[..., 1:, :, :])], axis=-3).astype(float) for w in (members, true))
    area = np.broadcast_to(GRID.area_weights[:, None], GRID.shape)[part]
    area = area / area.sum()
    x, y = members[..., part], true[..., part]
    pairs = pair_mean(x)
    first_error = np.abs(x - y).mean(axis=0)
    mean = x.mean(axis=0)
    scores = {
        "crps_fair": ((first_error - pairs / 2) * area).sum(-1),
        "crps_standard": ((first_error - pairs / 2 * (len(x) - 1) / len(x)) * area).sum(-1),
        "squared_error": ((mean - y) ** 2 * area).sum(-1),
        "variance": (x.var(axis=0, ddof=1) * area).sum(-1),
        "squared_error_debiased": (((mean - y) ** 2 - x.var(axis=0, ddof=1) / len(x)) * area).sum(-1),
        "bias": ((mean - y) * area).sum(-1),
    }
    below = (x < y).sum(axis=0)
    scores["rank_histogram"] = np.stack([((below == rank) * area).sum(-1) for rank in range(len(x) + 1)], axis=-1)

    def norm(difference: np.ndarray) -> np.ndarray:
        return np.sqrt((difference[..., :2, :] ** 2 * area).sum(axis=(-2, -1)))

    between = [norm(one - other) for n, one in enumerate(x) for other in x[n + 1 :]]
    scores["energy_score"] = np.array(norm(x - y).mean() - np.mean(between) / 2)
    variogram = []
    for lag in LAGS:
        total, weight = np.zeros(3), 0.0
        for row, column in np.argwhere(part):
            east = (column + lag) % GRID.shape[1]
            if LAND[row, east]:
                continue
            difference = np.sqrt(np.abs(members[..., row, east] - members[..., row, column])).mean(axis=0)
            total += GRID.area_weights[row] * (np.sqrt(np.abs(true[..., row, east] - true[..., row, column])) - difference) ** 2
            weight += GRID.area_weights[row]
        variogram.append(total / weight if weight else total * np.nan)
    scores["variogram_score"] = np.stack(variogram, axis=-1)
    chance = np.stack([(x[:, 2] > threshold).mean(axis=0) for threshold in THRESHOLDS])
    happened = np.stack([y[2] > threshold for threshold in THRESHOLDS])
    scores["brier_score"] = ((chance - happened) ** 2 * area).sum(-1)
    bins = np.rint(chance * (PROBABILITIES.size - 1)).astype(int)
    weighted = np.stack([np.ones_like(chance), chance, happened], axis=-1) * area[:, None]
    scores["reliability"] = np.stack([(weighted * (bins == number)[..., None]).sum(axis=1) for number in range(PROBABILITIES.size)], axis=1)
    return scores


def random_winds(members: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return 8 * random.standard_normal((members, 2, 2, *GRID.shape)), 8 * random.standard_normal((2, 2, *GRID.shape))


def masked(fields: np.ndarray, nan: float = np.nan) -> np.ndarray:
    return np.where(LAND, nan, fields)


@pytest.mark.parametrize(("of_forecast", "of_truth"), [(True, True), (True, False), (False, True)])
def test_scores_use_the_points_where_forecast_and_truth_have_values(of_forecast, of_truth):
    ensemble, true = random_winds(5)
    statistics = statistics_of(masked(ensemble) if of_forecast else ensemble, masked(true) if of_truth else true, GRID, ~LAND)
    for region in REGIONS:
        part = cells(region) & ~LAND
        regional = statistics.sel(region=region)
        if not part.any():
            assert region == "Europe"
            assert all(np.isnan(field).all() for field in regional.data_vars.values())
            continue
        for lead in range(2):
            for name, value in defined_scores(ensemble[:, lead], true[lead], part).items():
                np.testing.assert_allclose(regional[name][lead], value, rtol=1e-9, atol=1e-12, err_msg=f"{name} {region}")
    for name in ("power", "power_truth", "kinetic_energy", "kinetic_energy_truth"):
        assert np.isnan(statistics[name]).all()


def test_a_member_with_a_gap_in_the_scored_part_is_left_out():
    ensemble, true = random_winds(4)
    row, column = np.argwhere(~LAND)[7]
    ensemble[2, 1, 0, row, column] = np.nan
    statistics = statistics_of(masked(ensemble), true, GRID, ~LAND)
    without_it = statistics_of(masked(ensemble[[0, 1, 3], 1:]), true[1:], GRID, ~LAND)
    np.testing.assert_array_equal(statistics["crps_fair"][1], without_it["crps_fair"][0])
    assert np.isfinite(statistics["rank_histogram"].sel(region="globe")[0]).all()
    assert np.isnan(statistics["rank_histogram"][1]).all()


def test_scores_of_a_part_with_all_points_equal_those_of_the_globe():
    ensemble, true = random_winds(3)
    whole, part = statistics_of(ensemble, true, GRID), statistics_of(ensemble, true, GRID, np.ones(GRID.shape, dtype=bool))
    wavy = [name for name in whole if "power" in name or "kinetic" in name]
    xr.testing.assert_identical(whole.drop_vars(wavy), part.drop_vars(wavy))


def expected(part: np.ndarray, lead: int, name: str = "crps_fair", starts: slice = slice(None), store: xr.Dataset | None = None) -> float:
    """Return the mean of a score over u, v and initial times."""
    store = forecast_dataset() if store is None else store
    values = []
    for number in range(STARTS.size)[starts]:
        members = np.stack([store[field].values[number, :, lead] for field in NAMES], axis=1)
        values.append(defined_scores(members, weather(STARTS[number] + LEADS)[lead], part)[name][:2].mean())
    return float(np.mean(values))


SHARE = float((GRID.area_weights[:, None] * ~LAND).mean())


@pytest.mark.parametrize("which", ["forecast", "truth", "both"])
def test_a_masked_store_is_scored_where_both_have_values(which, truth, tmp_path):
    ours, true = forecast_dataset(), truth_dataset()
    ours = ours.where(~LAND) if which != "truth" else ours
    source = truth if which == "forecast" else write(true.where(~LAND), tmp_path / "truth.zarr")
    summary = wsdcast.score_forecast(write(ours, tmp_path / "model.zarr"), source, tmp_path / "run")
    scores = opened_scores(tmp_path / "run")
    crps = scores["crps_fair"].sel(variable="both")
    for region in ("globe", "tropics", "North America"):
        for lead in range(LEADS.size):
            value = expected(cells(region) & ~LAND, lead)
            assert float(crps.sel(forecast="model", region=region)[lead]) == pytest.approx(value, rel=1e-5)
    stays = np.abs(weather(STARTS) - weather(STARTS + LEADS[0])).mean(axis=(0, 1))
    area = (GRID.area_weights[:, None] * ~LAND) / (GRID.area_weights[:, None] * ~LAND).sum()
    assert float(crps.sel(forecast="persistence", region="globe")[0]) == pytest.approx((stays * area).sum(), rel=1e-5)
    assert np.isfinite(crps.sel(forecast=["climatology", "climatological mean"], region="globe")).all()
    assert (scores["pairs"] == STARTS.size).all()
    assert "dropped" not in summary.facts
    assert scores.attrs["share_of_globe"] == pytest.approx(SHARE)
    words = f"{100 * SHARE:.3g} % of the globe, where forecast and truth have values; no point in Europe; spectra and kinetic energy need"
    assert scores.attrs["scored_on"].startswith(words)
    assert summary.facts["scored on"] == scores.attrs["scored_on"]
    assert not [name for row in summary.scores for name in row if "power" in name]
    assert np.isnan(scores["power_ratio"]).all()


def test_the_part_is_that_of_the_initial_times_with_truth(tmp_path):
    """Only the second of six has truth, which was none of those that were read."""
    past, valid = STARTS[0] - np.arange(20, 4, -1) * np.timedelta64(6, "h"), STARTS[1] + LEADS[:2]
    truth = write(truth_dataset(np.concatenate([past, valid])), tmp_path / "truth.zarr")
    wsdcast.score_forecast(write(forecast_dataset().where(~LAND), tmp_path / "model.zarr"), truth, tmp_path / "run")
    scores = opened_scores(tmp_path / "run")
    assert scores["pairs"].values.tolist() == [1, 1, 0]
    assert scores.attrs["share_of_globe"] == pytest.approx(SHARE)


def test_the_part_is_found_where_each_second_valid_time_has_truth(tmp_path, monkeypatch):
    """Of initial times and lead times each 6 h, and truth of 00 and 12 UTC, those that were read had no truth together."""
    steps = np.arange(7) * np.timedelta64(6, "h")
    monkeypatch.setattr(test_any_forecast, "STARTS", STARTS[0] + steps)
    monkeypatch.setattr(test_any_forecast, "LEADS", LEADS[0] + steps)
    true = truth_dataset().isel(time=slice(None, None, 2)).where(~LAND)
    model = write(forecast_dataset(), tmp_path / "model.zarr")
    wsdcast.score_forecast(model, write(true, tmp_path / "truth.zarr"), tmp_path / "run")
    assert opened_scores(tmp_path / "run").attrs["share_of_globe"] == pytest.approx(SHARE)


def test_a_lost_chunk_stays_a_gap(truth, tmp_path):
    """Missing are half of the fields of one initial time, of one member of another, and all fields of a third."""
    for number, store in enumerate((forecast_dataset(), forecast_dataset().where(~LAND))):
        for name in NAMES:
            store[name][0, :, :, :, 12:] = np.nan
            store[name][2, 1, :, :, 12:] = np.nan
            store[name][5] = np.nan
        summary = wsdcast.score_forecast(write(store, tmp_path / f"{number}.zarr"), truth, tmp_path / str(number))
        assert summary.facts["dropped"].startswith("6 of 18 initial and lead times")
        assert ("scored on" in summary.facts) is bool(number)
        crps = opened_scores(tmp_path / str(number))["crps_fair_by_start"].isel(forecast=0).sel(region="globe", variable="both")
        assert np.isnan(crps[[0, 5]]).all()
        part = ~LAND if number else np.ones(GRID.shape, dtype=bool)
        assert float(crps[1, 0]) == pytest.approx(expected(part, 0, starts=slice(1, 2)), rel=1e-5)
        other_members = forecast_dataset().isel(number=[0, 2, 3])
        assert float(crps[2, 2]) == pytest.approx(expected(part, 2, starts=slice(2, 3), store=other_members), rel=1e-5)


BOXES = {
    "across Greenwich": (slice(2, 8), np.array([20, 21, 22, 23, 0, 1, 2, 3])),
    "without a pole": (slice(0, 12), np.arange(24)),
    "from the north": (slice(0, 5), np.arange(5, 11)),
}


@pytest.mark.parametrize("box", BOXES)
def test_a_region_scores_like_the_globe_with_the_rest_masked(box, truth, tmp_path):
    """Also a region whose longitudes count from -180, and whose latitudes begin in the south."""
    rows, columns = BOXES[box]
    inside = np.zeros(GRID.shape, dtype=bool)
    inside[np.arange(GRID.shape[0])[rows, None], columns] = True
    forecast = forecast_dataset().isel(time=slice(0, 2), prediction_timedelta=slice(0, 2))
    region = forecast.isel(latitude=rows, longitude=columns)
    other_order = region.assign_coords(longitude=(region.longitude + 180) % 360 - 180).isel(latitude=slice(None, None, -1))
    stores = {"whole": forecast.where(inside), "region": region, "other order": other_order}
    for name, store in stores.items():
        wsdcast.score_forecast(write(store, tmp_path / name / "model.zarr"), truth, tmp_path / name)
    whole, *regions = (opened_scores(tmp_path / name) for name in stores)
    for scores in regions:
        xr.testing.assert_identical(scores.drop_attrs(), whole.drop_attrs())
        assert scores.attrs["share_of_globe"] == pytest.approx(float((GRID.area_weights[:, None] * inside).mean()))
    crps = whole["crps_fair"].isel(forecast=0).sel(variable="both", region="globe")
    assert float(crps[1]) == pytest.approx(expected(inside, 1, starts=slice(0, 2)), rel=1e-5)


def test_a_region_between_the_points_of_the_truth_is_refused(truth, tmp_path):
    box = forecast_dataset().isel(latitude=slice(2, 8), longitude=slice(3, 9))
    moved = write(box.assign_coords(longitude=box.longitude + 5), tmp_path / "moved.zarr")
    line = refuses(moved, "--truth", truth, "--run", tmp_path / "run")
    assert "moved.zarr is on a grid of 24x13 from 90 N, 5 E, the truth" in line
    assert "on 24x13 from 90 N, 0 E, which is not finer" in line
    with pytest.raises(wsdcast.runs.errors.UserError, match="not a global grid"):
        open_forecast(moved)


def coarse(dataset: xr.Dataset) -> xr.Dataset:
    """The same wind on a grid of 12x7, regridded conservatively."""
    grid, dimensions = Grid.regular("12x7"), ("latitude", "longitude")
    axes = {"latitude": grid.latitude, "longitude": grid.longitude}
    fields = {name: dataset[name].transpose(..., *dimensions) for name in dataset.data_vars}
    wind = {name: (field.dims, regrid(field.values, GRID, grid), field.attrs) for name, field in fields.items()}
    return xr.Dataset(wind, {name: dataset[name] for name in dataset.coords if name not in dimensions} | axes)


def test_a_truth_on_a_finer_grid_is_regridded_and_one_on_a_coarser_grid_refused(truth, tmp_path):
    forecast = write(coarse(forecast_dataset()), tmp_path / "coarse.zarr")
    coarse_truth = write(coarse(truth_dataset()), tmp_path / "truth.zarr")
    wsdcast.score_forecast(forecast, coarse_truth, tmp_path / "same")
    summary = wsdcast.score_forecast(forecast, truth, tmp_path / "finer")
    assert summary.facts["truth regridded"] == "conservatively, from 24x13 to 12x7"
    ours, theirs = (opened_scores(tmp_path / name) for name in ("finer", "same"))
    xr.testing.assert_allclose(ours.drop_attrs(), theirs.drop_attrs(), rtol=1e-4)
    whole = write(forecast_dataset(), tmp_path / "whole.zarr")
    assert "which is not finer" in refuses(whole, "--truth", coarse_truth, "--run", tmp_path / "run")


@pytest.mark.parametrize("name", ["12x13", "24x7", "12x25"])
def test_a_truth_that_is_finer_along_one_axis_at_most_is_left_as_it_is(name):
    truth = Truth(STARTS, GRID, lambda positions: np.empty(0), np.arange(1))
    assert truth_on_grid(truth, Grid.regular(name)) is truth


@pytest.mark.parametrize("columns", [[10, 11, 0, 1], [3, 4, 5, 6]])
def test_for_a_region_a_finer_truth_is_regridded_too(columns, truth, tmp_path):
    forecast = coarse(forecast_dataset())
    inside = np.zeros((7, 12), dtype=bool)
    inside[1:5, columns] = True
    region = forecast.isel(latitude=slice(1, 5), longitude=columns)
    for name, store in {"whole": forecast.where(inside), "region": region}.items():
        summary = wsdcast.score_forecast(write(store, tmp_path / name / "model.zarr"), truth, tmp_path / name)
        assert summary.facts["truth regridded"] == "conservatively, from 24x13 to 12x7"
    whole, of_region = (opened_scores(tmp_path / name).drop_attrs() for name in ("whole", "region"))
    xr.testing.assert_identical(of_region, whole)


def test_a_region_of_unequal_steps_is_refused(truth, tmp_path):
    region = coarse(forecast_dataset()).isel(latitude=[1, 2, 4], longitude=[3, 4, 5])
    line = refuses(write(region, tmp_path / "f.zarr"), "--truth", truth, "--run", tmp_path / "run")
    assert "latitudes -30 to 60 and longitudes 90 to 150: not a global grid, and not equal steps that continue to one" in line


WRONG = {
    "upside down": lambda store: store.assign_coords(latitude=store.latitude.values[::-1]),
    "in knots": lambda store: store / 0.514444,
    "u and v in each other's place": lambda store: store.rename({NAMES[0]: NAMES[1], NAMES[1]: NAMES[0]}),
    "opposite sign": lambda store: -store,
    "24 h before": lambda store: store.assign_coords(time=store.time + np.timedelta64(24, "h")),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_misaligned_forecasts_of_a_part_are_refused_by_name(wrong, truth, tmp_path):
    store = WRONG[wrong](forecast_dataset(noise=0.3).where(~(GRID.longitude < 40)))
    assert wrong in refuses(write(store, tmp_path / "model.zarr"), "--truth", truth, "--run", tmp_path / "run")


def test_scores_of_different_parts_are_not_compared(truth, tmp_path, monkeypatch):
    """The whole globe has no note on its part. That of the other part is in the terminal and on the page."""
    complete = wsdcast.score_forecast(write(forecast_dataset(), tmp_path / "whole.zarr"), truth, tmp_path / "whole")
    assert "scored on" not in complete.facts
    assert "share_of_globe" not in opened_scores(tmp_path / "whole").attrs
    monkeypatch.setattr(score_output, "write_report", write_report)
    store = write(forecast_dataset().where(~LAND), tmp_path / "model.zarr")
    done = CliRunner().invoke(app, ["score", store, "--truth", truth, "--run", str(tmp_path / "part"), "--json"])
    words = json.loads(done.stdout)["facts"]["scored on"]
    page = Path(tmp_path / "part/report.html").read_text()
    assert f"<dt>scored on</dt><dd>{words}</dd>" in page
    assert "These scores have no spectra." in page
    assert "different parts of the globe" in refuses(tmp_path / "whole", tmp_path / "part")
    assert wsdcast.score_pair(tmp_path / "part", tmp_path / "part").scores[0]["difference"] == 0


def test_maps_show_the_members_of_a_part():
    """Members with a gap inside the part are left out. Points outside the part have no value."""
    members, true = random_winds(4)
    members = masked(members)
    row, column = np.argwhere(~LAND)[3]
    members[1, 1, 0, row, column] = np.nan
    chosen = choose(1, 2, GRID, 1)
    (shown,) = read_shown(lambda start: (members, true), chosen, (WIND,), DEFAULT)
    mean = np.empty_like(shown.maps["mean"])
    mean[:, chosen.rows[:, None], chosen.columns] = shown.maps["mean"]
    speeds = np.hypot(members[[0, 2, 3], :, 0], members[[0, 2, 3], :, 1])
    np.testing.assert_allclose(mean, speeds.mean(axis=0), rtol=1e-5)
    assert np.isnan(mean[:, LAND]).all()
    assert np.isfinite(mean[:, ~LAND]).all()
