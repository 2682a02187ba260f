"""What single figures show: curves, maps and plumes hold the numbers of the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from bokeh.models import ColumnDataSource
from matplotlib.figure import Figure
from random_forecast import read_wind

from wsdcast.data.grid import Grid
from wsdcast.data.store.analysis import open_analysis
from wsdcast.data.store.forecasts import QUANTILES, STATISTICS, statistics_over_members
from wsdcast.data.store.zarr_store import open_store
from wsdcast.data.variables import DEFAULT, SPEED
from wsdcast.report import figures
from wsdcast.report.chosen_place import plume_panel
from wsdcast.report.panels import add_line, panel
from wsdcast.report.plume import nearest, place, plume
from wsdcast.report.style import FORECASTS, looks
from wsdcast.report.subjects import WIND, subjects_of
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import PAST_ERRORS
from wsdcast.verification.baselines import BASELINES, CLIMATOLOGICAL_MEAN, CLIMATOLOGY, PERSISTENCE, PROBABILISTIC_CLIMATOLOGY
from wsdcast.verification.bootstrap import BOUNDS, block_weights
from wsdcast.verification.intervals import BY_START, with_intervals
from wsdcast.verification.metrics import POINT_STATISTICS, metrics
from wsdcast.verification.truth import truth_of
from wsdcast.weather.stages.plot import OF_SCORES, _plume
from wsdcast.weather.stages.score_output import summary_of

START = np.datetime64("2025-12-30T18", "ns")


@pytest.fixture(scope="module")
def scores(finished_run) -> xr.Dataset:
    with xr.open_dataset(finished_run / "scores.nc", decode_timedelta=True) as dataset:
        return dataset.load()


def band(axis, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and the upper edge of a filled band, at each point."""
    x, y = axis.collections[number].get_paths()[0].vertices.T
    points = np.unique(x)
    return np.array([y[x == point].min() for point in points]), np.array([y[x == point].max() for point in points])


def test_curves_show_the_scores(scores):
    globe = scores.sel(variable="both", region="globe")
    for axis, metric in zip(figures.score_curves(scores).axes, ("crps_fair", "rmse", "spread_skill"), strict=True):
        lines = {line.get_label(): line for line in axis.lines if not line.get_label().startswith("_")}
        assert list(lines) == [name for name in globe["forecast"].values if globe[metric].sel(forecast=name).notnull().any()]
        for number, (name, line) in enumerate(lines.items()):
            expected = globe.sel(forecast=name)
            np.testing.assert_array_equal(line.get_ydata(), expected[metric])
            np.testing.assert_array_equal(line.get_xdata(), [0.25, 0.5, 0.75, 1])
            np.testing.assert_array_equal(band(axis, number), expected[f"{metric}_interval"].transpose("bound", ...))


@pytest.mark.parametrize(("leads", "marked"), [(20, True), (60, False)])
def test_markers_do_not_hide_the_style_of_a_line(scores, leads, marked):
    many = scores.isel(prediction_timedelta=np.zeros(leads, dtype=int))
    many["prediction_timedelta"] = np.arange(1, leads + 1) * np.timedelta64(6, "h").astype("timedelta64[ns]")
    lines = [line for line in figures.score_curves(many).axes[0].lines if not line.get_label().startswith("_")]
    assert {line.get_marker() == "o" for line in lines} == {marked}
    on = panel("", "", "")
    add_line(on, ("black", "dashed"), {"x": np.arange(leads), "y": np.arange(leads)})
    assert len(on.renderers) == 1 + marked


def test_legends_fit_into_the_figure(scores):
    names = ["wsdcast", "moments, past errors", "persistence", "probabilistic climatology", "climatological mean"]
    named = scores.assign_coords(forecast=names, reference=names[1:])
    for draw, _ in OF_SCORES.values():
        figure = draw(named)
        figure.draw_without_rendering()
        legend = figure.legends[0].get_window_extent()
        assert figure.bbox.x0 <= legend.x0 < legend.x1 <= figure.bbox.x1
        assert legend.y1 <= figure.axes[-1].get_tightbbox().y0


def test_skill_by_region_shows_the_scores(scores):
    ours = scores.sel(variable="both", forecast="wsdcast")
    figure = figures.region_skill(scores)
    for axis, region in zip(figure.axes, scores["region"].values, strict=True):
        skill = ours["crps_fair_skill"].sel(region=region)
        if not skill.notnull().any():
            assert axis.get_title() == f"{region}: no cell"  # the grid is so coarse
            continue
        assert axis.get_title() == region
        for line in axis.lines[:-1]:
            np.testing.assert_allclose(line.get_ydata(), 100 * skill.sel(reference=line.get_label()))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [f"over {name}" for name in scores["reference"].values]


def test_rank_histograms_show_the_scores(scores):
    ours = scores["rank_histogram"].sel(forecast="wsdcast", region="globe", rank=range(4))
    for axis, lead in zip(figures.rank_histograms(scores).axes, (0, 2, 3), strict=True):
        for line, variable in zip(axis.lines, (*DEFAULT, SPEED), strict=False):
            np.testing.assert_allclose(line.get_ydata(), 4 * ours.isel(prediction_timedelta=lead).sel(variable=variable))
        assert axis.get_title() == f"{6 * (lead + 1)} h"


def test_reliability_diagrams_show_the_scores(scores):
    ours = scores["reliability"].sel(forecast="wsdcast", region="globe", threshold=10.8)
    for axis, lead in zip(figures.reliability(scores).axes, (0, 2, 3), strict=True):
        area, forecast, observed = (ours.isel(prediction_timedelta=lead).sel(of=of).values for of in ("area", "forecast", "observed"))
        nonempty = area > 0
        np.testing.assert_allclose(axis.lines[0].get_xdata(), forecast[nonempty] / area[nonempty])
        np.testing.assert_allclose(axis.lines[0].get_ydata(), observed[nonempty] / area[nonempty])


def test_spectra_show_the_scores(scores):
    both = scores.sel(variable="both")
    for axis, lead in zip(figures.spectrum_ratios(scores).axes, (0, 2, 3), strict=True):
        names = [line.get_label() for line in axis.lines[:-1]]
        assert names == ["wsdcast", "moments, past errors"]  # persistence and climatology are states of the record
        for name, line in zip(names, axis.lines, strict=False):
            np.testing.assert_allclose(line.get_ydata(), both["power_ratio"].sel(forecast=name).isel(prediction_timedelta=lead)[1:])


def test_intervals_computed_for_a_figure_equal_those_of_the_scores(scores):
    """The file has no intervals of spectra, ranks and reliability. For a score that has them, the figure's method gives the same."""
    for lead in (0, 3):
        interval = figures._interval(scores[["crps_fair_by_start"]], lead, lambda mean: mean["crps_fair_by_start"])
        expected = scores["crps_fair_interval"].isel(prediction_timedelta=lead)
        np.testing.assert_allclose(interval.transpose(*expected.dims), expected, rtol=1e-10)


def test_an_initial_time_without_scores_has_no_part_in_the_bands(scores):
    """Its truth or a member is missing at one lead time. Then the bands of all the others vanished."""
    times = np.datetime64("2000-01-01", "ns") + np.arange(12) * np.timedelta64(5, "D")
    lacking = scores.isel(time=np.arange(12) % scores.sizes["time"]).assign_coords(time=times).copy(deep=True)
    for name in ("rank_histogram_by_start", "reliability_by_start", "power_by_start", "power_truth_by_start"):
        lacking[name][{"time": 0, "prediction_timedelta": 0}] = np.nan
    ranks = lacking["rank_histogram_by_start"].sel(forecast="wsdcast", region="globe", variable=DEFAULT[0], rank=range(4))
    weights = block_weights(times, scores["prediction_timedelta"].values.max()).values[:, 1:]
    drawn = weights @ ranks.isel(prediction_timedelta=0).transpose("time", "rank").values[1:] / weights.sum(axis=1, keepdims=True)
    low, high = np.quantile(4 * drawn, BOUNDS, axis=0)
    edges = band(figures.rank_histograms(lacking).axes[0], 0)
    assert (edges[0].min(), edges[1].max()) == pytest.approx((low.min(), high.max()))
    for draw in (figures.reliability, figures.spectrum_ratios):
        drawn = draw(lacking).axes[0].collections[-1].get_paths()
        assert len(drawn)
        assert np.isfinite(drawn[0].vertices).all()


def test_a_lead_time_without_scores_does_not_make_blocks_longer(scores):
    """The bands of figures, which do not show it, were from shorter blocks than the intervals of the same scores."""
    times = np.datetime64("2000-01-01", "ns") + np.arange(12) * np.timedelta64(5, "D")
    many = scores.isel(time=np.arange(12) % scores.sizes["time"]).assign_coords(time=times)
    longer = many.reindex(prediction_timedelta=[*many["prediction_timedelta"].values, np.timedelta64(240, "h")])
    longer["pairs"] = longer["pairs"].fillna(0)
    facts, intervals = [], []
    for each in (many, longer):
        facts.append(summary_of(Path(), each).facts["intervals"])
        statistics = each[[f"{name}{BY_START}" for name in POINT_STATISTICS]]
        statistics = statistics.rename({name: name.removesuffix(BY_START) for name in statistics})
        computed = with_intervals(metrics(statistics.mean("time")), statistics, [])
        intervals.append(figures.at_scored_leads(computed)["crps_fair_interval"])
    assert facts[0] == facts[1]
    xr.testing.assert_equal(*intervals)


def test_other_and_incomplete_scores_are_drawn(scores):
    """They have other names, lack the moments with past errors and intervals, or have one initial time."""
    theirs = scores.sel(forecast=["wsdcast", "persistence", "climatology"], reference=["persistence"])
    theirs = theirs.assign_coords(forecast=["IFS <ENS>", "persistence", "climatology"])
    theirs["rank_histogram"] = np.nan * theirs["rank_histogram"]  # as when members were stopped
    for fewer in (theirs.isel(time=[0]), theirs.drop_vars([name for name in theirs if name.endswith(("_interval", "_by_start"))])):
        for draw, _ in OF_SCORES.values():
            assert isinstance(draw(fewer), Figure)
    (line,) = (line for line in figures.score_curves(theirs).axes[0].lines if line.get_label() == "IFS <ENS>")
    np.testing.assert_array_equal(line.get_ydata(), scores["crps_fair"].sel(forecast="wsdcast", variable="both", region="globe"))


@pytest.mark.parametrize("climatology", [(CLIMATOLOGY,), (PROBABILISTIC_CLIMATOLOGY, CLIMATOLOGICAL_MEAN)])
def test_each_forecast_of_scores_has_its_own_colour_and_line(climatology):
    names = ["wsdcast", PAST_ERRORS, PERSISTENCE, *climatology]
    assert {"wsdcast", PAST_ERRORS, *BASELINES} == set(FORECASTS)
    assert len({colour for colour, _ in looks(names).values()}) == len({style for _, style in looks(names).values()}) == len(names)
    assert looks(["IFS", "persistence"]) == {"IFS": FORECASTS["wsdcast"], "persistence": FORECASTS["persistence"]}


@pytest.mark.parametrize("name", ["24x12", "24x13"])
def test_the_nearest_grid_point_has_the_smallest_angle_between_unit_vectors(name):
    grid, random = Grid.regular(name), np.random.default_rng(0)

    def vector(latitude, longitude):
        latitude, longitude = np.deg2rad(latitude), np.deg2rad(longitude)
        return np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude) + 0 * longitude], -1)

    points = vector(grid.latitude[:, None], grid.longitude[None, :])
    places = [(random.uniform(-90, 90), random.uniform(-180, 360)) for _ in range(200)] + [(52.5, -0.1), (52.5, 359.9), (90, 10), (-90, 0)]
    for latitude, longitude in places:
        row, column, distance = nearest(grid, latitude, longitude)
        angles = np.arccos((points @ vector(latitude, np.asarray(longitude))).clip(-1, 1))
        assert angles[row, column] == pytest.approx(angles.min(), abs=1e-7)
        assert distance == pytest.approx(6367.5 * angles.min(), abs=1e-3)


def test_places_are_written_with_hemispheres():
    assert place(52.5, 13.4) == "52.5°N 13.4°E"
    assert place(-33.9, 288.75) == "33.9°S 71.25°W"
    assert place(0, 360) == "0°N 0°E"


def test_a_plume_shows_the_quantiles_at_the_nearest_grid_point(finished_run):
    record = open_analysis(finished_run / "analysis.zarr")
    with open_store(finished_run / "forecast.zarr") as store:
        first = store.isel(time=0)
        figure, point = _plume(
            first, truth_of(record), 10.0, 43.0, finished_run
        )  # grid points at 11.25 N, 33.75 N, ... and 22.5 E, 45 E, ...
        members = read_wind(first)
        start = first["time"].values
    assert point.startswith("11.25°N 45°E, 259 km from")
    axis = figure.axes[0]
    assert axis.get_title() == "10 m wind speed (m/s)"
    assert figure.get_suptitle() == f"grid point 11.25°N 45°E, from {start.astype('datetime64[h]').item():%Y-%m-%d %H} UTC"
    row, column = np.flatnonzero(record.grid.latitude == 11.25)[0], np.flatnonzero(record.grid.longitude == 45)[0]
    speeds = np.hypot(members[:, :, 0, row, column], members[:, :, 1, row, column])
    now = np.flatnonzero(record.times == start)[0]
    wind = record.states[now : now + 5][:, :, row, column]
    truth = np.hypot(wind[:, 0], wind[:, 1])
    median, true = axis.lines
    np.testing.assert_allclose(true.get_ydata(), truth, rtol=1e-6)
    np.testing.assert_allclose(median.get_ydata(), [truth[0], *np.quantile(speeds, 0.5, axis=0)], rtol=1e-6)
    for number, ends in enumerate(((0.1, 0.9), (0.25, 0.75))):
        for edge, end in zip(band(axis, number), ends, strict=True):
            np.testing.assert_allclose(edge, [truth[0], *np.quantile(speeds, end, axis=0)], rtol=1e-6)
    # A store of quantiles instead of members gives the same plume.
    axes = ("statistic", "prediction_timedelta", "latitude", "longitude")
    kept = dict(zip((*DEFAULT, SPEED), statistics_over_members(members, DEFAULT).transpose(2, 0, 1, 3, 4), strict=True))
    reduced = xr.Dataset({name: (axes, field) for name, field in kept.items()}, coords={**first.coords, "statistic": list(STATISTICS)})
    other = _plume(reduced, truth_of(record), 10.0, 43.0, finished_run)[0].axes[0]
    np.testing.assert_allclose(other.lines[0].get_ydata(), median.get_ydata(), rtol=1e-6)
    np.testing.assert_allclose(band(other, 0), band(axis, 0), rtol=1e-6)


def test_a_plume_leaves_out_stopped_members_and_its_truth_ends_with_the_record(finished_run):
    record = open_analysis(finished_run / "analysis.zarr")
    with open_store(finished_run / "forecast.zarr") as store:
        last = store.isel(time=-1).load()
    last = last.assign_coords(time=record.times[-3])
    for name in DEFAULT:
        last[name][1, 2:] = np.nan
    median, true = _plume(last, truth_of(record), 0.0, 0.0, finished_run)[0].axes[0].lines
    assert np.isfinite(median.get_ydata()).all()
    assert np.isfinite(true.get_ydata()).tolist() == [True, True, True, False, False]
    for name in DEFAULT:
        last[name][:] = np.nan
    with pytest.raises(UserError, match="left the physical range"):
        _plume(last, truth_of(record), 0.0, 0.0, finished_run)


def test_a_plume_of_one_lead_time_is_not_empty():
    """Bands and lines between two points of which only one is there have no extent."""
    bands = np.arange(1.0, 6.0)[:, None]
    (axis,) = plume([bands], [WIND], np.array([6], dtype="timedelta64[h]").astype("timedelta64[ns]"), "", START, np.full(1, 2.5)).axes
    assert [line.get_ydata().tolist() for line in axis.lines] == [[3, 3], [2.5, 2.5]]
    for number, (low, high) in enumerate([(1, 5), (2, 4)]):
        lower, upper = band(axis, number)
        assert (lower.tolist(), upper.tolist()) == ([low, low], [high, high])
    for drawn in (axis.lines[0].get_xdata(), axis.collections[0].get_paths()[0].vertices[:, 0]):
        assert np.ptp(drawn) > 0
        assert np.mean([drawn.min(), drawn.max()]) == pytest.approx(0.25)
    assert axis.get_xlim() == (0, drawn.max())


def test_a_forecast_of_one_member_has_a_line_and_no_bands():
    """Bands of no width were labelled as 10 to 90 % of the members."""
    leads = np.arange(6, 30, 6).astype("timedelta64[h]").astype("timedelta64[ns]")
    member = np.array([3.0, 4, np.nan, np.nan])  # stopped after 12 h
    figure = plume([np.tile(member, (5, 1))], [WIND], leads, "", START)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["forecast"]
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), member)
    bands = member + np.linspace(0, 0.001, 5)[:, None]
    assert [text.get_text() for text in plume([bands], [WIND], leads, "", START).legends[0].get_texts()][-1] != "forecast"


@pytest.mark.parametrize(("hours", "last"), [(6, "0.25\n31 Dec\n00:00"), (72, "3\n02 Jan\n18:00"), (360, "15\n14 Jan\n18:00")])
def test_plumes_of_products_have_valid_times(hours, last):
    leads = np.arange(6, hours + 1, 6).astype("timedelta64[h]").astype("timedelta64[ns]")
    bands = np.ones((5, leads.size)) * np.arange(5)[:, None]
    for subjects in ([WIND], subjects_of([*DEFAULT, "2m_temperature"])):
        axis = plume([bands] * len(subjects), subjects, leads, "", START).axes[-1]
        axis.set_xlim(0, hours / 24)
        labels = [axis.xaxis.get_major_formatter()(day) for day in axis.get_xticks() if 0 <= day <= hours / 24]
        assert (labels[0], labels[-1]) == ("0\n30 Dec\n18:00", last)
        assert axis.get_xlabel() == "lead time (days) and valid time (UTC)"


def test_axes_of_what_cannot_be_negative_begin_at_zero():
    """That of precipitation began at the smallest value, so that a little rain looked like none."""
    leads, values = np.array([6, 12], dtype="timedelta64[h]").astype("timedelta64[ns]"), np.array([4.0, 5.0])
    subjects = subjects_of([*DEFAULT, "total_precipitation_6hr", "2m_temperature"])
    figure = plume([np.tile(values, (5, 1))] * 3, subjects, leads, "", START)
    assert [axis.get_ylim()[0] == 0 for axis in figure.axes] == [True, True, False]
    lines = {"x": [0.25, 0.5], "lead": ["", ""], **dict.fromkeys(("q10", "q25", "q50", "q75", "q90"), values)}
    ranges = [plume_panel(ColumnDataSource(lines), of, 0.1, np.array([START])).y_range for of in subjects]
    assert [each.start == 0 for each in ranges] == [True, True, False]


def test_quantiles_of_the_plume_are_symmetric():
    assert [round(low + high, 9) for low, high in zip(QUANTILES, QUANTILES[::-1], strict=True)] == [1] * 5
