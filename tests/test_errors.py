"""A mistake of the user ends in one line and exit code 2. Nothing is lost or left half-written."""

from __future__ import annotations

import gc
import json
import pickle
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import dask.multiprocessing  # noqa: F401  (lets tracebacks be pickled)
import numpy as np
import pytest
import torch.distributed
import xarray as xr
from commands import invoke, refused
from conftest import TINY, new_run, six_hourly, wind_dataset
from typer.testing import CliRunner

import wsdcast
from wsdcast.cli import app
from wsdcast.data.variables import DEFAULT
from wsdcast.runs import processes
from wsdcast.runs.artefact import read_stamp, resolve
from wsdcast.runs.errors import UserError, first_line
from wsdcast.runs.names import FORECAST, GENERATOR
from wsdcast.weather.recipe import Recipe
from wsdcast.weather.stages.score import _stored


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory) -> Path:
    """Return a run directory after prepare and train."""
    run = new_run(prepared, tmp_path_factory.mktemp("trained"))
    assert invoke("train", "--run", str(run))[0] == 0
    return run


@pytest.mark.parametrize(
    ("error", "line"), [(ValueError("first\nsecond"), "first"), (EOFError(), "EOFError"), (OSError("\n below \n"), "below")]
)
def test_an_error_has_a_first_line_also_without_a_message(error, line):
    assert first_line(error) == line


@pytest.mark.parametrize("error", [UserError("no room"), FileNotFoundError(2, "not there", "run/analysis.zarr")])
def test_an_error_is_the_same_in_all_processes_and_keeps_no_frame_of_the_broadcast_alive(monkeypatch, error):
    """Those frames hold the process group. If its threads outlived the interpreter, they aborted a refused command now and then."""
    sent, groups = [], []

    def broadcast(message):
        group = torch.nn.Identity()  # an object of this frame, as the process group is
        groups.append(weakref.ref(group))
        if processes.is_first():
            sent.append(pickle.dumps(message))
        else:
            message[:] = pickle.loads(sent[0])

    def decide():
        try:
            raise KeyError
        except KeyError:
            raise error from None

    monkeypatch.setattr(torch.distributed, "broadcast_object_list", broadcast)
    monkeypatch.setattr(processes, "count", lambda: 2)
    gc.disable()
    try:
        for rank in (0, 1):
            monkeypatch.setattr(processes, "number", lambda rank=rank: rank)
            with pytest.raises(type(error)) as received:
                processes.decided(decide)
            assert (str(received.value), vars(received.value)) == (str(error), vars(error))
            del received
            assert groups[rank]() is None
    finally:
        gc.enable()
    assert len(groups) == 2


def grid(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    return np.linspace(90, -90, rows), 360 / columns * np.arange(columns)


def test_a_missing_file_is_refused(directory):
    assert "no such file" in refused("prepare", "--source", "nothing.nc")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ds: ds.rename(u10="t2m"), "has no 10 m wind u; looked for"),
        (lambda ds: ds.assign(v10=ds.v10.assign_attrs(units="m min-1")), "units 'm min-1'; expected m s-1"),
        (lambda ds: ds.isel(longitude=slice(0, 6)), "not a global grid"),
    ],
)
def test_files_without_global_wind_are_refused(directory, change, message):
    change(wind_dataset(six_hourly("2020-01-01", 40), *grid(7, 8))).to_netcdf(directory / "wind.nc")
    line = refused("prepare", "--source", "wind.nc", "--grid", "8x4")
    assert message in line
    assert "wind.nc" in line
    assert not (directory / "runs/planet/analysis.zarr").exists()


def test_a_record_too_short_to_split_is_refused(directory):
    wind_dataset(six_hourly("2020-01-01", 5), *grid(7, 8)).to_netcdf(directory / "wind.nc")
    assert "a record of 5 steps is too short" in refused("prepare", "--source", "wind.nc", "--grid", "8x4")


@pytest.mark.parametrize("option", ["--start 2001-01-01", "--end 2001-02-03", "--skip 2001-01-01"])
def test_times_for_the_simulated_planet_are_refused(directory, option):
    assert "the simulated planet has no start, end or skip; its length is data.days" in refused("prepare", *option.split())
    assert not (directory / "runs").exists()


def test_a_wrong_grid_is_named_before_the_recipes_are_compared(prepared):
    assert "grid '64': expected LONGITUDESxLATITUDES" in refused("prepare", "--run", str(prepared), "--grid", "64")


@pytest.mark.parametrize(("stage", "missing"), [("train", "analysis.zarr"), ("rollout", "analysis.zarr"), ("score", "analysis.zarr")])
def test_a_stage_without_its_input_names_the_stage_to_run_first(directory, stage, missing):
    line = refused(stage)
    assert f"runs/planet/{missing} is not there; run `wsdcast prepare` first" in line


def test_later_stages_name_the_stage_before(trained):
    assert "run `wsdcast rollout` first" in refused("score", "--run", str(trained))


def test_an_artefact_of_another_recipe_is_refused_and_kept(trained, directory):
    (directory / "other.yaml").write_text(TINY.replace("days: 30", "days: 31"))
    for stage in ("train", "rollout"):
        line = refused(stage, "--recipe", "other.yaml", "--run", str(trained))
        assert "made from another recipe (data.days: 30 there, 31 here)" in line
    before = (trained / "analysis.zarr/zarr.json").read_text()
    assert "--overwrite" in refused("prepare", "--recipe", "other.yaml", "--run", str(trained))
    assert (trained / "analysis.zarr/zarr.json").read_text() == before


def test_the_advice_for_another_recipe_names_the_first_stage_to_make_again(trained, directory):
    """Repeating only the last stage would make nothing: its own sections have not changed."""
    run = shutil.copytree(trained, directory / "run")
    (directory / "other.yaml").write_text(TINY.replace("moments: {widths: [8, 8], steps: 4", "moments: {widths: [8, 8], steps: 5"))
    assert invoke("rollout", "--run", run)[0] == 0
    options = ("--run", run, "--recipe", "other.yaml")
    line = refused("score", *options)
    assert f"{run}/generator was made from another recipe (moments.steps: 4 there, 5 here)" in line
    assert f"; run `wsdcast train --run {run} --overwrite` " in line
    assert "with the same --recipe and -o as here, and so on with the commands after it, or leave out --recipe and -o" in line
    for stage in ("train", "rollout"):
        assert invoke(stage, *options, "--overwrite")[0] == 0
    assert invoke("score", *options)[0] == 0


def test_the_advice_for_networks_of_replaced_data_trains_new_ones(trained, directory):
    run = shutil.copytree(trained, directory / "run")
    assert invoke("prepare", "--run", run, "-o", "data.days=31", "--overwrite")[0] == 0
    line = refused("rollout", "--run", run)
    assert f"{run}/analysis.zarr was made from another recipe (data.days: 31 there, 30 here)" in line
    assert f", or run `wsdcast train --run {run} --overwrite` without --recipe and -o, or" in line
    for command in (("train", "--overwrite"), ("rollout",)):
        assert invoke(*command, "--run", run)[0] == 0
    assert read_stamp(run / GENERATOR)["recipe"]["data"]["days"] == 31


@pytest.mark.parametrize("options", [["generator.prior=standard"], ["generator.moments=joint"], ["generator.objective=none"]])
def test_a_run_with_one_network_says_what_is_of_another_recipe(prepared, directory, options):
    """The advice looked for what a fine-tuned network is made from: the last network but one, which there is not."""
    run = new_run(prepared, directory / "copy", TINY)
    arguments = ["--run", run, "--recipe", directory / "copy/tiny.yaml", *(word for option in options for word in ("-o", option))]
    assert invoke("train", *arguments)[0] == 0
    line = refused("rollout", *arguments, "-o", "seed=3")
    assert "was made from another recipe (seed: 0 there, 3 here); run `wsdcast train" in line


def test_training_again_without_its_options_says_that_they_are_missing(prepared, directory):
    run = new_run(prepared, directory / "copy")
    assert invoke("train", "--run", run, "-o", "moments.steps=3")[0] == 0
    line = refused("train", "--run", run)
    assert "(moments.steps: 3 there, 4 here); repeat the options that it was made with, such as -o, replace it with --overwrite, or" in line


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--members", "0", "--members: input should be greater than or equal to 2, not 0"),
        ("--nfe", "1", "nfe 1: the solver midpoint cannot make this number of evaluations; the nearest possible number is 2"),
        ("--nfe", "7", "nearest possible numbers are 6 and 8"),
        ("--starts", "0", "--starts: input should be greater than 0"),
        ("--lead", "-1", "--lead '-1': expected a positive multiple of 6 h, such as 12h or 10d"),
        ("--lead", "36500.25d", "--lead '36500.25d': expected at most 36500 d"),
        ("--lead", "300d", "no initial time in the test split has 7200 h of gap-free truth after it; shorten the forecast"),
    ],
)
def test_impossible_options_are_refused(trained, option, value, message):
    assert message in refused("rollout", "--run", str(trained), option, value)
    assert not (trained / "forecast.zarr").exists()


def test_an_impossible_grid_is_refused(directory):
    assert "grid '9x4': expected LONGITUDESxLATITUDES" in refused("prepare", "--grid", "9x4")
    assert "grid '5.625': expected LONGITUDESxLATITUDES" in refused("prepare", "-o", "data.grid=5.625")
    assert "grid 'large': expected LONGITUDESxLATITUDES" in refused("prepare", "--grid", "large")


def test_damaged_weights_are_refused(trained, directory):
    shutil.copytree(trained, directory / "run")
    (directory / "run/generator/weights.safetensors").write_bytes(b"not weights")
    line = refused("rollout", "--run", "run")
    assert "weights.safetensors: cannot be read as the weights of this recipe" in line
    assert line.endswith("; move run/generator away to have it made again\n")


def test_damaged_predictions_are_refused(trained, directory):
    """Of a large record they take hundreds of gigabytes, so somebody removes the file, or a copy ends early."""
    shutil.copytree(trained, directory / "run")
    shutil.rmtree(directory / "run/generator")
    file = directory / "run/predictions/moments.npy"
    whole = file.read_bytes()
    for content in (whole[:9000], whole[:6], b"", None):
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        line = refused("train", "--run", "run")
        assert line.startswith("wsdcast: run/predictions: cannot be read as predicted moments (")
        assert line.endswith("; move it away to have it made again\n")
    file.parent.rename(directory / "away")
    assert invoke("train", "--run", "run")[0] == 0
    assert file.read_bytes() == whole


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("10m_v_component_of_wind/c/0/0/0", None, "c/0/0/0 is missing"),  # it was read as calm
        ("10m_v_component_of_wind/c/0/0/0", lambda content: content[:200], "analysis.zarr/10m_v_component_of_wind: damaged ("),
        ("10m_v_component_of_wind/zarr.json", lambda content: content[:200], "analysis.zarr: cannot be read"),
        ("10m_v_component_of_wind/zarr.json", lambda content: b"[]", "analysis.zarr: cannot be read"),
        ("zarr.json", lambda content: content.replace(b'"test_from": "', b'"test_from": "x'), "analysis.zarr: cannot be read"),
        ("zarr.json", lambda content: content.replace(b'"normalisation": {', b'"normalisation": 7, "x": {'), "zarr: cannot be read"),
    ],
)
def test_a_damaged_record_is_refused(prepared, tmp_path, file, damage, message):
    run = new_run(prepared, tmp_path)
    path = run / "analysis.zarr" / file
    content = path.read_bytes()
    path.unlink()
    if damage is not None:
        assert damage(content) != content
        path.write_bytes(damage(content))
    assert message in refused("train", "--run", str(run))
    assert [path.name for path in run.iterdir()] == ["analysis.zarr"]


def test_a_record_damaged_after_training_is_refused(trained, directory):
    shutil.copytree(trained, directory / "run")
    file = directory / "run/analysis.zarr/10m_v_component_of_wind/c/0/0/0"
    file.write_bytes(file.read_bytes()[:200])
    assert "analysis.zarr/10m_v_component_of_wind: damaged (" in refused("rollout", "--run", "run", "--overwrite")


def test_a_record_that_lost_a_file_is_refused_by_score(finished_run, tmp_path):
    """What the file held was left out of the scores as truth that is missing."""
    shutil.copytree(finished_run, tmp_path / "run")
    (tmp_path / "run/scores.nc").unlink()
    (tmp_path / "run/analysis.zarr/10m_v_component_of_wind/c/0/0/0").unlink()
    assert "the file c/0/0/0 is missing" in refused("score", "--run", str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("store", "array", "command"),
    [
        ("forecast.zarr", "10m_u_component_of_wind", ["plot", "maps"]),
        ("forecast.zarr", "10m_u_component_of_wind", ["plot", "plume", "--at", "0,0"]),
        ("forecast.zarr", "10m_u_component_of_wind", ["plot", "animation"]),
        ("forecast.zarr", "10m_u_component_of_wind", ["score"]),
        ("past_errors_forecast.zarr", "crps_fair", ["score"]),
        ("past_errors_forecast.zarr", "10m_u_component_of_wind_std", ["score"]),
    ],
)
def test_a_damaged_forecast_is_named(finished_run, tmp_path, store, array, command):
    shutil.copytree(finished_run, tmp_path / "run")
    (tmp_path / "run/scores.nc").unlink()
    damaged = [path for path in (tmp_path / "run" / store / array / "c").rglob("*") if path.is_file()]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:20])
    message = refused(*command, "--run", str(tmp_path / "run"))
    assert f"run/{store}: " in message
    assert "damaged (Zstd" in message or "cannot be read (Zstd" in message


def test_stored_scores_take_the_headline_of_the_recipe_and_stay_only_if_they_are_of_this_forecast(finished_run, tmp_path, without_report):
    shutil.copytree(finished_run, tmp_path / "run")
    recipe, run = resolve(None, tmp_path / "run", Recipe, FORECAST)
    computed = xr.load_dataset(run / "scores.nc", decode_timedelta=True)
    summary = wsdcast.score(recipe.changed(score__headline=DEFAULT[1]), run)
    stored = xr.load_dataset(run / "scores.nc", decode_timedelta=True)
    assert stored.attrs["headline"] == DEFAULT[1]
    xr.testing.assert_identical(stored.drop_attrs(), computed.drop_attrs())
    shown = computed["rmse"].sel(variable=DEFAULT[1], region="globe", forecast="wsdcast")
    assert [row["rmse"] for row in summary.scores] == shown.values.tolist()

    with pytest.raises(UserError, match=r"score\.headline: nothing was not scored, only 10m_u"):
        wsdcast.score(recipe.changed(score__headline="nothing"), run)
    record = computed.attrs["record"]
    without = computed.drop_sel(forecast="moments, past errors")
    of_older = (computed.assign_attrs(record="fewer states"), computed.drop_vars("pairs"), without)
    for scores, is_kept in ((computed, True), *((scores, False) for scores in of_older)):
        scores.to_netcdf(run / "scores.nc")
        assert (_stored(run / "scores.nc", record, True) is not None) == is_kept
    metadata = json.loads((run / "forecast.zarr/zarr.json").read_text())
    stamp = json.loads(metadata["attributes"]["wsdcast"])
    metadata["attributes"]["wsdcast"] = json.dumps(stamp | {"id": "of other networks"})
    (run / "forecast.zarr/zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(UserError, match=r"scores.nc was made from other inputs .forecast.zarr changed since"):
        wsdcast.score(run=run)


@pytest.mark.parametrize("command", [["rollout"], ["score", "--overwrite"], ["plot", "maps"], ["plot", "animation"]])
def test_damaged_metadata_of_a_forecast_are_named(finished_run, tmp_path, command):
    shutil.copytree(finished_run, tmp_path / "run")
    metadata = tmp_path / "run/forecast.zarr/zarr.json"
    metadata.write_text(metadata.read_text().replace('"data_type": "float32"', '"data_type": "flood32"'))
    assert "run/forecast.zarr: cannot be read (" in refused(*command, "--run", str(tmp_path / "run"))


def test_a_full_disk_is_noticed_before_the_work_begins(directory, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    (directory / "tiny.yaml").write_text(TINY)
    assert "on disk, but only 1 bytes are free" in refused("prepare", "--recipe", "tiny.yaml")
    assert not list((directory / "runs/tiny").glob("*"))


@pytest.mark.slow
def test_a_full_disk_while_the_record_is_written_leaves_nothing(directory):
    """A limit on the size of files replaces the full disk. The system refuses the write in the middle of the store."""
    (directory / "tiny.yaml").write_text(TINY)
    script = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        "from wsdcast.cli import app\n"
        "app(['prepare', '--recipe', 'tiny.yaml'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=directory)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("wsdcast: ")
    assert done.stderr.count("\n") == 1
    assert "File too large" in done.stderr
    assert not (directory / "runs/tiny/analysis.zarr").exists()
    assert invoke("prepare", "--recipe", "tiny.yaml")[0] == 0  # with enough space it continues, and leaves only the store
    assert [path.name for path in (directory / "runs/tiny").iterdir()] == ["analysis.zarr"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["train", "score"])
def test_a_full_disk_in_a_later_stage_leaves_no_artefact(trained, directory, stage):
    """Weights and scores are written by libraries that raise other errors. These end in one line too."""
    shutil.copytree(trained, directory / "run")
    if stage == "score":
        assert invoke("rollout", "--run", "run")[0] == 0
    else:
        shutil.rmtree(directory / "run/generator")
    script = (
        "import resource, signal\n"
        "from wsdcast.cli import app\n"
        "import wsdcast; wsdcast.train, wsdcast.score\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        f"app(['{stage}', '--run', 'run'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=directory)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("wsdcast: ")
    assert "Traceback" not in done.stderr
    names = {path.name for path in (directory / "run").iterdir()}
    assert not names & {"generator" if stage == "train" else "scores.nc"}
    # An unfinished training stays, so that it can continue. This one has not reached its first checkpoint.
    assert [name for name in names if "partial" in name] == ([".generator.partial"] if stage == "train" else [])
    assert not list((directory / "run").rglob(".generator.partial/checkpoints/*/*"))


def test_replaced_source_files_are_noticed(directory):
    """Neither the record nor what was computed from it counts as current."""
    wind = wind_dataset(six_hourly("2020-01-01", 60), *grid(7, 8))
    wind.to_netcdf(directory / "wind.nc")
    (directory / "r.yaml").write_text(TINY.replace("data: {grid: 16x8, days: 30}", "data: {source: wind.nc, grid: 8x4}"))
    for stage in ("prepare", "train"):
        assert invoke(stage, "--recipe", "r.yaml")[0] == 0
    (wind * 2).assign(u10=wind.u10 * 2).map(lambda v: v.assign_attrs(units="m s-1")).to_netcdf(directory / "new.nc")
    (directory / "new.nc").replace(directory / "wind.nc")
    assert "other inputs (the source files changed since)" in refused("prepare", "--recipe", "r.yaml")
    assert invoke("prepare", "--recipe", "r.yaml", "--overwrite")[0] == 0
    assert "other inputs (analysis.zarr changed since)" in refused("rollout", "--recipe", "r.yaml")
    assert invoke("train", "--recipe", "r.yaml", "--overwrite")[0] == 0
    assert invoke("rollout", "--recipe", "r.yaml")[0] == 0


def test_debug_raises_the_error_itself(directory):
    result = CliRunner().invoke(app, ["prepare", "--source", "nothing.nc", "--debug"])
    assert isinstance(result.exception, UserError)


def test_stamps_are_json_with_the_recipe(trained):
    stamp = json.loads((trained / "generator/stamp.json").read_text())
    assert stamp["recipe"]["name"] == "tiny"
    assert len(stamp["hash"]) == len(stamp["id"]) == 16


def test_a_state_with_fewer_numbers_than_the_noise_of_the_objective_crps_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(
        TINY.replace("grid: 16x8", "grid: 4x3").replace("generator: {", "generator: {objective: crps, ").replace("nfe: 2", "nfe: 1")
    )
    wsdcast.prepare("r.yaml", "run")
    line = refused("train", "--run", "run")
    assert "data.grid 4x3: the objective crps needs states of at least 32 numbers, and these have 24" in line
    assert not Path("run/moments").exists()
