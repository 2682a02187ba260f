"""The command `wsdcast plot`: the files that it writes, the same bytes each time, and what it refuses."""

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
from commands import invoke, refused
from PIL import Image

import wsdcast
from wsdcast.data.store.zarr_store import open_store
from wsdcast.data.variables import DEFAULT
from wsdcast.report import animation
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import FigureName
from wsdcast.weather.stages.plot import OF_SCORES

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg, which writes MP4, is not installed")


@pytest.mark.parametrize("figure", [*OF_SCORES, "maps", "plume"])
def test_every_figure_is_written_in_every_format(finished_run, tmp_path, figure):
    options = ["--at", "-33.9,151.2"] if figure == "plume" else []
    for suffix, magic in (("png", b"\x89PNG\r\n"), ("pdf", b"%PDF-1."), ("svg", b"<?xml")):
        path = tmp_path / "new" / f"{figure}.{suffix}"
        assert invoke("plot", figure, "--run", str(finished_run), "--out", str(path), *options)[0] == 0
        content = path.read_bytes()
        assert content.startswith(magic)
        if suffix == "pdf":
            assert b"/FontFile2" in content  # TrueType, embedded
            assert b"/Type3" not in content
            assert b"CreationDate" not in content
        if suffix == "svg":
            assert b"<text" in content
            assert b"<dc:date>" not in content


@pytest.mark.slow
def test_another_process_writes_the_same_bytes(finished_run, tmp_path):
    files = ["spectra.pdf", "curves.svg", "maps.png"]
    for name in files:
        wsdcast.plot(name.split(".")[0], run=finished_run, out=tmp_path / f"this-{name}")
    code = f"import wsdcast\nfor name in {files}: wsdcast.plot(name.split('.')[0], run='{finished_run}', out='{tmp_path}/other-' + name)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONHASHSEED": "1"})
    for name in files:
        assert (tmp_path / f"this-{name}").read_bytes() == (tmp_path / f"other-{name}").read_bytes(), name


def test_without_out_the_figure_is_written_to_the_run_directory(finished_run):
    summary = wsdcast.plot("maps", run=finished_run)
    assert summary.written == {str(finished_run / "maps.png"): "maps"}
    with Image.open(finished_run / "maps.png") as picture:
        assert picture.size[0] == pytest.approx(7.2 * 300, abs=1)
    wsdcast.plot("animation", run=finished_run)
    assert (finished_run / "animation.gif").read_bytes() == (finished_run / "forecast.gif").read_bytes()  # the one that the rollout wrote


def test_the_animation_has_a_frame_for_the_start_and_each_lead_time(finished_run, tmp_path, monkeypatch):
    shown, draw = [], animation.draw_map
    monkeypatch.setattr(animation, "draw_map", lambda *arguments, **options: shown.append(draw(*arguments, **options)) or shown[-1])
    with open_store(finished_run / "forecast.zarr") as store:
        second = str(store["time"].values[1])
        last = store.isel(time=1, number=0, prediction_timedelta=-1)
        speed = np.hypot(*(last[name].values for name in DEFAULT))
    wsdcast.plot("animation", run=finished_run, out=tmp_path / "a.gif", start=second)
    with Image.open(tmp_path / "a.gif") as frames:
        assert frames.format == "GIF"
        assert frames.n_frames == 5
    # Every frame has Greenwich in the middle, also the last one.
    (image,) = (image for image in shown if image.axes.get_title() == "member 0")
    np.testing.assert_array_equal(np.roll(image.get_array(), speed.shape[1] // 2, axis=1), speed)
    (title,) = {image.figure.get_suptitle() for image in shown}
    assert re.fullmatch(r"2\d{3}-\d\d-\d\d \d\d UTC \+ 24 h, valid 2\d{3}-\d\d-\d\d \d\d UTC", title)
    assert (tmp_path / "a.gif").read_bytes() != (finished_run / "forecast.gif").read_bytes()


@needs_ffmpeg
def test_an_mp4_moves_within_white_margins(finished_run, tmp_path):
    for name in ("a.mp4", "b.MP4"):
        wsdcast.plot("animation", run=finished_run, out=tmp_path / name)
    content = (tmp_path / "a.mp4").read_bytes()
    assert content[4:8] == b"ftyp"
    assert (tmp_path / "b.MP4").read_bytes() == content
    decoded = ["ffmpeg", "-v", "error", "-i", str(tmp_path / "a.mp4"), "-f", "rawvideo", "-pix_fmt", "gray", "-"]
    frames = np.frombuffer(subprocess.run(decoded, capture_output=True, check=True).stdout, np.uint8).reshape(5, 704, 1280)
    # The first frame shows the initial state and the last a forecast. The margins stay white.
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 1
    assert frames[:, :4].min() > 250


@pytest.mark.slow
def test_the_commands_of_the_documentation_run(finished_run, tmp_path, monkeypatch):
    shutil.copytree(finished_run, tmp_path / "runs/planet")
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "docs/plot.md").read_text()
    lines = re.findall(r"^wsdcast plot (.*?)\s*#", page, re.MULTILINE)
    assert [line.split()[0] for line in lines] == list(get_args(FigureName))
    for line in lines:
        assert invoke("plot", *shlex.split(line)) == (0, ""), line
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "curves.pdf", "spectra.svg", "forecast-again.gif"}
    written = {path.name for path in (tmp_path / "runs/planet").iterdir()} - {path.name for path in finished_run.iterdir()}
    assert written <= {"regions.png", "ranks.png", "reliability.png", "tails.png", "targets.png", "maps.png", "plume.png"}
    assert "plume.png" in written


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
        (["maps", "--start", "soon"], "--start 'soon': expected a time such as 2020-01-31T06"),
        (["maps", "--lead-time", "2d"], "--lead-time 48h: not in"),
        (["maps", "--lead-time", "7h"], "--lead-time 7h: not in"),
        (["maps", "--lead-time", "0h"], "--lead-time '0h': expected a positive multiple of 1 h"),
        (["maps", "--lead-time=-6h"], "--lead-time '-6h': expected a positive multiple of 1 h"),
        (["maps", "--lead-time", "7.5h"], "--lead-time '7.5h': expected a positive multiple of 1 h"),
    ],
)
def test_mistakes_end_in_one_line(finished_run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    before = {path.name for path in finished_run.iterdir()}
    assert message in refused("plot", *arguments, "--run", str(finished_run))
    assert not list(tmp_path.iterdir())
    assert {path.name for path in finished_run.iterdir()} == before


@pytest.mark.parametrize(
    ("figure", "arguments", "message"),
    [
        ("plume", {"at": "52.5,13.4"}, "--at '52.5,13.4': expected latitude and longitude in degrees, such as (52.5, 13.4)"),
        ("plume", {"at": "52"}, "--at '52': expected latitude"),
        ("plume", {"at": (52.5,)}, "--at (52.5,): expected latitude"),
        ("plume", {"at": 52.5}, "--at 52.5: expected latitude"),
        ("plume", {"at": (52.5, None)}, "--at (52.5, None): expected latitude"),
        ("plume", {"at": (91, 0)}, "--at 91,0: expected a latitude from -90 to 90"),
        ("maps", {"lead_hours": "3d"}, "lead_hours '3d': expected a number of hours"),
        ("maps", {"start": 2001}, "--start '2001': expected a time such as 2020-01-31T06"),
    ],
)
def test_arguments_of_a_wrong_type_are_named(finished_run, tmp_path, figure, arguments, message):
    with pytest.raises(UserError) as error:
        wsdcast.plot(figure, run=finished_run, out=tmp_path / "a.png", **arguments)
    assert str(error.value).startswith(message)
    assert not list(tmp_path.iterdir())


def test_the_initial_time_may_be_a_time_of_numpy(finished_run, tmp_path):
    with open_store(finished_run / "forecast.zarr") as store:
        second = store["time"].values[1]
    summary = wsdcast.plot("maps", run=finished_run, out=tmp_path / "a.png", start=second)
    assert summary.facts["initial time"] == str(second.astype("datetime64[h]"))


def test_an_unknown_figure_is_named_with_the_known_ones(finished_run):
    with pytest.raises(UserError, match=r"figure 'curve': expected curves, regions, .*, animation"):
        wsdcast.plot("curve", run=finished_run)


def test_networks_whose_moments_are_a_model_of_the_user_are_not_drawn(tmp_path):
    """The message asked for an argument that the function does not have."""
    recipe = wsdcast.load_recipe("planet").changed(generator__prior="given")
    with pytest.raises(UserError, match="tails of the prior given cannot be drawn: its moments are a model of yours"):
        wsdcast.plot("tails", recipe, tmp_path)


def test_a_directory_is_not_replaced(finished_run, tmp_path):
    (tmp_path / "a.png").mkdir()
    assert "is a directory" in refused("plot", "curves", "--run", str(finished_run), "--out", str(tmp_path / "a.png"))


def test_mp4_without_ffmpeg_or_with_one_that_fails(finished_run, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    arguments = ("animation", "--run", str(finished_run), "--out", str(tmp_path / "a.mp4"))
    assert "a.mp4: an MP4 needs ffmpeg, which is not on the PATH" in refused("plot", *arguments)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ffmpeg").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "bin/ffmpeg").chmod(0o755)
    assert "ffmpeg cannot write it (exit code 3)" in refused("plot", *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


def test_a_missing_file_or_score_is_named(finished_run, tmp_path):
    with xr.open_dataset(finished_run / "scores.nc", decode_timedelta=True) as dataset:
        scores = dataset.load()
    empty = str(tmp_path / "empty")
    assert "scores.nc is not there; run `wsdcast score` first" in refused("plot", "curves", "--run", empty)
    assert "forecast.zarr is not there; run `wsdcast rollout` first" in refused("plot", "maps", "--run", empty)
    alone = tmp_path / "alone"  # scores without the forecast, as somebody sends them
    alone.mkdir()
    shutil.copy(finished_run / "scores.nc", alone)
    assert invoke("plot", "curves", "--run", str(alone))[0] == 0
    for name, message in ((None, "has no rank_histogram\n"), (np.nan, "could not be computed")):
        changed = scores.drop_vars("rank_histogram") if name is None else scores.assign(rank_histogram=name * scores["rank_histogram"])
        changed.to_netcdf(alone / "scores.nc")
        assert message in refused("plot", "ranks", "--run", str(alone))
    scores.drop_vars("reliability").to_netcdf(alone / "scores.nc")  # as of a forecast without that wind
    assert "has no reliability; it is of 10 m wind only" in refused("plot", "reliability", "--run", str(alone))
    (alone / "scores.nc").write_bytes(b"")
    assert "alone/scores.nc: cannot be read as scores (" in refused("plot", "curves", "--run", str(alone))
    scores.isel(region=0, drop=True).to_netcdf(alone / "scores.nc")  # as an older version wrote them
    assert "by region; it is of an older version, run `wsdcast score` again" in refused("plot", "curves", "--run", str(alone))


def test_scores_of_another_forecast_are_not_drawn(finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "run")
    wsdcast.rollout(run=tmp_path / "run", members=2, overwrite=True)
    assert f"run `wsdcast score --run {tmp_path / 'run'} --overwrite`" in refused("plot", "curves", "--run", str(tmp_path / "run"))


def test_statistics_alone_have_a_plume_and_no_maps(finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "run")
    wsdcast.rollout(run=tmp_path / "run", keep="statistics", overwrite=True)
    assert invoke("plot", "plume", "--at", "0,0", "--run", str(tmp_path / "run"))[0] == 0
    for figure in ("maps", "animation"):
        assert f"{figure} needs the members" in refused("plot", figure, "--run", str(tmp_path / "run"))
