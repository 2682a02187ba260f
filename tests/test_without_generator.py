"""The objective ``none``: forecasts of the moments network with its past errors, without a generator."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import xarray as xr
from commands import refused
from conftest import TINY, new_run
from rollouts import forecast_of
from safetensors.numpy import load, save
from test_model_file import changed_entry
from test_past_errors import without_validation

import wsdcast
from wsdcast.data.variables import DEFAULT
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import PAST_ERRORS_FORECAST
from wsdcast.runs.overrides import Overridden
from wsdcast.weather.forecast import origin
from wsdcast.weather.model_file import ERRORS, read_model
from wsdcast.weather.stages import export, train

pytestmark = pytest.mark.usefixtures("without_animation", "without_report")

RECIPE = TINY.replace("generator: {", "generator: {objective: none, ")


@pytest.fixture(scope="module")
def made(prepared, tmp_path_factory):
    """Return a directory with the recipe, its run directory after the rollout, and its model file. Tests must not change them."""
    directory = tmp_path_factory.mktemp("none")
    run = new_run(prepared, directory, RECIPE)
    summary = wsdcast.train(directory / "tiny.yaml", run)
    assert {path.rsplit("/", 1)[1] for path in summary.written} == {"moments"}
    assert "error" in summary.facts["moments, validation split"]
    wsdcast.rollout(run=run)
    wsdcast.export_model(run, directory / "tiny.wsd")
    return directory


def test_only_the_moments_network_is_trained_and_rolled_out(made):
    names = {path.name for path in (made / "run").iterdir() if not path.name.startswith(".")}
    assert names == {"analysis.zarr", "moments", "forecast.zarr", "forecast.gif"}
    summary = wsdcast.rollout(run=made / "run")
    assert summary.facts["evaluations"] == "0 of the generator, 1 of the moments model per sample"
    assert summary.facts["solver"] == "none; the moments network with noise from its past errors"
    assert summary.facts["current: forecast.zarr"]


def test_the_forecast_is_the_baseline_of_a_run_with_a_generator(trained_run):
    """Scores of the baseline, which is not stored, are those of a forecast of the same networks and noise."""
    wsdcast.rollout(run=trained_run)
    wsdcast.score(run=trained_run)
    with xr.open_dataset(trained_run / "scores.nc", decode_timedelta=True) as scores:
        baseline = scores.sel(forecast="moments, past errors", drop=True).load()
    refusal = refused("rollout", "--run", trained_run, "-o", "generator.objective=none")
    assert "generator.objective: flow there, none here" in refusal
    wsdcast.rollout(Overridden(None, {"generator.objective": "none"}), trained_run, overwrite=True)
    summary = wsdcast.score(run=trained_run, overwrite=True)
    assert summary.facts["evaluations"] == "0 of the generator per sample"
    with xr.open_dataset(trained_run / "scores.nc", decode_timedelta=True) as scores:
        assert "moments, past errors" not in scores["forecast"].values
        ours = scores.sel(forecast="wsdcast")
        for name in ("crps_fair", "rmse", "spread_skill", "power_deviation", "energy_score"):
            np.testing.assert_allclose(ours[name].values, baseline[name].values, rtol=1e-4, err_msg=name)
    assert (trained_run / "generator").exists()
    summary = wsdcast.export_model(trained_run, trained_run.parent / "tiny.wsd")
    assert "generator" not in read_model(trained_run.parent / "tiny.wsd").weights
    crps = float(ours["crps_fair"].sel(variable="both", region="globe").isel(prediction_timedelta=0))
    assert summary.facts["scores"].startswith(f"{crps:.3f} at 6 h")


def test_a_model_file_forecasts_the_same(made, tmp_path):
    assert "generator" not in read_model(made / "tiny.wsd").weights
    start = "2000-01-29T06"
    shutil.copytree(made / "run", tmp_path / "run")
    wsdcast.rollout(run=tmp_path / "run", start=start, overwrite=True)
    summary = wsdcast.rollout(model=made / "tiny.wsd", initial=made / "run/analysis.zarr", start=start, run=tmp_path / "other")
    assert summary.facts[f"not written: {PAST_ERRORS_FORECAST}"] == "the forecast itself is made so"
    for name in DEFAULT:
        np.testing.assert_array_equal(forecast_of(tmp_path / "other")[name].values, forecast_of(tmp_path / "run")[name].values)
    card = (tmp_path / "other/model-card.md").read_text()
    assert "By default: the moments network with noise from its past errors, no generator" in card
    assert "U-Nets with [8, 8] channels" in card


@pytest.mark.parametrize(
    "change",
    [
        lambda errors: errors[:, :, 1:],
        lambda errors: errors[:0],
        lambda errors: errors.astype(np.float64),
        lambda errors: np.concatenate([errors] * 100),
        lambda errors: np.where(np.arange(errors.size).reshape(errors.shape) == 7, np.float32(np.nan), errors),
    ],
)
def test_past_errors_that_cannot_be_used_are_refused(made, tmp_path, change):
    def changed(content: bytes) -> bytes:
        return save({"errors": np.ascontiguousarray(change(load(content)["errors"]))})

    path = changed_entry(made / "tiny.wsd", tmp_path / "changed.wsd", ERRORS, changed)
    with pytest.raises(UserError, match=r"changed.wsd: its past errors are not finite float32 fields \(error, 2, 8, 16\)"):
        read_model(path)


def test_without_a_validation_split_there_is_nothing_to_make_noise_from(made, tmp_path, monkeypatch):
    opened = origin.open_analysis
    monkeypatch.setattr(origin, "open_analysis", lambda *arguments, **options: without_validation(opened(*arguments, **options)))
    shutil.copytree(made / "run", tmp_path / "run")
    with pytest.raises(UserError, match=r"generator.objective none: .* on the validation split, and the record has none"):
        wsdcast.rollout(run=tmp_path / "run", days=0.25, overwrite=True)
    for module in (export, train):
        monkeypatch.setattr(module, "open_analysis", lambda *arguments, **options: without_validation(opened(*arguments, **options)))
    for stage in (lambda run: wsdcast.export_model(run, tmp_path / "model.wsd"), lambda run: wsdcast.train(made / "tiny.yaml", run)):
        with pytest.raises(UserError, match=r"generator.objective none: .* on the validation split, and the record has none"):
            stage(tmp_path / "run")
    assert not (tmp_path / "model.wsd").exists()


def test_a_forecast_of_a_model_file_needs_another_directory(made, tmp_path):
    shutil.copytree(made / "run", tmp_path / "run")
    options = ("--model", made / "tiny.wsd", "--initial", made / "run/analysis.zarr", "--run", tmp_path / "run", "--overwrite")
    assert "has trained networks of its own" in refused("rollout", *options)


def test_the_page_of_the_forecast_has_the_model_card(made, tmp_path):
    shutil.copytree(made / "run", tmp_path / "run")
    assert wsdcast.forecast_page(tmp_path / "run").facts["model card"] == "shown"


def test_a_generator_may_be_trained_later(made, tmp_path):
    """The moments network stays. The forecast of another objective is not replaced without --overwrite."""
    shutil.copytree(made / "run", tmp_path / "run")
    recipe = wsdcast.load_recipe(made / "tiny.yaml").changed(generator__objective="flow")
    stamp = json.loads((tmp_path / "run/moments/stamp.json").read_text())["id"]
    summary = wsdcast.train(recipe, tmp_path / "run")
    assert {path.rsplit("/", 1)[1] for path in summary.written} == {"predictions", "generator"}
    assert json.loads((tmp_path / "run/moments/stamp.json").read_text())["id"] == stamp
    with pytest.raises(UserError, match=r"generator.objective: none there, flow here"):
        wsdcast.rollout(recipe, tmp_path / "run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "-o", "generator.prior=standard"], "the objective none forecasts with the moments network alone: leave prior warm"),
        (["train", "-o", "generator.moments=joint"], "the objective none forecasts with the moments network alone: leave prior warm"),
        (["train", "-o", "fine_tune.steps=3"], "fine_tune.steps: the objective none has no generator to fine-tune; set it to 0"),
        (["rollout", "--nfe", "4", "--overwrite"], "--nfe: has no effect without a generator"),
        (["rollout", "--grid-in-time", "edm", "--overwrite"], "--grid-in-time: has no effect without a generator"),
        (["study", "nfe"], "a study compares generators"),
    ],
)
def test_what_needs_a_generator_is_refused(made, arguments, message):
    line = refused(*arguments, "--recipe", made / "tiny.yaml", "--run", made / "run")
    assert message in line


@pytest.mark.parametrize("command", ["rollout", "train"])
def test_benchmarks_are_of_a_generator(made, command):
    assert "this recipe has none" in refused("bench", command, "--recipe", made / "tiny.yaml")


def test_a_variant_of_a_study_has_a_generator(made):
    overrides = ["-o", "generator.objective=flow", "-o", "study.variants={plain: {generator.objective: none}}"]
    line = refused("study", "nfe", "--recipe", made / "tiny.yaml", "--run", made / "run", *overrides)
    assert "a study compares generators" in line


def test_the_model_file_does_not_depend_on_the_settings_of_torch(made, tmp_path):
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            wsdcast.export_model(made / "run", tmp_path / "tiny.wsd")
    finally:
        torch.set_default_dtype(torch.float32)
    assert (tmp_path / "tiny.wsd").read_bytes() == (made / "tiny.wsd").read_bytes()
