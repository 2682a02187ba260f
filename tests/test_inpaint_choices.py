"""A study of images chooses on validation images. Samples that are not finite are counted, and have no scores."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from commands import invoke
from image_runs import RECIPE, copy_of, drawn_by

from wsdcast.images.classifier import extractors, features_of
from wsdcast.images.contexts import fixed_contexts
from wsdcast.images.data.store import open_images
from wsdcast.images.drawing import as_images, draw_samples, sampler_of
from wsdcast.images.evaluation import Diverged, statistics_by_context
from wsdcast.images.frechet import FeatureStatistics, frechet_distance
from wsdcast.images.networks import trained
from wsdcast.images.stages.sample import sample
from wsdcast.images.stages.score import score
from wsdcast.study.images import inpaint_study
from wsdcast.study.images_summary import Part, Setting, combine, halves, rows, saturation

FEATURES = np.random.default_rng(0).normal(size=(6, 2, 4))
REFERENCE = {"classifier_distance": FeatureStatistics.of(FEATURES)}
SHARES = {"warm": 0.5}
WARM = Setting("curve", "warm", "midpoint", "uniform", 1.0, 0.1, 4)


def written(path: Path, distance: float, crps: float = 1.0, diverged: int = 0) -> Path:
    """Write statistics of samples at a given distance from the reference set. Their features are those of the set, all moved alike."""
    path.parent.mkdir(exist_ok=True)
    names = ("squared_error", "squared_error_debiased", "psnr", "psnr_whole", "variance", "diversity", "visible_squared_error")
    by_context = {name: ("context", np.ones(6)) for name in names} | {"crps": ("context", np.full(6, crps))}
    by_context |= {name: (("context", "wavenumber"), np.ones((6, 3))) for name in ("power", "power_truth")}
    moved = FEATURES + np.array([distance**0.5, 0, 0, 0])
    by_context["classifier_distance_features"] = (("context", "sample", "classifier_distance_feature"), moved)
    dataset = xr.Dataset(by_context, coords={"wavenumber": [0.5, 1, 1.5]})
    (xr.full_like(dataset, np.nan) if diverged else dataset).assign_attrs(warmth=1.0, diverged=diverged).to_netcdf(path)
    return path


def part(directory: Path, setting: Setting, test: float, validation: float, crps: float = 1.0, diverged: tuple[int, int] = (0, 0)) -> Part:
    """Return a setting with its distances on test and validation images, and how many samples diverged on each."""
    name = f"{setting.prior}-{setting.solver}-{setting.nfe}"
    on_test = written(directory / f"{name}.nc", test, crps, diverged[0])
    return Part(setting, 0, on_test, written(directory / f"v-{name}.nc", validation, crps, diverged[1]))


def test_validation_images_choose_and_test_images_report(tmp_path):
    study = combine([part(tmp_path, WARM, 1.0, 1.0), part(tmp_path, replace(WARM, solver="dpm2"), 0.5, 1.2)], SHARES, REFERENCE)
    (best,) = np.flatnonzero(study["best"])
    assert study["solver"].values[best] == "midpoint"
    np.testing.assert_allclose(study["classifier_distance"], [1.0, 0.5])
    np.testing.assert_allclose(study["classifier_distance_validation"], [1.0, 1.2])
    assert [row["classifier_distance_validation"] for row in rows(study)] == pytest.approx([1.0, 1.2])


def test_the_number_of_evaluations_at_saturation_is_chosen_on_validation_images(tmp_path):
    """It is the smallest within 5 % of the least distance and 1 % of the least CRPS. Test images do not matter."""
    validation = {2: (1.2, 1.0), 4: (1.04, 1.02), 6: (1.04, 1.009), 8: (1.0, 1.0)}
    parts = [part(tmp_path, replace(WARM, nfe=nfe), 1 / nfe, *scores) for nfe, scores in validation.items()]
    assert saturation(combine(parts, SHARES, REFERENCE)) == {"warm": 6}
    never = [part(tmp_path, replace(WARM, nfe=nfe), 1.0, *scores) for nfe, scores in {2: (1.0, 1.1), 4: (1.1, 1.0)}.items()]
    assert saturation(combine(never, SHARES, REFERENCE)) == {"warm": None}


def test_a_setting_that_diverged_is_never_chosen(tmp_path):
    """It may have diverged on test or validation images. If all settings diverged, none is chosen."""
    for diverged in ((1, 0), (0, 3), (2, 2)):
        bad = part(tmp_path, replace(WARM, solver="ab4"), 0.1, 0.1, diverged=diverged)
        study = combine([bad, part(tmp_path, WARM, 1.0, 1.0)], SHARES, REFERENCE)
        assert study["best"].values.tolist() == [False, True]
        np.testing.assert_allclose(study["diverged"], [diverged[0] / 12, 0])
        np.testing.assert_allclose(study["diverged_validation"], [diverged[1] / 12, 0])
        assert np.isnan(study["classifier_distance"].values[0]) == np.isnan(study["crps"].values[0]) == bool(diverged[0])
        alone = combine([bad], SHARES, REFERENCE)
        assert not alone["best"].any()
        assert saturation(alone) == {}


def test_the_comparison_with_the_standard_prior_is_of_the_first_solver_alone(tmp_path):
    """The midpoint rule cannot make one evaluation. So there is no comparison where only another solver can."""
    standard = replace(WARM, prior="standard")
    asked = [(WARM, "midpoint", 2), (WARM, "dpm3", 1), (standard, "midpoint", 2), (standard, "midpoint", 4), (standard, "dpm3", 4)]
    distances = [1.0, 2.0, 4.0, 8.0, 16.0]
    parts = [
        part(tmp_path, replace(setting, solver=solver, nfe=nfe), distance, distance)
        for (setting, solver, nfe), distance in zip(asked, distances, strict=True)
    ]
    study = combine(parts, {"warm": 0.5, "standard": 0.0}, REFERENCE)
    assert study["standard_nfe"].values.tolist() == [4]
    assert study["classifier_distance_difference"].item() == pytest.approx(1.0 - 8.0)
    assert list(halves(study)) == ["warm 2 (midpoint, w = 1) less standard 4"]


def broken(sampler, calls: list[int], index: int):
    """Return the sampler, but the sample with this index in the first batch has one value that is not a number."""

    def sample_of(context: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        state = sampler(context, noise).clone()
        calls.append(len(state))
        if len(calls) == 1:
            state[index, 0, 3, 5] = torch.nan
        return state

    return sample_of


def test_samples_that_are_not_finite_are_counted(inpainted):
    """Infinite samples count too, and padding of a batch does not. A pixel that is not a number becomes mid-grey."""
    images = open_images(inpainted / "run/images")
    sampler = sampler_of(trained(RECIPE, inpainted / "run", images), drawn_by("midpoint", 2), 1.0)
    contexts, diverged = fixed_contexts(images, "test", RECIPE.task, count=4), Diverged()
    samples = np.stack(list(draw_samples(contexts, broken(sampler, [], 2), 3, watch=diverged)))
    assert diverged.count == 1
    assert samples[0, 2, 3, 5, 0] == 128
    diverged(torch.tensor([[1.0, torch.inf], [0.0, 9e9], [torch.nan, -torch.inf]]))
    assert diverged.count == 3
    statistics = statistics_by_context(samples, contexts, {}, diverged.count)
    assert statistics.attrs["diverged"] == 3
    assert all(np.isnan(field).all() for field in statistics.data_vars.values())
    assert as_images(torch.tensor([[[torch.nan, torch.inf, -torch.inf]]])).ravel().tolist() == [128, 255, 0]


def test_diverged_samples_have_no_scores_and_are_reported(inpainted, tmp_path, monkeypatch):
    monkeypatch.setattr("wsdcast.images.stages.sample.EVALUATIONS", (2,))
    monkeypatch.setattr("wsdcast.images.stages.sample.sampler_of", lambda *arguments: broken(sampler_of(*arguments), [], 1))
    run = copy_of(inpainted, tmp_path / "run", "moments", "generator", "classifier")
    summary = sample(run=run)
    assert summary.facts["diverged"] == "1 of 18 samples are not finite; they have no scores"
    assert json.loads((run / "samples/stamp.json").read_text())["diverged"] == 1
    code, _ = invoke("inpaint", "score", "--run", str(run))
    assert code == 0
    again = score(run=run)
    words = "1 of 18 samples are not finite, so that there are no scores"
    assert again.facts["diverged, generator"] == words
    assert words in (run / "report.html").read_text()
    table = {row["scored"]: row for row in again.scores}
    names = ("crps", "psnr", "classifier_distance", "power_deviation", "diversity")
    assert np.isnan([table["generator"][name] for name in names]).all()
    assert np.isfinite([table[name][score] for name in ("moments alone", "other images") for score in names]).all()
    with xr.open_dataset(run / "scores.nc") as scores:
        assert scores["diverged"].values.tolist() == [1, 0, 0]
        assert np.isnan(scores["crps"].sel(scored="generator")).all()


@pytest.mark.slow
def test_a_study_continues_after_a_setting_that_diverges(inpainted, tmp_path, monkeypatch):
    """Here it is dpm2 with four evaluations. The other settings keep the scores that they have without it."""

    def sampler_for(networks, settings, warmth):
        sampler = sampler_of(networks, settings, warmth)
        return broken(sampler, [], 0) if (settings.solver, settings.nfe) == ("dpm2", 4) else sampler

    monkeypatch.setattr("wsdcast.study.images.sampler_of", sampler_for)
    run = copy_of(inpainted, tmp_path / "run", "classifier", "moments", "generator")
    fewer = {"seeds": [0], "priors": ["warm"], "ablations": [], "visible": [], "warmths": [1], "nfe": [2, 4]}
    summary = inpaint_study(run=run, solvers=["dpm2", "midpoint"], **fewer)
    name = "diverged: warm, dpm2, uniform, w = 1, 10 % visible, 4 evaluations"
    words = "8.3 % of samples at validation, 8.3 % of samples"
    assert {fact: text for fact, text in summary.facts.items() if "diverged" in fact} == {name: words}
    assert words in (run / "study.html").read_text()
    by_setting = {(row["solver"], row["nfe"]): row for row in summary.scores}
    diverged = by_setting["dpm2", 4]
    assert np.isnan([diverged[name] for name in ("crps", "classifier_distance", "classifier_distance_validation")]).all()
    assert not diverged["best"]
    assert by_setting["midpoint", 4]["best"]
    alone = inpaint_study(run=run, solvers=["midpoint"], **fewer)
    for row in alone.scores:
        other = by_setting[row["solver"], row["nfe"]]
        assert (row["crps"], row["classifier_distance"]) == (other["crps"], other["classifier_distance"])
    # Compute the scores that decide without the study.
    images = open_images(run / "images")
    networks = trained(RECIPE, run, images)
    contexts = fixed_contexts(images, "validation", RECIPE.task, count=6)
    samples = np.stack(list(draw_samples(contexts, sampler_of(networks, drawn_by("midpoint", 2), 1.0), 2)))
    extract = extractors(RECIPE, run, images, None, summary, False)["classifier_distance"]
    reference = FeatureStatistics.of(features_of(extract, images.images[images.parts["train"]]))
    distance = frechet_distance(FeatureStatistics.of(features_of(extract, samples)), reference)
    assert by_setting["midpoint", 2]["classifier_distance_validation"] == pytest.approx(distance, rel=1e-5)
    crps = statistics_by_context(samples, contexts, {}, 0)["crps"].mean().item()
    assert by_setting["midpoint", 2]["crps_validation"] == pytest.approx(crps)
    assert summary.facts["chosen on"].startswith("6 contexts of validation images, by the classifier distance")


@pytest.mark.slow
def test_a_study_of_one_sample_for_each_context_uses_the_absolute_error(inpainted, tmp_path):
    """Fair CRPS needs two samples, so the absolute error replaces it in comparisons, for the saturation and in the tables."""
    run = copy_of(inpainted, tmp_path / "run", "classifier", "moments", "generator")
    fewer = {"seeds": [0], "ablations": [], "visible": [0.5], "warmths": [1], "nfe": [2, 4], "solvers": ["midpoint"]}
    summary = inpaint_study(run=run, samples=1, contexts=20, **fewer)
    assert "1 sample each, for which fair CRPS, spread/skill and diversity are not defined" in summary.facts["scored"]
    for row in summary.scores:
        assert not {"crps", "diversity", "spread_skill"} & set(row)
        assert np.isfinite([row["crps_standard"], row["classifier_distance"], row["psnr"], row["power_deviation"]]).all()
    (compared,) = (text for fact, text in summary.facts.items() if " less standard" in fact)
    assert "crps standard" in compared
    with xr.open_dataset(run / "study.nc") as study:
        assert set(saturation(study)) == {"warm", "standard"}
        chosen = study["crps_standard_validation"].values[study["best"].values & (study["nfe"].values > 0)]
        assert np.isfinite(chosen).all()
    assert "CRPS of one sample, its absolute error" in (run / "study.html").read_text()
    script = Path(__file__).parents[1] / "examples/image_study_tables.py"
    done = subprocess.run([sys.executable, script, run / "study.nc", tmp_path, "one"], capture_output=True, text=True, check=True)
    assert "difference of absolute error" in done.stdout
    assert "nan" not in done.stdout


def test_a_table_without_a_best_setting_is_printed(capsys):
    """Such a study has one number of evaluations, and all of its settings diverged."""
    from wsdcast.cli.show import show
    from wsdcast.runs.summary import Summary

    row = {"kind": "curve", "prior": "standard", "nfe": 4, "best": False, "crps": np.nan, "classifier_distance": np.nan}
    show(Summary("inpaint study", scores=[row]), False)
    assert "CRPS" in capsys.readouterr().out
