"""Single figures: what they show is what the files hold, the files are what their names say, and the same twice."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import xarray as xr
from conftest import TINY
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner

import wsdcast
from wsdcast.cli import app
from wsdcast.data.grid import Grid
from wsdcast.data.store.analysis import open_analysis
from wsdcast.data.store.forecasts import QUANTILES, STATISTICS, statistics
from wsdcast.data.store.zarr_store import SPEED, VARIABLES, open_store, read_wind
from wsdcast.report import figures
from wsdcast.report.maps import draw_map, forecast_maps
from wsdcast.report.plume import nearest, place
from wsdcast.report.style import looks
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import FigureName
from wsdcast.weather.stages.plot import OF_SCORES, _plume

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="MP4 needs ffmpeg, which is not here")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run directory as after all four stages."""
    place = tmp_path_factory.mktemp("plot")
    (place / "tiny.yaml").write_text(TINY.replace("starts: 2, days: 0.5", "starts: 3, days: 1"))
    list(wsdcast.run(place / "tiny.yaml", place / "run"))  # which makes one after the other
    return place / "run"


@pytest.fixture(scope="module")
def scores(run) -> xr.Dataset:
    with xr.open_dataset(run / "scores.nc", decode_timedelta=True) as dataset:
        return dataset.load()


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["plot", *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stderr


def refused(*arguments: str) -> str:
    """The one line of a command that must fail."""
    code, line = invoke(*arguments)
    assert code == 2
    assert line.startswith("wsdcast: ")
    assert line.count("\n") == 1
    return line


def band(axis, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edge of a filled band, point by point."""
    x, y = axis.collections[number].get_paths()[0].vertices.T
    at = np.unique(x)
    return np.array([y[x == one].min() for one in at]), np.array([y[x == one].max() for one in at])


# Files.


@pytest.mark.parametrize("figure", [*OF_SCORES, "maps", "plume"])
def test_every_figure_in_every_format(run, tmp_path, figure):
    options = ["--at", "-33.9,151.2"] if figure == "plume" else []
    for suffix, magic in (("png", b"\x89PNG\r\n"), ("pdf", b"%PDF-1."), ("svg", b"<?xml")):
        path = tmp_path / "new" / f"{figure}.{suffix}"
        assert invoke(figure, "--run", str(run), "--out", str(path), *options)[0] == 0
        content = path.read_bytes()
        assert content.startswith(magic)
        if suffix == "pdf":
            assert b"/FontFile2" in content  # TrueType, embedded
            assert b"/Type3" not in content
            assert b"CreationDate" not in content
        if suffix == "svg":
            assert b"<text" in content
            assert b"<dc:date>" not in content


def test_another_process_makes_the_same_bytes(run, tmp_path):
    files = ["spectra.pdf", "curves.svg", "maps.png"]
    for name in files:
        wsdcast.plot(name.split(".")[0], run=run, out=tmp_path / f"here-{name}")
    code = f"import wsdcast\nfor name in {files}: wsdcast.plot(name.split('.')[0], run='{run}', out='{tmp_path}/there-' + name)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONHASHSEED": "1"})
    for name in files:
        assert (tmp_path / f"here-{name}").read_bytes() == (tmp_path / f"there-{name}").read_bytes(), name


def test_without_out_it_lies_in_the_run_directory(run):
    summary = wsdcast.plot("maps", run=run)
    assert summary.written == {str(run / "maps.png"): "maps"}
    with Image.open(run / "maps.png") as picture:
        assert picture.size[0] == pytest.approx(7.2 * 300, abs=1)
    wsdcast.plot("animation", run=run)
    assert (run / "animation.gif").read_bytes() == (run / "forecast.gif").read_bytes()  # that of the rollout


def test_the_animation_has_a_frame_for_the_start_and_each_lead_time(run, tmp_path):
    with open_store(run / "forecast.zarr") as store:
        second = str(store["time"].values[1])
    wsdcast.plot("animation", run=run, out=tmp_path / "a.gif", start=second)
    with Image.open(tmp_path / "a.gif") as animation:
        assert animation.format == "GIF"
        assert animation.n_frames == 5
    assert (tmp_path / "a.gif").read_bytes() != (run / "forecast.gif").read_bytes()


@needs_ffmpeg
def test_mp4(run, tmp_path):
    for name in ("a.mp4", "b.MP4"):
        wsdcast.plot("animation", run=run, out=tmp_path / name)
    content = (tmp_path / "a.mp4").read_bytes()
    assert content[4:8] == b"ftyp"
    assert (tmp_path / "b.MP4").read_bytes() == content
    decoded = ["ffmpeg", "-v", "error", "-i", str(tmp_path / "a.mp4"), "-f", "rawvideo", "-pix_fmt", "gray", "-"]
    frames = np.frombuffer(subprocess.run(decoded, capture_output=True, check=True).stdout, np.uint8).reshape(5, 704, 1280)
    # The first state is the start's in all panels, the last is not; the paper around them stays white.
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 1
    assert frames[:, :4].min() > 250


def test_the_commands_of_the_page_run(run, tmp_path, monkeypatch):
    shutil.copytree(run, tmp_path / "runs/planet")
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "docs/plot.md").read_text()
    lines = re.findall(r"^wsdcast plot (.*?)\s*#", page, re.MULTILINE)
    assert [line.split()[0] for line in lines] == list(get_args(FigureName))
    for line in lines:
        assert invoke(*shlex.split(line)) == (0, ""), line
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "curves.pdf", "spectra.svg", "forecast-again.gif"}
    made = {path.name for path in (tmp_path / "runs/planet").iterdir()} - {path.name for path in run.iterdir()}
    assert made <= {"regions.png", "ranks.png", "reliability.png", "tails.png", "targets.png", "maps.png", "plume.png"}
    assert "plume.png" in made


# What they show.


def test_curves_are_those_of_the_scores(scores):
    at = scores.sel(variable="both", region="globe")
    for axis, metric in zip(figures.score_curves(scores).axes, ("crps_fair", "rmse", "spread_skill"), strict=True):
        lines = {line.get_label(): line for line in axis.lines if not line.get_label().startswith("_")}
        assert list(lines) == [name for name in at["forecast"].values if at[metric].sel(forecast=name).notnull().any()]
        for number, (name, line) in enumerate(lines.items()):
            here = at.sel(forecast=name)
            np.testing.assert_array_equal(line.get_ydata(), here[metric])
            np.testing.assert_array_equal(line.get_xdata(), [0.25, 0.5, 0.75, 1])
            np.testing.assert_array_equal(band(axis, number), here[f"{metric}_interval"].transpose("bound", ...))


def test_skill_by_region_is_that_of_the_scores(scores):
    ours = scores.sel(variable="both", forecast="wsdcast")
    figure = figures.region_skill(scores)
    for axis, region in zip(figure.axes, scores["region"].values, strict=True):
        here = ours["crps_fair_skill"].sel(region=region)
        if not here.notnull().any():
            assert axis.get_title() == f"{region}: no cell"  # of so coarse a grid
            continue
        assert axis.get_title() == region
        for line in axis.lines[:-1]:
            np.testing.assert_allclose(line.get_ydata(), 100 * here.sel(reference=line.get_label()))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [f"over {name}" for name in scores["reference"].values]


def test_ranks_are_those_of_the_scores(scores):
    ours = scores["rank_histogram"].sel(forecast="wsdcast", region="globe", rank=range(4))
    for axis, lead in zip(figures.rank_histograms(scores).axes, (0, 2, 3), strict=True):
        for line, variable in zip(axis.lines, (*VARIABLES, SPEED), strict=False):
            np.testing.assert_allclose(line.get_ydata(), 4 * ours.isel(prediction_timedelta=lead).sel(variable=variable))
        assert axis.get_title() == f"{6 * (lead + 1)} h"


def test_reliability_is_that_of_the_scores(scores):
    ours = scores["reliability"].sel(forecast="wsdcast", region="globe", threshold=10.8)
    for axis, lead in zip(figures.reliability(scores).axes, (0, 2, 3), strict=True):
        area, forecast, observed = (ours.isel(prediction_timedelta=lead).sel(of=of).values for of in ("area", "forecast", "observed"))
        there = area > 0
        np.testing.assert_allclose(axis.lines[0].get_xdata(), forecast[there] / area[there])
        np.testing.assert_allclose(axis.lines[0].get_ydata(), observed[there] / area[there])


def test_spectra_are_those_of_the_scores(scores):
    at = scores.sel(variable="both")
    for axis, lead in zip(figures.spectrum_ratios(scores).axes, (0, 2, 3), strict=True):
        names = [line.get_label() for line in axis.lines[:-1]]
        assert names == ["wsdcast", "moments alone"]  # not of states of the record
        for name, line in zip(names, axis.lines, strict=False):
            np.testing.assert_allclose(line.get_ydata(), at["power_ratio"].sel(forecast=name).isel(prediction_timedelta=lead)[1:])


def test_intervals_made_here_are_those_of_the_scores(scores):
    """Spectra, ranks and reliability have none in the file; where there are some, the same way gives the same."""
    for lead in (0, 3):
        found = figures._interval(scores[["crps_fair_by_start"]], lead, lambda mean: mean["crps_fair_by_start"])
        expected = scores["crps_fair_interval"].isel(prediction_timedelta=lead)
        np.testing.assert_allclose(found.transpose(*expected.dims), expected, rtol=1e-10)


def test_scores_of_other_forecasts_and_with_less_in_them(scores):
    """Of names that are not ours, without the moments alone, without intervals, or with one start."""
    theirs = scores.sel(forecast=["wsdcast", "persistence", "climatology"], reference=["persistence"])
    theirs = theirs.assign_coords(forecast=["IFS <ENS>", "persistence", "climatology"])
    theirs["rank_histogram"] = np.nan * theirs["rank_histogram"]  # as where members were stopped
    for less in (theirs.isel(time=[0]), theirs.drop_vars([name for name in theirs if name.endswith(("_interval", "_by_start"))])):
        for draw, _ in OF_SCORES.values():
            assert isinstance(draw(less), Figure)
    (line,) = (line for line in figures.score_curves(theirs).axes[0].lines if line.get_label() == "IFS <ENS>")
    np.testing.assert_array_equal(line.get_ydata(), scores["crps_fair"].sel(forecast="wsdcast", variable="both", region="globe"))


def test_each_forecast_has_a_look_of_its_own():
    known = looks(["wsdcast", "moments alone", "persistence", "climatology"])
    assert len({look["color"] for look in known.values()}) == len({look["linestyle"] for look in known.values()}) == 4
    others = looks(["IFS", "persistence", "another", "one more"])
    assert others["IFS"] == known["wsdcast"]
    assert others["persistence"] == known["persistence"]
    assert len({look["color"] for look in others.values()}) == 4


@pytest.mark.parametrize("name", ["24x12", "24x13"])
def test_nearest_grid_point_is_that_of_the_unit_vectors(name):
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


def test_places_are_written_as_people_do():
    assert place(52.5, 13.4) == "52.5°N 13.4°E"
    assert place(-33.9, 288.75) == "33.9°S 71.25°W"
    assert place(0, 360) == "0°N 0°E"


def test_plume_is_of_the_quantiles_at_the_nearest_point(run):
    record = open_analysis(run / "analysis.zarr")
    with open_store(run / "forecast.zarr") as store:
        first = store.isel(time=0)
        figure, point = _plume(first, record, 10.0, 43.0, run)  # grid points at 11.25 N, 33.75 N, ... and 22.5 E, 45 E, ...
        members = read_wind(first)
        start = first["time"].values
    assert point.startswith("11.25°N 45°E, 259 km from")
    axis = figure.axes[0]
    assert axis.get_title() == f"grid point 11.25°N 45°E, from {start.astype('datetime64[h]')}"
    row, column = np.flatnonzero(record.grid.latitude == 11.25)[0], np.flatnonzero(record.grid.longitude == 45)[0]
    speeds = np.hypot(members[:, :, 0, row, column], members[:, :, 1, row, column])
    now = np.flatnonzero(record.times == start)[0]
    wind = record.wind[now : now + 5][:, :, row, column]
    truth = np.hypot(wind[:, 0], wind[:, 1])
    median, true = axis.lines
    np.testing.assert_allclose(true.get_ydata(), truth, rtol=1e-6)
    np.testing.assert_allclose(median.get_ydata(), [truth[0], *np.quantile(speeds, 0.5, axis=0)], rtol=1e-6)
    for number, ends in enumerate(((0.1, 0.9), (0.25, 0.75))):
        for edge, end in zip(band(axis, number), ends, strict=True):
            np.testing.assert_allclose(edge, [truth[0], *np.quantile(speeds, end, axis=0)], rtol=1e-6)
    # A store that keeps quantiles instead of members gives the same.
    axes = ("statistic", "prediction_timedelta", "latitude", "longitude")
    kept = dict(zip((*VARIABLES, SPEED), statistics(members).transpose(2, 0, 1, 3, 4), strict=True))
    reduced = xr.Dataset({name: (axes, field) for name, field in kept.items()}, coords={**first.coords, "statistic": list(STATISTICS)})
    other = _plume(reduced, record, 10.0, 43.0, run)[0].axes[0]
    np.testing.assert_allclose(other.lines[0].get_ydata(), median.get_ydata(), rtol=1e-6)
    np.testing.assert_allclose(band(other, 0), band(axis, 0), rtol=1e-6)


def test_a_stopped_member_is_left_out_and_truth_ends_with_the_record(run):
    record = open_analysis(run / "analysis.zarr")
    with open_store(run / "forecast.zarr") as store:
        last = store.isel(time=-1).load()
    last = last.assign_coords(time=record.times[-3])
    for name in VARIABLES:
        last[name][1, 2:] = np.nan
    median, true = _plume(last, record, 0.0, 0.0, run)[0].axes[0].lines
    assert np.isfinite(median.get_ydata()).all()
    assert np.isfinite(true.get_ydata()).tolist() == [True, True, True, False, False]
    for name in VARIABLES:
        last[name][:] = np.nan
    with pytest.raises(UserError, match="left the physical range"):
        _plume(last, record, 0.0, 0.0, run)


@pytest.mark.parametrize(("name", "edges"), [("24x12", (-90, 90)), ("25x13", (-97.5, 97.5))])
def test_maps_have_cells_where_they_are_and_coastlines(name, edges):
    grid = Grid.regular(name.replace("25", "24"))
    axis = Figure().subplots()
    image = draw_map(axis, np.zeros(grid.shape), grid, "", 0, 1, lines=[np.array([[350.0, 10.0], [359.0, 20.0]])])
    assert image.get_extent() == pytest.approx([-7.5, 352.5, *edges])
    assert axis.get_ylim() == (-90, 90)
    assert axis.get_xlim() == (-7.5, 352.5)
    (lines,) = axis.collections
    # Drawn as it is, and once more where the left edge of the map is.
    np.testing.assert_allclose(lines.get_segments(), [[[350, 10], [359, 20]], [[-10, 10], [-1, 20]]])


def test_maps_show_truth_mean_spread_and_members():
    grid = Grid.regular("8x4")
    members, truth = np.random.default_rng(0).normal(0, 6, (2, 2, *grid.shape)), np.full((2, *grid.shape), 3.0)
    speeds = np.hypot(members[:, 0], members[:, 1])
    shown = {axis.get_title(): axis.images[0].get_array() for axis in forecast_maps(members, truth, grid, "x").axes if axis.images}
    assert list(shown) == ["truth", "mean of the members", "spread of the members", "member 0", "member 1"]
    np.testing.assert_allclose(shown["truth"], np.sqrt(18))
    np.testing.assert_allclose(shown["mean of the members"], speeds.mean(axis=0))
    np.testing.assert_allclose(shown["spread of the members"], np.abs(speeds[0] - speeds[1]) / np.sqrt(2))
    np.testing.assert_allclose(shown["member 1"], speeds[1])
    assert "truth" not in {axis.get_title() for axis in forecast_maps(members, None, grid, "x").axes}


# What cannot be done.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["curves", "--out", "a.jpg"], "--out a.jpg: curves can be written as .png, .pdf, .svg, not as '.jpg'"),
        (["curves", "--out", "a"], "not as ''"),
        (["curves", "--out", "a.gif"], "not as '.gif'"),
        (["animation", "--out", "a.png"], "animation can be written as .gif, .mp4, not as '.png'"),
        (["curves", "--at", "1,2"], "--at does not go with curves"),
        (["plume", "--at", "1,2", "--lead-time", "6h"], "--lead-time does not go with plume"),
        (["plume"], "--at LATITUDE,LONGITUDE"),
        (["plume", "--at", "91,0"], "--at 91,0: expected a latitude from -90 to 90"),
        (["plume", "--at", "nan,0"], "expected a latitude from -90 to 90"),
        (["plume", "--at", "1"], "--at '1': expected LATITUDE,LONGITUDE in degrees"),
        (["plume", "--at", "north,1"], "expected LATITUDE,LONGITUDE in degrees"),
        (["maps", "--start", "1999-01-01"], "--start 1999-01-01: not in"),
        (["maps", "--start", "soon"], "--start Invalid isoformat string: 'soon'"),
        (["maps", "--lead-time", "2d"], "--lead-time 48h: not in"),
        (["maps", "--lead-time", "7h"], "--lead-time '7h': expected a multiple of 6 h"),
    ],
)
def test_mistakes_end_in_one_line(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    before = {path.name for path in run.iterdir()}
    assert message in refused(*arguments, "--run", str(run))
    assert not list(tmp_path.iterdir())
    assert {path.name for path in run.iterdir()} == before


def test_a_directory_is_not_replaced(run, tmp_path):
    (tmp_path / "a.png").mkdir()
    assert "is a directory" in refused("curves", "--run", str(run), "--out", str(tmp_path / "a.png"))


def test_mp4_without_ffmpeg_or_with_one_that_fails(run, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    arguments = ("animation", "--run", str(run), "--out", str(tmp_path / "a.mp4"))
    assert "a.mp4: an MP4 needs ffmpeg, which is not on the PATH" in refused(*arguments)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ffmpeg").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "bin/ffmpeg").chmod(0o755)
    assert "ffmpeg cannot write it (exit code 3)" in refused(*arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


def test_what_is_missing_is_named(run, scores, tmp_path):
    empty = str(tmp_path / "empty")
    assert "scores.nc is not there; run `wsdcast score` first" in refused("curves", "--run", empty)
    assert "forecast.zarr is not there; run `wsdcast rollout` first" in refused("maps", "--run", empty)
    alone = tmp_path / "alone"  # scores without the forecast, as they are sent to others
    alone.mkdir()
    shutil.copy(run / "scores.nc", alone)
    assert invoke("curves", "--run", str(alone))[0] == 0
    for name, message in ((None, "has no rank_histogram by region; run `wsdcast score` again"), (np.nan, "could not be computed")):
        changed = scores.drop_vars("rank_histogram") if name is None else scores.assign(rank_histogram=name * scores["rank_histogram"])
        changed.to_netcdf(alone / "scores.nc")
        assert message in refused("ranks", "--run", str(alone))
    scores.isel(region=0, drop=True).to_netcdf(alone / "scores.nc")  # as an older version wrote them
    assert "by region; run `wsdcast score` again" in refused("curves", "--run", str(alone))


def test_scores_of_another_forecast_are_not_drawn(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    wsdcast.rollout(run=tmp_path / "run", members=2, overwrite=True)
    assert "run `wsdcast score --overwrite`" in refused("curves", "--run", str(tmp_path / "run"))


def test_statistics_alone_have_a_plume_and_no_maps(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    wsdcast.rollout(run=tmp_path / "run", keep="statistics", overwrite=True)
    assert invoke("plume", "--at", "0,0", "--run", str(tmp_path / "run"))[0] == 0
    for figure in ("maps", "animation"):
        assert f"{figure} needs the members" in refused(figure, "--run", str(tmp_path / "run"))


def test_quantiles_of_the_plume_are_symmetric():
    assert [round(low + high, 9) for low, high in zip(QUANTILES, QUANTILES[::-1], strict=True)] == [1] * 5
