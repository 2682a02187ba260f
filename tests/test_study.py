"""The study of priors and solvers: equal cost, nothing computed twice, intervals, and the choice of a solver by it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from conftest import new_run
from small_training import WIND
from typer.testing import CliRunner

import wsdcast
from wsdcast.cli import app
from wsdcast.data.store.analysis import open_analysis
from wsdcast.nets.weights import load_network
from wsdcast.runs.artefact import read_stamp, resolve
from wsdcast.runs.errors import UserError
from wsdcast.study.evaluation import evaluate
from wsdcast.study.weather_variants import moments_cost, variant_of
from wsdcast.training.predictions import folds, predict
from wsdcast.verification.kernels import fair_crps, ranked
from wsdcast.verification.kinetic_energy import kinetic_energy_metrics
from wsdcast.verification.scoring import statistics_of
from wsdcast.weather.forcings import forcings_of
from wsdcast.weather.forecast.noise import member_noise
from wsdcast.weather.networks import moments_model
from wsdcast.weather.recipe import Recipe, load_recipe
from wsdcast.weather.samplers import sampler_of
from wsdcast.weather.samples import Samples, samples_of
from wsdcast.weather.solver_choice import without_auto
from wsdcast.weather.trained import trained

RECIPE = """
name: tiny
data: {grid: 16x8, days: 30}
moments: {widths: [8, 8], steps: 4, batch: 4}
generator: {widths: [8, 8], steps: 6, batch: 4}
rollout: {members: 3, nfe: 4, starts: 2, days: 0.5}
study: {seeds: [0, 1], priors: [warm, standard], ablations: [features-only], nfe: [2, 4], rollout_nfe: [4],
        members: 3, starts: 3, rollout_starts: 2, leads: [6, 12]}
"""


@pytest.fixture(scope="module")
def studied(prepared, tmp_path_factory) -> Path:
    """Return a directory with the recipe, and its run directory after the study. Tests must not change it."""
    directory = tmp_path_factory.mktemp("study")
    run = new_run(prepared, directory, RECIPE)
    wsdcast.study_nfe(directory / "tiny.yaml", run)
    return directory


@pytest.fixture(scope="module")
def study(studied) -> xr.Dataset:
    with xr.open_dataset(studied / "run/study.nc", decode_timedelta=True) as dataset:
        return dataset.load()


def test_a_study_has_every_setting_once(study):
    settings = sorted(zip(study["prior"].values.tolist(), study["nfe"].values.tolist(), strict=True))
    expected = [(prior, nfe) for prior in ("features-only", "standard", "warm") for nfe in (2, 4)]
    assert settings == sorted([*expected, ("moments, past errors", 0)])
    assert study.attrs["reference"] == "the standard prior with 4 evaluations (midpoint, uniform times)"
    scored = study.isel(setting=np.isfinite(study["crps"].values[:, -1]))
    rolled = set(zip(scored["prior"].values.tolist(), scored["nfe"].values.tolist(), strict=True))
    assert rolled == {("warm", 4), ("standard", 4), ("moments, past errors", 0)}


def test_scores_are_means_over_seeds_and_initial_times(studied, study):
    """Compute one setting from its networks without the study, with the same initial times and noise."""
    crps, others = [], []
    for seed in (0, 1):
        directory = studied / f"run/study/warm-{seed}"
        recipe = load_recipe(studied / "tiny.yaml").changed(seed=seed, rollout__nfe=2)
        record = open_analysis(directory / "analysis.zarr")
        networks = trained(recipe, directory, record)
        weights = record.grid.area_weights[:, None] / record.grid.area_weights.mean()
        for start in record.starts(3, 1):
            states = torch.from_numpy(record.normalise(record.states[[start, start - 1]])).reshape(1, 4, 8, 16).expand(3, -1, -1, -1)
            with torch.inference_mode():
                state = sampler_of(networks, recipe.rollout)(states, next(member_noise(0, record.times[[start]], 3, 1, (2, 8, 16))))
            members, truth = record.denormalise(state.numpy()), record.states[start + 1]
            crps.append((fair_crps(ranked(members, truth)) * weights).mean())
            others.append(statistics_of(members[:, None], truth[None], record.grid).sel(region="globe").isel(prediction_timedelta=0))
    stored = study.isel(setting=((study["prior"] == "warm") & (study["nfe"] == 2)).values.argmax())
    assert stored["crps_6h"] == pytest.approx(np.mean(crps), rel=1e-4)
    mean = xr.concat(others, dim="seed").mean("seed").sel(variable=list(record.variables)).mean("variable")
    for name in ("energy_score", "rank_histogram", "variogram_score"):
        np.testing.assert_allclose(stored[f"{name}_6h"], mean[name], rtol=1e-4)
    by_seed = (xr.concat(others[first:][:3], dim="time").mean("time") for first in (0, 3))
    energy = [kinetic_energy_metrics(of_seed).sel(part="total") for of_seed in by_seed]
    for name, metric in (("kinetic_energy_ratio", "kinetic_energy_ratio"), ("kinetic_energy_deviation", "kinetic_energy_deviation_mean")):
        np.testing.assert_allclose(stored[f"{name}_6h"], np.mean([of_seed[metric] for of_seed in energy], axis=0), rtol=1e-3)


@pytest.fixture
def copy(studied, tmp_path, without_study_page) -> Path:
    """Return a copy of the directory with the study, for one test."""
    shutil.copytree(studied, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"


def test_a_larger_study_computes_only_what_is_new(copy):
    before = {path: path.stat().st_mtime_ns for path in (copy / "run/study").rglob("*.nc")}
    assert len(before) == 2 * 3 * 2 * 2 + 2 * 2 + 2 * 2  # one step of each on both splits; forecasts of two priors; past errors
    summary = wsdcast.study_nfe(copy / "tiny.yaml", copy / "run", solvers=["midpoint", "ab2"])
    after = {path: path.stat().st_mtime_ns for path in (copy / "run/study").rglob("*.nc")}
    assert {path: after[path] for path in before} == before
    assert len(after) == len(before) + 2 * 3 * 2 * 2 + 2 * 2
    assert {row["solver"] for row in summary.scores} == {"midpoint", "ab2", ""}


def test_a_killed_study_continues_to_the_same_scores(studied, copy):
    """Also where a file was left empty or was cut short, as after a loss of power."""
    missing, empty, cut = sorted((copy / "run/study").rglob("one-step*.nc"))[:3]
    missing.unlink()
    empty.write_bytes(b"")
    cut.write_bytes(cut.read_bytes()[:1000])
    (copy / "run/study.nc").unlink()
    wsdcast.study_nfe(copy / "tiny.yaml", copy / "run")
    with xr.open_dataset(copy / "run/study.nc") as again, xr.open_dataset(studied / "run/study.nc") as first:
        xr.testing.assert_identical(again.drop_attrs(), first.drop_attrs())


def test_priors_of_a_seed_share_one_moments_network(studied):
    for seed in (0, 1):
        real, linked = (studied / f"run/study/{prior}-{seed}/moments" for prior in ("warm", "features-only"))
        assert linked.is_symlink()
        assert linked.resolve() == real.resolve()
    assert not (studied / "run/study/standard-0/moments").exists()


def test_all_priors_cost_the_same_to_train(studied):
    recipe = load_recipe(studied / "tiny.yaml").changed(moments__folds=2)
    record = open_analysis(studied / "run/analysis.zarr")
    ratio, extra = moments_cost(recipe, record)
    assert 0.5 < ratio < 1
    # The network and two folds train on the same batches. Each of the 94 samples is predicted twice, at a third of a training step.
    assert extra == round((3 * recipe.moments.steps + 2 * 94 / 3 / 4) * ratio)
    # A step of three batches has three times the samples.
    several = recipe.changed(moments__accumulate=3, generator__accumulate=2)
    assert moments_cost(several, record)[1] == round((3 * recipe.moments.steps * 3 / 2 + 2 * 94 / 3 / 8) * ratio)
    for prior in ("standard", "climatology"):
        assert variant_of(recipe, record, (ratio, extra), prior)[0].generator.steps == recipe.generator.steps + extra
    for prior in ("warm", "features-only", "mean-only"):
        assert variant_of(recipe, record, (ratio, extra), prior)[0].generator.steps == recipe.generator.steps
    both = recipe.changed(moments__folds=0, generator__moments="joint")
    steps = {prior: variant_of(both, record, (ratio, extra), prior)[0].generator.steps for prior in ("warm", "standard")}
    assert steps == {"warm": recipe.generator.steps, "standard": round(recipe.generator.steps * (1 + ratio))}


def test_the_page_loads_nothing_and_shows_the_hash_of_the_recipe(studied, study):
    page = (studied / "run/study.html").read_text()
    warm = study.isel(setting=((study["prior"] == "warm") & (study["nfe"] == 4)).values.argmax())
    cells = [f"<td>{value:.{digits}f}</td>" for name, digits in (("crps", 3), ("spread_skill", 2)) for value in warm[name].values]
    assert f"<td>warm</td><td>4</td>{''.join(cells)}" in page
    assert study.attrs["recipe_hash"] in page
    assert not re.search(r"https?:(?!//www\.w3\.org)", page)
    for text in ("Saturates at", "data:image/png;base64,", "features-only", "bootstrap"):
        assert text in page


def test_the_command_takes_lists_and_refuses_impossible_ones(copy, monkeypatch):
    monkeypatch.chdir(copy)
    command = ["study", "nfe", "--recipe", "tiny.yaml", "--run", "run"]
    fewer = ["--nfe", "2,3", "--ablations", "", "--seeds", "0", "--rollout-nfe", ""]
    done = CliRunner().invoke(app, [*command, *fewer, "--json"])
    assert done.exit_code == 0, done.stderr
    summary = json.loads(done.stdout)
    assert {row["nfe"] for row in summary["scores"]} == {0, 2}
    assert summary["facts"]["left out: midpoint"] == "3 evaluations, which it cannot make exactly"
    table = CliRunner().invoke(app, [*command, "--nfe", "2", "--solvers", "midpoint,ab2"]).stdout
    assert "…" not in table  # nothing is cut off in 80 columns
    assert re.search(r"features-only +2 +\d\.\d{4} .* (midpoint|ab2)", table)
    for option, value, message in (
        ("--nfe", "two", "wsdcast: --nfe: input should be a valid integer, unable to parse string as an integer, not 'two'\n"),
        ("--priors", "warmer", "--priors: input should be 'warm', 'standard', "),
        ("--leads", "7", "multiples of 6"),
        ("--warmths", "2", "less than or equal to 1"),
        ("--nfe", "", "at least one value"),
        ("--nfe", "3", "nothing to study: nfe 3: the solver midpoint cannot"),
        ("--rollout-nfe", "8", "wsdcast: --rollout-nfe: 8 not in nfe\n"),
        ("--solvers", "auto", "name the solvers"),
        ("--leads", "6,6000", "no initial time in the test split"),
    ):
        done = CliRunner().invoke(app, [*command, option, value])
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.stderr
        assert message in done.stderr


def test_auto_chooses_the_best_solver_of_the_study(copy):
    recipe, directory = resolve(copy / "tiny.yaml", copy / "run", Recipe, rollout__solver="auto", rollout__nfe=4)
    wsdcast.study_nfe(copy / "tiny.yaml", copy / "run", solvers=["ab3", "euler"], grids_in_time=["quadratic"], nfe=[4, 5], rollout_nfe=[])
    with xr.open_dataset(directory / "study.nc") as dataset:
        best = dataset.isel(setting=((dataset["prior"] == "warm") & (dataset["nfe"] == 4) & dataset["best"]).values)
        assert best.sizes["setting"] == 1
        name = str(best["solver"].values[0])
    chosen = without_auto(recipe, directory).rollout
    assert (chosen.solver, chosen.grid_in_time) == (name, "quadratic")
    # Without a result in the study, the built-in table decides.
    with pytest.raises(UserError, match="study nfe"):  # the study is of another recipe
        without_auto(recipe.changed(moments__steps=5), directory)
    standard = without_auto(recipe.changed(generator__prior="standard"), directory).rollout  # the same study includes this prior
    assert standard.grid_in_time == "quadratic"
    table = {nfe: without_auto(recipe.changed(rollout__nfe=nfe), directory).rollout for nfe in (7, 8)}
    assert (table[7].solver, table[7].grid_in_time) == ("ab2", "uniform")
    assert (table[8].solver, table[8].grid_in_time) == ("midpoint", "uniform")


def test_foreign_moments_train_and_roll_out(prepared, tmp_path):
    """The moments come from a plain function: the state now as mean, and a constant std."""
    run = new_run(prepared, tmp_path, RECIPE)
    for wrong, message in (
        (lambda context: context, "must return mean and std, each a tensor of shape"),
        (lambda context: (context[:, :2], 0 * context[:, :2]), "not positive"),
    ):
        with pytest.raises(UserError, match=message):
            wsdcast.train(tmp_path / "tiny.yaml", run, prior="given", moments=wrong)
    context_shapes = []

    def persistence(context):
        context_shapes.append(tuple(context.shape[1:]))
        return context[:, :2], torch.full_like(context[:, :2], 0.4)

    with pytest.raises(UserError, match="as moments=MODEL"):
        wsdcast.train(tmp_path / "tiny.yaml", run, prior="given")
    wsdcast.train(tmp_path / "tiny.yaml", run, prior="given", moments=persistence)
    assert set(context_shapes) == {(4, 8, 16)}
    assert not (run / "moments").exists()
    with pytest.raises(UserError, match="as moments=MODEL"):
        wsdcast.rollout(run=run)
    wsdcast.rollout(run=run, moments=persistence)
    with xr.open_zarr(run / "past_errors_forecast.zarr") as alone:
        record = open_analysis(run / "analysis.zarr")
        start = record.starts(2, 2)[0]
        noise = next(member_noise(0, record.times[[start]], 3, 1, (2, 8, 16))).numpy()
        past = record.now("validation")
        errors = (record.states[past + 1] - record.states[past])[:, 0] / (0.4 * record.std[0])
        assert 3 < past.size < 100
        structured = np.tensordot(noise.reshape(3, -1)[:, : past.size], errors, axes=1) / past.size**0.5
        members = record.states[start][0] + 0.4 * record.std[0] * structured
        expected = (fair_crps(ranked(members, record.states[start + 1][0])) * record.grid.area_weights[:, None]).mean()
        first = {"prediction_timedelta": 0, "time": 0}
        crps = alone["crps_fair"].isel(first).sel(variable="10m_u_component_of_wind", region="globe")
        assert float(crps) == pytest.approx(expected, rel=1e-4)
    assert "moments, past errors" in {key.removeprefix("crps_fair: ") for key in wsdcast.score(run=run).scores[0]}


def test_a_study_of_foreign_moments_has_priors_that_do_not_read_them(prepared, tmp_path, without_study_page):
    def model(context):
        return context[:, :2] + 0.5, torch.full_like(context[:, :2], 0.4)

    run = new_run(prepared, tmp_path, RECIPE)
    few = {"seeds": [0], "ablations": [], "nfe": [2], "rollout_nfe": [], "starts": 2, "leads": [6]}
    wsdcast.study_nfe(tmp_path / "tiny.yaml", run, priors=["standard", "given"], moments=model, **few)
    for prior in ("standard", "given"):
        assert (run / f"study/{prior}-0/generator").is_dir()
    with xr.open_dataset(run / "study.nc") as study:
        assert study["prior"].values.tolist() == ["standard", "given"]
        assert np.isfinite(study["crps_6h"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("moments", ["joint", "end-to-end"])
def test_networks_trained_together_are_one_artefact(prepared, tmp_path, moments):
    run = new_run(prepared, tmp_path, RECIPE)
    recipe = load_recipe(tmp_path / "tiny.yaml").changed(generator__moments=moments)
    wsdcast.train(recipe, run)
    assert not (run / "moments").exists()
    wsdcast.rollout(run=run, solver="auto")
    assert wsdcast.score(run=run).scores
    # The moments with past errors belong to the trained pair. With another pair they are rolled out again.
    other = load_recipe(tmp_path / "tiny.yaml").changed(generator__moments=moments, generator__steps=7)
    wsdcast.train(other, run, overwrite=True)
    assert "current: past_errors_forecast.zarr" not in wsdcast.rollout(run=run, overwrite=True).facts


def test_folds_are_contiguous_and_trained_without_themselves_and_their_neighbours():
    parts = folds(10, 3, 2)
    assert [inside.tolist() for _, inside in parts] == [[0, 1, 2], [3, 4, 5], [6, 7, 8, 9]]
    assert [outside.tolist() for outside, _ in parts] == [[5, 6, 7, 8, 9], [0, 8, 9], [0, 1, 2, 3]]


def test_folds_predict_samples_that_they_were_not_trained_on(prepared, tmp_path, monkeypatch):
    run = new_run(prepared, tmp_path, RECIPE)
    recipe = load_recipe(tmp_path / "tiny.yaml").changed(moments__folds=3, moments__dropout=0.5)
    trained_on: list[list[int]] = []
    subset = Samples.subset
    monkeypatch.setattr(Samples, "subset", lambda samples, indices: trained_on.append(indices.tolist()) or subset(samples, indices))
    summary = wsdcast.train(recipe, run)
    assert "out of fold" in str(list(summary.facts))
    names = {path.name for path in (run / "moments").glob("*.safetensors")}
    assert names == {"weights.safetensors", "fold-0.safetensors", "fold-1.safetensors", "fold-2.safetensors"}
    record = open_analysis(run / "analysis.zarr")
    predicted = np.load(run / "predictions/moments.npy")
    parts = folds(len(predicted), 3, 2)
    assert trained_on == [outside.tolist() for outside, _ in parts]
    (samples,) = samples_of(record, forcings_of(record, recipe.forcings, torch.device("cpu")), "train")
    for number, (_, inside) in enumerate(parts):
        network = load_network(moments_model(recipe.moments, WIND), run / "moments", f"fold-{number}")
        np.testing.assert_allclose(predicted[inside], predict(network, samples, inside), atol=1e-5)
    # The std was scaled so that the standardised errors of the predictions are 1 in each channel. Dropout would change that.
    truth = record.normalise(record.states[:])[record.now("train") + 1]
    weights = record.grid.area_weights[:, None] / record.grid.area_weights.mean()
    ratio = (((truth - predicted[:, 0]) / predicted[:, 1]) ** 2 * weights).mean(axis=(0, 2, 3))
    np.testing.assert_allclose(ratio, 1, rtol=1e-3)


def test_dropout_stays_on_while_the_training_samples_are_predicted(prepared, tmp_path):
    """The generator then learns with moments that err as on new samples."""
    predicted = {}
    for dropout, again in ((0.5, False), (0.5, True), (0.0, False)):
        run = new_run(prepared, tmp_path / f"{dropout}-{again}")
        recipe = load_recipe(run.parent / "tiny.yaml").changed(moments__dropout=dropout)
        wsdcast.train(recipe, run)
        if again:
            shutil.rmtree(run / "predictions")
            wsdcast.train(recipe, run)
        record = open_analysis(run / "analysis.zarr")
        networks = trained(recipe, run, record)
        (samples,) = samples_of(record, networks.forcings, "train")
        without_dropout = predict(networks.moments, samples, torch.arange(len(samples)))
        predicted[dropout, again] = np.load(run / "predictions/moments.npy"), without_dropout.numpy()
    np.testing.assert_array_equal(predicted[0.5, True][0], predicted[0.5, False][0])
    np.testing.assert_allclose(*predicted[0.0, False], atol=1e-5)
    assert np.abs(np.subtract(*predicted[0.5, False])).mean() > 3e-4  # the line above has at most 1e-5 without dropout


def test_evaluation_scores_the_lead_times_that_are_asked_for(studied):
    directory = studied / "run/study/warm-0"
    recipe = load_recipe(studied / "tiny.yaml")
    record = open_analysis(directory / "analysis.zarr")
    networks = trained(recipe, directory, record)
    sampler = sampler_of(networks, recipe.rollout)
    starts = record.starts(2, 3)
    two_leads, all_leads = (evaluate(record, networks, sampler, starts, leads, members=3, seed=0) for leads in ((12, 18), (6, 12, 18)))
    xr.testing.assert_allclose(two_leads, all_leads.isel(prediction_timedelta=[1, 2]))


def test_a_recipe_object_is_a_recipe(studied):
    recipe: Recipe = load_recipe(studied / "tiny.yaml")
    assert resolve(recipe, studied / "run", Recipe)[0] == recipe
    assert read_stamp(studied / "run/analysis.zarr")
