"""Tests of model files: a forecast from a file is that of the run it was written from, and a file that is not whole is refused."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from commands import invoke, refused
from conftest import TINY, six_hourly, wind_dataset
from safetensors.numpy import load, save
from typer.testing import CliRunner

import wsdcast
from wsdcast.cli import app
from wsdcast.data.grid import Grid
from wsdcast.data.regrid import regrid
from wsdcast.data.store.analysis import open_analysis
from wsdcast.data.store.zarr_store import SCALE
from wsdcast.data.variables import DEFAULT
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import PAST_ERRORS_FORECAST
from wsdcast.weather.forecast.initial_states import difference_in_words, initial_states
from wsdcast.weather.model_file import FIELDS, FORMAT, MODEL, SUMS, read_model
from wsdcast.weather.recipe import load_recipe
from wsdcast.weather.stages.forecast import forecast_steps

pytestmark = pytest.mark.usefixtures("without_animation")

RECIPE = TINY.replace("rollout:", "forcings: {static: [land_sea_mask], solar_time: true}\nrollout:")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Return a directory with a trained run, a model file of it, and its forecast from one initial time."""
    directory = tmp_path_factory.mktemp("trained")
    (directory / "tiny.yaml").write_text(RECIPE)
    wsdcast.prepare(directory / "tiny.yaml", directory / "run")
    wsdcast.train(directory / "tiny.yaml", directory / "run")
    wsdcast.export_model(directory / "run", directory / "tiny.wsd")
    wsdcast.rollout(run=directory / "run", start="2000-01-29T12", members=3)
    return directory


def forecast_of(run: Path) -> xr.Dataset:
    return xr.open_zarr(run / "forecast.zarr", decode_timedelta=True).load()[list(DEFAULT)]


def changed_entry(source: Path, target: Path, name: str, change) -> Path:
    """Write a model file with one changed entry and the digests that belong to it."""
    with zipfile.ZipFile(source) as file:
        entries = {info.filename: file.read(info) for info in file.infolist() if info.filename != SUMS}
    entries[name] = change(entries[name])
    entries[SUMS] = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in entries.items()).encode()
    with zipfile.ZipFile(target, "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return target


def edited(source: Path, target: Path, **values) -> Path:
    return changed_entry(source, target, MODEL, lambda content: json.dumps(json.loads(content) | values).encode())


@pytest.mark.parametrize("start", ["2000-01-29T12", None])
def test_a_forecast_from_the_file_has_the_bits_of_the_run(trained, tmp_path, start):
    record, model = trained / "run/analysis.zarr", trained / "tiny.wsd"
    shutil.copytree(record, tmp_path / "analyses.zarr")
    if start is None:  # a source that ends at this time, and a model whose own initial times are others
        recipe = json.loads(zipfile.ZipFile(model).read(MODEL))["recipe"]
        model = edited(model, tmp_path / "edited.wsd", recipe=recipe | {"rollout": recipe["rollout"] | {"start": "2000-01-25"}})
        times = xr.open_zarr(record, chunks=None).sel(time=slice("2000-01-20", "2000-01-29T12"))[list(DEFAULT)]
        shutil.rmtree(tmp_path / "analyses.zarr")
        times.drop_encoding().to_zarr(tmp_path / "analyses.zarr", consolidated=False)
    summary = wsdcast.rollout(model=model, initial=str(tmp_path / "analyses.zarr"), run=tmp_path / "run", start=start, members=3)
    xr.testing.assert_equal(forecast_of(tmp_path / "run"), forecast_of(trained / "run"))
    assert read_model(model).digest == summary.facts["sha256 of the model"]
    assert not (tmp_path / "run/past_errors_forecast.zarr").exists()
    # The source has later states in one case, and the summary said that it has none.
    reason = "only scores need it, and there are none: no later states are read with a model file"
    assert summary.facts["not written: past_errors_forecast.zarr"] == reason
    with xr.open_dataset(tmp_path / "run/initial_states.nc") as states, xr.open_zarr(record, chunks=None) as analyses:
        assert [str(time)[:13] for time in states["time"].values] == ["2000-01-29T06", "2000-01-29T12"]
        for name in DEFAULT:
            np.testing.assert_allclose(states[name].values, analyses[name].sel(time=states["time"]).values, rtol=1e-6)
    assert (tmp_path / "run/forecast.gif").exists()


@pytest.mark.slow
def test_the_forecast_is_verified_once_the_truth_exists(trained, tmp_path):
    source = str(trained / "run/analysis.zarr")
    wsdcast.rollout(model=trained / "tiny.wsd", initial=source, start="2000-01-29T12", run=tmp_path / "run")
    result = CliRunner().invoke(app, ["score", str(tmp_path / "run"), "--truth", source])
    assert result.exit_code == 0, result.output
    wsdcast.score_forecast(str(tmp_path / "run/forecast.zarr"), source, tmp_path / "other")
    with xr.open_dataset(tmp_path / "run/scores.nc") as ours, xr.open_dataset(tmp_path / "other/scores.nc") as theirs:
        xr.testing.assert_identical(ours.drop_attrs(), theirs.drop_attrs())


@pytest.mark.parametrize(("year", "seen"), [("2000", True), ("1990", False)])
def test_a_time_before_the_training_was_not_seen_in_it(trained, tmp_path, year, seen):
    wind = xr.open_zarr(trained / "run/analysis.zarr", chunks=None)[list(DEFAULT)].isel(time=slice(2))
    times = [np.datetime64(f"{year}-01-03T{hour}", "ns") for hour in ("00", "06")]
    wind.attrs.clear()
    wind.drop_encoding().assign_coords(time=times).to_netcdf(tmp_path / "wind.nc")
    summary = wsdcast.rollout(model=trained / "tiny.wsd", initial=str(tmp_path / "wind.nc"), run=tmp_path / "run", members=2, days=0.25)
    assert ("seen in training" in summary.facts) == seen


def test_several_initial_times_and_a_second_call(trained, tmp_path):
    settings = {"model": trained / "tiny.wsd", "initial": str(trained / "run/analysis.zarr"), "run": tmp_path / "run", "members": 3}
    wsdcast.rollout(**settings, start="2000-01-29T06/2000-01-29T12/6h")
    two = forecast_of(tmp_path / "run")
    xr.testing.assert_equal(two.isel(time=[1]), forecast_of(trained / "run"))
    assert two.sizes["time"] == 2
    # The state at the later initial time is no truth for the forecast from the earlier one.
    assert not (tmp_path / "run" / PAST_ERRORS_FORECAST).exists()
    again = wsdcast.rollout(**settings, start="2000-01-29T06/2000-01-29T12/6h")
    assert "current: forecast.zarr" in again.facts
    with pytest.raises(UserError, match=r"was made from another recipe .rollout.start"):
        wsdcast.rollout(**settings, start="2000-01-29T06")


def test_one_initial_time_has_one_directory_however_it_is_written(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {"model": trained / "tiny.wsd", "initial": str(trained / "run/analysis.zarr"), "members": 2, "days": 0.25}
    for start in ("2000-01-29T12", "2000-01-29 12:00", "2000-01-29T14:00+02:00"):
        summary = wsdcast.rollout(**settings, start=start)
    assert summary.facts["current: forecast.zarr"] == "runs/tiny-2000-01-29T12/forecast.zarr"
    assert [path.name for path in Path("runs").iterdir()] == ["tiny-2000-01-29T12"]


def test_a_second_forecast_in_the_same_directory_waits_for_the_products_of_the_first(trained, tmp_path):
    """Both would write products.nc, and the one that is ready first would give its name to the half-written file of the other."""

    settings = {"members": 2, "days": 0.25, "nfe": None, "start": None, "seed": None}
    further = {"thresholds": None, "at": None, "overwrite": False}

    def steps():
        return forecast_steps(trained / "tiny.wsd", trained / "run/analysis.zarr", tmp_path / "run", None, settings, **further)

    first = steps()
    assert [next(first).stage for _ in range(2)] == ["rollout", "products"]
    (tmp_path / "run/products.nc").write_bytes(b"of the first")
    with pytest.raises(UserError, match=r"another wsdcast command is at work in"):
        list(steps())
    assert (tmp_path / "run/products.nc").read_bytes() == b"of the first"
    assert [summary.stage for summary in first] == ["forecast-page"]
    summaries = wsdcast.forecast(trained / "tiny.wsd", trained / "run/analysis.zarr", tmp_path / "run", members=2, days=0.25)
    assert [summary.stage for summary in summaries] == ["rollout", "products", "forecast-page"]


def test_other_initial_states_are_another_forecast(trained, tmp_path):
    times = six_hourly("2001-05-01", 4)
    wind_dataset(times, np.linspace(80, -80, 9), np.arange(0, 360, 20.0)).to_netcdf(tmp_path / "a.nc")
    wind_dataset(times, np.linspace(80, -80, 9), np.arange(0, 360, 20.0), seed=1).to_netcdf(tmp_path / "b.nc")
    settings = {"model": trained / "tiny.wsd", "run": tmp_path / "run"}
    wsdcast.rollout(**settings, initial=str(tmp_path / "a.nc"))
    with pytest.raises(UserError, match=r"made from other inputs .the model file or the initial states changed since"):
        wsdcast.rollout(**settings, initial=str(tmp_path / "b.nc"))
    before = forecast_of(tmp_path / "run")
    wsdcast.rollout(**settings, initial=str(tmp_path / "b.nc"), overwrite=True)
    assert (forecast_of(tmp_path / "run") != before).all().to_array().all()


@pytest.mark.parametrize("kind", ["forecasts", "means", "analyses"])
def test_what_is_odd_about_the_initial_states_is_said(trained, tmp_path, kind):
    wind = wind_dataset(six_hourly("2001-05-01", 4), np.linspace(80, -80, 9), np.arange(0, 360, 20.0))
    if kind == "forecasts":
        initial = wind["time"].values - np.timedelta64(6, "h")
        wind = wind.assign_coords(valid_time=("time", wind["time"].values), step=np.timedelta64(6, "h"), time=initial)
    elif kind == "means":
        for name in ("u10", "v10"):
            wind[name].attrs["cell_methods"] = "time: mean"
    wind.to_netcdf(tmp_path / "wind.nc")
    summary = wsdcast.rollout(model=trained / "tiny.wsd", initial=tmp_path / "wind.nc", run=tmp_path / "run", members=2, days=0.25)
    said = {
        "forecasts": f"1 of its files are forecasts, not analyses: {tmp_path / 'wind.nc'}",
        "means": "u10 is the mean over an interval (cell_methods), not the value at its time; "
        "v10 is the mean over an interval (cell_methods), not the value at its time",
    }
    assert summary.facts.get("notes") == said.get(kind)
    assert summary.facts["climate"].endswith("); the model was trained on planet")
    with xr.open_dataset(tmp_path / "run/initial_states.nc") as states:
        assert states.attrs.get("notes") == said.get(kind)


def test_initial_states_are_regridded_as_prepare_does(trained, tmp_path):
    times, latitude, longitude = six_hourly("2001-05-01", 5), np.linspace(90, -90, 19), np.arange(0, 360, 10.0)
    wind = wind_dataset(times, latitude, longitude)
    wind.to_netcdf(tmp_path / "wind.nc")
    file = read_model(trained / "tiny.wsd")
    recipe = file.recipe.changed(rollout__start="2001-05-01T12")
    states, _ = initial_states(file.record, recipe, str(tmp_path / "wind.nc"), tmp_path)
    np.testing.assert_array_equal(states.times, times[1:3])
    for channel, name in enumerate(("u10", "v10")):
        expected = regrid(wind[name].values[1:3], Grid(latitude, longitude), file.record.grid, "conservative")
        np.testing.assert_allclose(states.states[:][:, channel], expected, atol=SCALE / 2 + 1e-5)


def test_the_climates_are_named(trained, tmp_path):
    states = open_analysis(trained / "run/analysis.zarr")
    weights = np.broadcast_to(states.grid.area_weights[:, None], states.grid.shape)
    u = states.states[:][:, 0].astype(float)
    mean = np.average(u, weights=np.broadcast_to(weights, u.shape))
    std = np.sqrt(np.average((u - mean) ** 2, weights=np.broadcast_to(weights, u.shape)))
    assert 1 < states.std[0] < 10
    words = difference_in_words(states)
    assert words.startswith(f"u10 {mean:.1f} ± {std:.1f} m/s (training {states.mean[0]:.1f} ± {states.std[0]:.1f}), v10 ")
    names = ("10m_u_component_of_wind", "10m_v_component_of_wind", "2m_temperature", "total_precipitation_6hr", "geopotential@500")
    values = np.array([0, 1, 281.5, 0.0021, 40_000])[:, None, None] + np.zeros(states.grid.shape)
    values[..., ::2] += np.array([0, 0, 6, 0.0006, 98.0665])[:, None, None]  # the first of two columns, so that the std is half of this
    values[..., 1::2] -= np.array([0, 0, 6, 0.0006, 98.0665])[:, None, None]
    training = {"mean": np.array([0.1, 1, 273.15, 0.002, 55_200]), "std": np.array([9, 9, 12.5, 0.0005, 4903.325])}
    words = difference_in_words(replace(states, variables=names[:4], forcing_variables=names[4:], states=values[None], **training))
    assert words == (
        "of 5 channels, farthest from training are z_500 4079 ± 10 gpm (training 5629 ± 500), "
        "t2m 8 ± 6 °C (training 0 ± 12), total_precipitation_6hr 2.10 ± 0.60 mm (training 2.00 ± 0.50)"
    )


def test_a_forecast_of_another_model_or_of_other_initial_states_is_not_current(trained, directory):
    """The recipe and the initial times are the same."""
    wind = wind_dataset(six_hourly("2001-05-01", 4), np.linspace(80, -80, 9), np.arange(0, 360, 20.0))
    for name in ("wind.nc", "other.nc"):
        wind.to_netcdf(name)
        wind["u10"][-1, 3, 4] += 1
    name = "generator.safetensors"
    changed_entry(trained / "tiny.wsd", Path("tiny.wsd"), name, lambda content: save({k: 1.01 * v for k, v in load(content).items()}))
    settings = {"start": "2001-05-01T12/2001-05-01T18/6h", "members": 2, "days": 0.25}
    for first in (True, False):
        facts = wsdcast.rollout(model=trained / "tiny.wsd", initial="wind.nc", **settings).facts
        assert ("current: forecast.zarr" in facts) != first
    assert [path.name for path in Path("runs").iterdir()] == ["tiny-2001-05-01T12-2001-05-01T18-6h"]
    for model, initial in ((trained / "tiny.wsd", "other.nc"), ("tiny.wsd", "wind.nc")):
        with pytest.raises(UserError, match=r"forecast\.zarr was made from other inputs \(the model file or the initial states changed"):
            wsdcast.rollout(model=model, initial=initial, **settings)


def test_equal_models_are_equal_files_and_all_of_it_is_read_back(trained, tmp_path):
    wsdcast.export_model(trained / "run", tmp_path / "again.wsd")
    assert (tmp_path / "again.wsd").read_bytes() == (trained / "tiny.wsd").read_bytes()
    file, record = read_model(trained / "tiny.wsd"), open_analysis(trained / "run/analysis.zarr")
    assert file.record.grid == record.grid
    np.testing.assert_array_equal(file.record.mean, record.mean)
    np.testing.assert_array_equal(file.record.std, record.std)
    np.testing.assert_array_equal(file.record.difference_std, record.difference_std)  # it bounds the predicted standard deviation
    assert file.trained_from == record.times[0]
    np.testing.assert_array_equal(file.record.static["land_sea_mask"], record.static["land_sea_mask"])
    assert (file.record.validation_from, file.record.test_from) == (record.validation_from, record.test_from)
    for artefact in ("moments", "generator"):
        assert file.weights[artefact] == (trained / f"run/{artefact}/weights.safetensors").read_bytes()
    assert "2000-01-01T00 to 2000-01-24T18" in file.card
    assert "not scored" in file.card


def test_the_model_card_has_the_scores_of_the_run(trained, tmp_path):
    shutil.copytree(trained / "run", tmp_path / "run")
    for artefact in ("forecast.zarr", "past_errors_forecast.zarr"):
        shutil.rmtree(tmp_path / "run" / artefact, ignore_errors=True)
    wsdcast.rollout(run=tmp_path / "run", members=4, nfe=4, warmth=0.5)  # others than those of the recipe
    wsdcast.score(run=tmp_path / "run")
    wsdcast.export_model(tmp_path / "run", tmp_path / "scored.wsd")
    with xr.open_dataset(tmp_path / "run/scores.nc", decode_timedelta=True) as scores:
        crps = float(scores["crps_fair"].sel(variable="both", region="globe")[0, 0])
    file = read_model(tmp_path / "scored.wsd")
    assert f"Fair CRPS: {crps:.3f} at 6 h (m/s, u and v, 4 members), on the test split of its own record, sampled as above" in file.card
    assert "By default: 4 network evaluations per sample, solver midpoint, uniform times, warmth 0.5\n" in file.card
    assert (file.recipe.rollout.nfe, file.recipe.rollout.warmth, file.recipe.rollout.members) == (4, 0.5, 3)  # members as in the recipe
    wsdcast.rollout(run=tmp_path / "run", members=5, overwrite=True)
    summary = wsdcast.export_model(tmp_path / "run", tmp_path / "scored.wsd", overwrite=True)
    assert summary.facts["scores"].endswith("scores.nc is of another forecast or model")


def test_a_model_that_cannot_make_its_recipes_rollout_needs_another(trained, tmp_path):
    """The card had the scores of 4 evaluations, and every forecast from the file ended in an error about 1."""
    shutil.copytree(trained / "run", tmp_path / "run")
    for name in ("moments", "predictions", "generator", "forecast.zarr", "past_errors_forecast.zarr"):
        shutil.rmtree(tmp_path / "run" / name, ignore_errors=True)
    (tmp_path / "r.yaml").write_text(RECIPE.replace("nfe: 2", "nfe: 1"))
    wsdcast.train(tmp_path / "r.yaml", tmp_path / "run")
    line = refused("export-model", tmp_path / "run", tmp_path / "r.wsd")
    assert "cannot forecast with the settings of its recipe (rollout.nfe 1: the solver midpoint cannot make this number" in line
    assert "run `wsdcast rollout` with others first" in line
    assert not (tmp_path / "r.wsd").exists()
    wsdcast.rollout(run=tmp_path / "run", nfe=2)
    wsdcast.export_model(tmp_path / "run", tmp_path / "r.wsd")
    summary = wsdcast.rollout(model=tmp_path / "r.wsd", initial=str(trained / "run/analysis.zarr"), run=tmp_path / "new", days=0.25)
    assert summary.facts["evaluations"].startswith("2 of the generator")


def test_a_model_file_is_replaced_only_when_asked(trained, tmp_path):
    (tmp_path / "tiny.wsd").write_text("mine")
    line = refused("export-model", trained / "run", tmp_path / "tiny.wsd")
    assert "tiny.wsd: is there already; choose another name, or replace it with --overwrite" in line
    assert (tmp_path / "tiny.wsd").read_text() == "mine"
    assert invoke("export-model", trained / "run", tmp_path / "tiny.wsd", "--overwrite")[0] == 0
    assert (tmp_path / "tiny.wsd").read_bytes() == (trained / "tiny.wsd").read_bytes()
    summary = wsdcast.export_model(trained / "run", tmp_path / "tiny.wsd", overwrite=True)
    assert summary.facts["scores"] == "none; run `wsdcast score` first"


def test_one_network_of_both_travels_too(trained, tmp_path):
    shutil.copytree(trained / "run/analysis.zarr", tmp_path / "run/analysis.zarr")
    (tmp_path / "tiny.yaml").write_text(RECIPE.replace("generator: {", "generator: {moments: end-to-end, "))
    wsdcast.train(tmp_path / "tiny.yaml", tmp_path / "run")
    wsdcast.export_model(tmp_path / "run", tmp_path / "joint.wsd")
    wsdcast.rollout(run=tmp_path / "run", start="2000-01-29T12")
    wsdcast.rollout(model=tmp_path / "joint.wsd", initial=str(tmp_path / "run/analysis.zarr"), start="2000-01-29T12", run=tmp_path / "two")
    xr.testing.assert_equal(forecast_of(tmp_path / "two"), forecast_of(tmp_path / "run"))


def test_damaged_and_foreign_files_are_refused(trained, tmp_path):
    whole = (trained / "tiny.wsd").read_bytes()
    middle = len(whole) // 2
    files = {
        "no.wsd": (None, "is not there"),
        "cut.wsd": (whole[:middle], "cannot be read as a model file"),
        "bit.wsd": (whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :], "cannot be read as a model file"),
        "text.wsd": (b"a recipe", "cannot be read as a model file"),
    }
    for name, (content, message) in files.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        source = trained / "run/analysis.zarr"
        assert message in refused("rollout", "--model", tmp_path / name, "--initial", source, "--run", tmp_path / "x")
    with zipfile.ZipFile(tmp_path / "other.wsd", "w") as file:
        file.writestr("readme.txt", "hello")
    assert "not a model file" in refused("rollout", "--model", tmp_path / "other.wsd", "--initial", "x")
    with zipfile.ZipFile(tmp_path / "bomb.wsd", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model.json", "0" * 1000)
    assert "its entries are compressed" in refused("rollout", "--model", tmp_path / "bomb.wsd", "--initial", "x")
    assert not (tmp_path / "x").exists()


def test_a_digest_that_does_not_agree_is_refused(trained, tmp_path):
    with zipfile.ZipFile(trained / "tiny.wsd") as old, zipfile.ZipFile(tmp_path / "changed.wsd", "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info).replace(b'"tiny"', b'"tall"') if info.filename == MODEL else old.read(info))
    with pytest.raises(UserError, match="damaged or changed since it was written"):
        read_model(tmp_path / "changed.wsd")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": FORMAT + 1}, "written by a newer version"),
        ({"variables": [*DEFAULT, "2m_temperature"]}, "a model of .*2m_temperature"),
        ({"recipe": {"name": "tiny", "generator": {"unknown": 1}}}, ".*unknown"),
        ({"recipe": {"name": "tiny", "data": {"variables": ["fog"]}}, "variables": ["fog"]}, "data.variables: no variable 'fog'"),
        ({"recipe": []}, "not a model file that this version can read"),
        ({"format": "new"}, "not a model file that this version can read"),
    ],
)
def test_a_model_that_this_version_cannot_use_is_refused(trained, tmp_path, values, message):
    path = edited(trained / "tiny.wsd", tmp_path / "edited.wsd", **values)
    with pytest.raises(UserError, match=rf"^(recipe of )?{path}: {message}") as refusal:
        read_model(path)
    assert str(refusal.value).count(str(path)) == 1


@pytest.mark.parametrize("values", [np.ones(1, np.float32), np.ones((2, 1), np.float32), np.ones(2)])
@pytest.mark.parametrize("name", ["mean", "std"])
def test_a_model_whose_statistics_do_not_fit_its_variables_is_refused(trained, tmp_path, name, values):
    """One value would be that of both variables, and double precision ended in a traceback."""
    path = changed_entry(trained / "tiny.wsd", tmp_path / "edited.wsd", FIELDS, lambda content: save(load(content) | {name: values}))
    with pytest.raises(UserError, match=re.escape(f"{path}: a model of {', '.join(DEFAULT)}, with {name} {values.dtype} {values.shape}")):
        read_model(path)


def test_weights_that_do_not_fit_or_are_missing(trained, tmp_path):
    settings = {"initial": str(trained / "run/analysis.zarr"), "run": tmp_path / "run"}
    wide = json.loads(zipfile.ZipFile(trained / "tiny.wsd").read(MODEL))["recipe"]
    wide["generator"]["widths"] = [8, 16]
    with pytest.raises(UserError, match=r"generator.safetensors: cannot be read as the weights of this recipe"):
        wsdcast.rollout(model=edited(trained / "tiny.wsd", tmp_path / "wide.wsd", recipe=wide), **settings)
    joint = json.loads(zipfile.ZipFile(trained / "tiny.wsd").read(MODEL))["recipe"]
    joint["generator"]["moments"] = "joint"
    with pytest.raises(UserError, match="cannot be read as the weights"):
        wsdcast.rollout(model=edited(trained / "tiny.wsd", tmp_path / "joint.wsd", recipe=joint), **settings)


def test_options_that_do_not_fit(trained, tmp_path):
    model, source = trained / "tiny.wsd", trained / "run/analysis.zarr"
    assert "give the source of the initial states" in refused("rollout", "--model", model)
    assert "only with --model" in refused("rollout", "--initial", source)
    assert "give them with --start" in refused("rollout", "--model", model, "--initial", source, "--starts", 2)
    assert "has its own recipe" in refused("rollout", "--model", model, "--initial", source, "--recipe", "planet")
    with pytest.raises(UserError, match="has its own recipe"):
        wsdcast.rollout(load_recipe("planet"), model=model, initial=source)
    assert "fixes all of its recipe but" in refused("rollout", "--model", model, "--initial", source, "-o", "generator.widths=[4]")
    assert "has trained networks of its own" in refused("rollout", "--model", model, "--initial", source, "--run", trained / "run")
    assert "has no state at 2030-01-01T00; the" in refused("rollout", "--model", model, "--initial", source, "--start", "2030-01-01")
    assert "nothing can be scored" in refused("rollout", "--model", model, "--initial", source, "--score", "--run", tmp_path / "x")
    assert "is a directory; `wsdcast export-model RUN FILE.wsd`" in refused("rollout", "--model", trained / "run", "--initial", source)
    (tmp_path / "words.txt").write_text("no weather")
    assert refused("forecast", "--model", model, "--initial", tmp_path / "words.txt").count("words.txt") == 1
    assert "ends in .wsd" in refused("export-model", trained / "run", tmp_path / "model.zip")
    assert "run `wsdcast prepare` first" in refused("export-model", tmp_path, tmp_path / "model.wsd")


def test_the_list_of_places_is_not_replaced_by_the_table(trained, tmp_path):
    (tmp_path / "places.csv").write_text("name,latitude,longitude\nNome,64.5,-165.4\n")
    arguments = ["--model", trained / "tiny.wsd", "--initial", trained / "run/analysis.zarr", "--run", tmp_path]
    line = refused("forecast", *arguments, "--at", tmp_path / "places.csv", "--overwrite")
    assert "places.csv, which this command reads; choose another --run" in line
    assert [path.name for path in tmp_path.iterdir()] == ["places.csv"]


@pytest.mark.parametrize("start", ["2026-13-14", "tomorrow"])
@pytest.mark.parametrize("option", ["--start {}", "-o rollout.start={}"])
def test_today_offers_only_the_initial_times_that_it_takes(trained, tmp_path, option, start):
    arguments = ["--model", trained / "tiny.wsd", "--initial", "nowhere.nc", "--run", tmp_path / "run", *option.format(start).split()]
    line = refused("forecast", *arguments)
    assert line == f"wsdcast: --start '{start}': expected latest or a time such as 2020-01-31T06\n"


@pytest.mark.parametrize("option", ["--start", "-o"])
def test_today_has_one_initial_time(trained, tmp_path, option):
    start = "2001-05-01/2001-05-02/6h"
    arguments = ["--model", trained / "tiny.wsd", "--initial", "nowhere.nc", "--run", tmp_path / "run"]
    line = refused("forecast", *arguments, option, start if option == "--start" else f"rollout.start={start}")
    assert f"--start {start}: expected one initial time; `wsdcast rollout --model` takes several" in line
    assert not (tmp_path / "run").exists()


def test_a_source_without_wind_is_refused(trained, tmp_path):
    wind = wind_dataset(six_hourly("2001-05-01", 4), np.linspace(80, -80, 9), np.arange(0, 360, 20.0))
    wind[["u10"]].rename(u10="t2m").to_netcdf(tmp_path / "temperature.nc")
    arguments = ["rollout", "--model", trained / "tiny.wsd", "--initial", tmp_path / "temperature.nc", "--run", tmp_path / "run"]
    assert "has none of 10 m wind u, 10 m wind v" in refused(*arguments)
    assert not (tmp_path / "run").exists()


def test_a_source_without_two_states_6_h_apart(trained, tmp_path):
    wind_dataset(six_hourly("2001-05-01", 4)[::2], np.linspace(80, -80, 9), np.arange(0, 360, 20.0)).to_netcdf(tmp_path / "wind.nc")
    with pytest.raises(UserError, match=r"none of its 2 times .* is followed by one 6 h later"):
        wsdcast.rollout(model=trained / "tiny.wsd", initial=str(tmp_path / "wind.nc"), run=tmp_path / "run")


def test_a_bad_initial_state_is_named_without_options_of_other_commands(trained, tmp_path):
    wind = wind_dataset(six_hourly("2001-05-01", 4), np.linspace(80, -80, 9), np.arange(0, 360, 20.0))
    wind["u10"][-1, 3, 4] = np.nan
    wind.to_netcdf(tmp_path / "wind.nc")
    settings = {"model": trained / "tiny.wsd", "initial": tmp_path / "wind.nc", "run": tmp_path / "run"}
    with pytest.raises(UserError, match=r"missing or infinite .* at 2001-05-01T18; choose other initial times with --start$"):
        wsdcast.rollout(**settings)
    assert wsdcast.rollout(**settings, start="2001-05-01T12").written


@pytest.mark.parametrize("prior", ["climatology"])
def test_moments_that_are_no_network_do_not_travel(trained, tmp_path, prior):
    shutil.copytree(trained / "run/analysis.zarr", tmp_path / "run/analysis.zarr")
    wsdcast.train(trained / "tiny.yaml", tmp_path / "run", prior=prior)
    with pytest.raises(UserError, match="cannot travel"):
        wsdcast.export_model(tmp_path / "run", tmp_path / "model.wsd")


def test_the_planet_has_states_only_once_it_is_prepared(trained, tmp_path):
    """The message was that planet is no source, and none of planet, wb2, …"""
    with pytest.raises(UserError, match=r"^source 'planet': simulated; prepare a record of it and name its analysis.zarr$"):
        wsdcast.rollout(model=trained / "tiny.wsd", initial="planet", run=tmp_path / "run")
