"""The study on images: equal cost, shared networks, nothing computed twice, differences with intervals, and refusals."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from commands import invoke, refused
from conftest import TINY_IMAGES
from image_runs import RECIPE, checksums, drawn_by
from PIL import Image
from torch import nn

from wsdcast.images.classifier import extractors, features_of
from wsdcast.images.contexts import fixed_contexts
from wsdcast.images.data.resampling import context_weights
from wsdcast.images.data.store import open_images
from wsdcast.images.drawing import draw_samples, sampler_of
from wsdcast.images.evaluation import DRAWS, references, statistics_by_context
from wsdcast.images.frechet import FeatureStatistics, drawn_distances, frechet_distance
from wsdcast.images.networks import generator_model, moments_model, trained
from wsdcast.images.stages.prepare import prepare
from wsdcast.runs.summary import Summary
from wsdcast.study.images import inpaint_study
from wsdcast.study.images_summary import Part, Setting, combine, halves
from wsdcast.study.images_variants import moments_cost, variant_of
from wsdcast.study.sharing import training_seconds, variant_directory
from wsdcast.verification.bootstrap import BOUNDS

PRIORS = ("warm", "standard", "unblended", "mean-only", "features-only")


@pytest.fixture(scope="module")
def studied(tmp_path_factory) -> Path:
    """Return a directory with the recipe, and its run directory with a study. Tests must not change it."""
    directory = tmp_path_factory.mktemp("study")
    (directory / "tiny.yaml").write_text(TINY_IMAGES)
    prepare(directory / "tiny.yaml", directory / "run")
    code, line = invoke("inpaint", "study", "--run", str(directory / "run"))
    assert code == 0, line
    return directory


@pytest.fixture(scope="module")
def images(studied):
    return open_images(studied / "run/images")


@pytest.fixture(scope="module")
def study(studied) -> xr.Dataset:
    with xr.open_dataset(studied / "run/study.nc") as dataset:
        return dataset.load()


@pytest.fixture
def without_page(monkeypatch):
    """Leave out the figures, which take longer than the rest of a study."""
    monkeypatch.setattr("wsdcast.study.images.write_image_study_page", lambda path, *arguments: path.write_text(""))


@pytest.fixture
def copy(studied, tmp_path) -> Path:
    """Return a copy of the run directory with the study, for one test."""
    shutil.copytree(studied / "run", tmp_path / "run", symlinks=True)
    return tmp_path / "run"


def statistics_of(run: Path, prior: str, seed: int, solver: str, nfe: int, warmth: float = 1.0) -> Path:
    """Return the file of a setting of the curve. It has six contexts; files of the sensitivity have four."""
    files = []
    for path in (run / f"study/{prior}-{seed}").glob(f"{solver}-{nfe}-*.nc"):
        with xr.open_dataset(path) as dataset:
            if dataset.sizes["context"] == 6 and dataset.attrs["warmth"] == warmth:
                files.append(path)
    (only,) = files
    return only


def test_a_study_of_images_has_every_setting_once(study):
    names = ("kind", "prior", "solver", "warmth", "visible", "nfe")
    settings = list(zip(*(study[name].values.tolist() for name in names), strict=True))
    main_priors = [("warm", 0), ("warm", 1), ("standard", 1)]
    expected = [("curve", prior, solver, w, 0.1, nfe) for prior, w in main_priors for solver in ("midpoint", "dpm2") for nfe in (2, 4, 6)]
    expected += [("curve", prior, "midpoint", 1, 0.1, 2) for prior in PRIORS[2:]] + [("curve", "moments alone", "", 1, 0.1, 0)]
    expected += [("sensitivity", "warm", "midpoint", warmth, visible, 2) for warmth in (0, 1) for visible in (0.05, 0.5)]
    expected += [("sensitivity", "standard", "midpoint", 1, visible, 2) for visible in (0.05, 0.5)]
    assert sorted(settings) == sorted(expected)
    share = study.attrs["moments_share"]
    for prior, nfe, cost in zip(study["prior"].values, study["nfe"].values, study["cost"].values, strict=True):
        assert cost == pytest.approx(nfe + (0 if prior == "standard" else share))


def test_scores_are_means_over_the_seeds(studied, images, study):
    """Compute one setting from its networks without the study, with the same contexts and noise."""
    values = []
    for seed in (0, 1):
        recipe = RECIPE.changed(seed=seed)
        networks = trained(recipe, studied / f"run/study/warm-{seed}", images)
        contexts = fixed_contexts(images, "test", RECIPE.task, count=6)
        samples = np.stack(list(draw_samples(contexts, sampler_of(networks, drawn_by("dpm2", 4), 1.0), 2)))
        values.append(statistics_by_context(samples, contexts, {}, 0)["crps"].mean().item())
    chosen = (study["prior"] == "warm") & (study["solver"] == "dpm2") & (study["nfe"] == 4) & (study["warmth"] == 1)
    (row,) = np.flatnonzero(chosen)
    np.testing.assert_allclose(study["crps_by_seed"].values[row], values)
    assert study["crps"].values[row] == pytest.approx(np.mean(values))


def counted_operations(network: nn.Module, *inputs: torch.Tensor) -> float:
    """Count two operations for each weight of a convolution or matrix at each position where it is applied."""
    total = []

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        positions = output[0, 0].numel() if isinstance(module, nn.Conv2d) else 1
        total.append(2 * module.weight.numel() * positions * output.shape[0])

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    network(*inputs)
    return sum(total)


@pytest.mark.parametrize("accumulate", [(1, 1), (2, 1), (1, 4)])
def test_all_priors_cost_the_same_to_train(images, accumulate):
    moments_rounds, rounds = accumulate
    recipe = RECIPE.changed(moments__attention=(), generator__attention=(), moments__widths=(8, 12), moments__steps=50, generator__steps=90)
    recipe = recipe.changed(moments__accumulate=moments_rounds, generator__accumulate=rounds, moments__batch=6)
    ratio, extra = moments_cost(recipe, images)
    moments, generator = moments_model(recipe.moments, 3), generator_model(recipe.generator, 3)
    of_moments = counted_operations(moments, torch.zeros(1, 4, 16, 16))
    of_generator = counted_operations(generator, torch.zeros(1, 13, 16, 16), torch.zeros(1), torch.zeros(1))
    assert ratio == pytest.approx(of_moments / of_generator, rel=1e-6)
    warm, standard = (variant_of(recipe, images, (ratio, extra), prior)[0].generator.steps for prior in ("warm", "standard"))
    assert warm == 90
    samples = 4 * rounds  # in one step
    costs = 3 * of_moments * 50 * 6 * moments_rounds + (of_moments + 3 * of_generator) * 90 * samples, 3 * of_generator * standard * samples
    assert costs[0] == pytest.approx(costs[1], abs=1.5 * of_generator * samples)
    for prior in ("unblended", "mean-only", "features-only", "plain-blend"):
        assert variant_of(recipe, images, (ratio, extra), prior)[0].generator.steps == 90
    assert variant_of(recipe, images, (ratio, extra), "climatology")[0].generator.steps == standard
    of_steps = recipe.changed(study__budget="steps")
    assert variant_of(of_steps, images, (ratio, extra), "standard")[0].generator.steps == 90


def test_priors_of_a_seed_share_one_moments_network(studied):
    for seed in (0, 1):
        real = (studied / f"run/study/warm-{seed}/moments").resolve()
        for prior in PRIORS[2:]:
            linked = studied / f"run/study/{prior}-{seed}/moments"
            assert linked.is_symlink()
            assert linked.resolve() == real
        assert not (studied / f"run/study/standard-{seed}/moments").exists()
    assert not (studied / "run/moments").exists()
    first, second = (checksums(studied / f"run/study/warm-{seed}/moments")["weights.safetensors"] for seed in (0, 1))
    assert first != second
    assert training_seconds(studied / "run/study/warm-0", ("moments", "generator")) > 0


def test_a_link_to_missing_networks_is_removed(studied, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(studied / "run/images", run / "images")
    (run / "study/warm-0").mkdir(parents=True)
    (run / "study/warm-0/moments").symlink_to("../../moments", target_is_directory=True)
    directory = variant_directory(RECIPE, run, "warm-0", ("generator", "moments"))
    assert directory == run / "study/warm-0"
    assert [path.name for path in directory.iterdir()] == ["images"]
    assert (directory / "images").resolve() == run / "images"


def times(run: Path) -> dict[Path, int]:
    """Return when each file of networks and statistics was written."""
    return {path: path.stat().st_mtime_ns for part in ("study", "classifier") for path in (run / part).rglob("*") if path.is_file()}


def test_a_finished_study_computes_nothing(studied, copy, without_page):
    before = times(copy)
    inpaint_study(run=copy)
    assert times(copy) == before
    with xr.open_dataset(copy / "study.nc") as again, xr.open_dataset(studied / "run/study.nc") as first:
        xr.testing.assert_identical(again.drop_attrs(), first.drop_attrs())


def test_other_options_compute_only_what_is_new(copy, without_page):
    lost = statistics_of(copy, "warm", 0, "midpoint", 2)
    lost.unlink()
    before, fewer = times(copy), {"solvers": ["midpoint"], "ablations": [], "visible": [], "warmths": [1]}
    summary = inpaint_study(run=copy, nfe=[2, 8], **fewer)
    after = times(copy)
    assert {path: after[path] for path in before} == before
    directories = [copy / f"study/{prior}-{seed}" for prior in ("standard", "warm") for seed in (0, 1)]
    new = sorted(set(after) - set(before))
    for name in ("midpoint-8-", "validation-midpoint-8-"):
        assert sorted(path.parent for path in new if path.name.startswith(name)) == directories
    assert [path for path in new if "midpoint-8-" not in path.name] == [lost]
    numbers = {(row["prior"], row["nfe"]) for row in summary.scores}
    assert numbers == {("warm", 2), ("warm", 8), ("standard", 2), ("standard", 8), ("moments alone", 0)}
    other = inpaint_study(run=copy, nfe=[2], seeds=[0], contexts=5, protocol="paper", **fewer)
    assert "5 contexts of TRAINING images" in other.facts["scored"]
    assert {(row["prior"], len(row["crps_by_seed"])) for row in other.scores} == {("warm", 1), ("standard", 1), ("moments alone", 1)}
    assert len(set(times(copy)) - set(after)) == 3 + 2  # the moments alone have no validation scores, as they have nothing to choose


def test_a_study_of_another_recipe_is_refused(studied, tmp_path):
    before = checksums(studied / "run")
    for key, value in (("classifier.steps", 5), ("generator.dropout", 0.5), ("task.visible_test", 0.3)):
        recipe = tmp_path / f"{key}.yaml"
        recipe.write_text(yaml.safe_dump(RECIPE.changed(**{key.replace(".", "__"): value}).dump()))
        line = refused("inpaint", "study", "--recipe", str(recipe), "--run", str(studied / "run"))
        assert f"made from another recipe ({key}: " in line
        assert f"{value} here" in line
        assert checksums(studied / "run") == before


def test_differences_draw_the_same_contexts_for_both_priors(studied, images, study):
    """Half the evaluations of warm are compared with standard, with the first solver and the warmth of the section `sample`."""
    assert study["standard_nfe"].values.tolist() == [4]
    rows, draws, weights = {}, {}, context_weights(6, DRAWS)
    for prior, nfe, warmth in (("warm", 2, 1), ("standard", 4, 1)):
        labels = {"kind": "curve", "prior": prior, "nfe": nfe, "solver": "midpoint", "warmth": warmth}
        rows[prior] = study.isel(setting=np.logical_and.reduce([study[name] == value for name, value in labels.items()]))
        paths = [statistics_of(studied / "run", prior, seed, "midpoint", nfe, warmth) for seed in (0, 1)]
        per_seed = [xr.load_dataset(path)["crps"].values for path in paths]
        assert rows[prior]["crps"].item() == pytest.approx(np.mean(per_seed))
        draws[prior] = np.mean(per_seed, axis=0) @ weights.T
    pair = study.sel(standard_nfe=4)
    assert pair["crps_difference"].item() == pytest.approx(rows["warm"]["crps"].item() - rows["standard"]["crps"].item())
    np.testing.assert_allclose(pair["crps_difference_interval"].values, np.quantile(draws["warm"] - draws["standard"], (0.025, 0.975)))
    for name in ("crps", "classifier_distance"):
        by_seed = rows["warm"][f"{name}_by_seed"].values - rows["standard"][f"{name}_by_seed"].values
        np.testing.assert_allclose(pair[f"{name}_difference_by_seed"].values, by_seed[0])
    assert study.attrs["compared"] == "warm"
    words = halves(study)["warm 2 (midpoint, w = 1) less standard 4"]
    assert f"crps {pair['crps_difference'].item():+.4g} [" in words


def test_the_first_prior_is_compared_with_standard(copy, without_page):
    fewer = {"seeds": [0], "solvers": ["midpoint"], "ablations": [], "visible": [], "nfe": [2, 4, 6]}
    facts = inpaint_study(run=copy, priors=["unblended", "standard", "warm"], **fewer).facts
    assert [fact for fact in facts if " less " in fact] == ["unblended 2 (midpoint, w = 1) less standard 4"]


def test_identical_samples_have_a_difference_of_zero(studied, images):
    path = statistics_of(studied / "run", "warm", 0, "midpoint", 2)
    warm = Setting("curve", "warm", "midpoint", "uniform", 1.0, 0.1, 2)
    standard = replace(warm, prior="standard", nfe=4)
    reference = {"classifier_distance": FeatureStatistics.of(np.random.default_rng(0).normal(size=(200, 128)))}
    parts = [Part(setting, seed, path, path) for setting in (warm, standard) for seed in (0, 1)]
    study = combine(parts, {"warm": 0.5, "standard": 0}, reference)
    for name in ("crps", "classifier_distance"):
        assert study[f"{name}_difference"].item() == 0
        assert study[f"{name}_difference_interval"].values.tolist() == [[0, 0]]
    features = xr.load_dataset(path)["classifier_distance_features"].values
    assert study["classifier_distance"].values == pytest.approx(drawn_distances(features, reference["classifier_distance"], 2)[0])
    assert study["best"].values.all()


def test_distances_have_intervals_where_they_are_best_or_compared(studied, images, study):
    """They take long, so the others have none. A score that is a mean over contexts always has an interval."""
    known = np.isfinite(study["classifier_distance_interval"]).all("bound")
    compared = (study["kind"] == "curve") & (study["solver"] == "midpoint") & (study["warmth"] == 1) & (study["prior"] != "moments alone")
    np.testing.assert_array_equal(known, study["best"] | compared)
    assert known.sum() < study.sizes["setting"]
    assert np.isfinite(study["crps_interval"]).all()
    assert np.isfinite(study["classifier_distance"]).all()
    reference = references(images, extractors(RECIPE, studied / "run", images, None, Summary(""), False))["classifier_distance"]
    for prior, nfe in (("warm", 2), ("standard", 6), ("features-only", 2)):
        row = study.isel(setting=((study["prior"] == prior) & (study["nfe"] == nfe) & study["best"]).values).squeeze("setting")
        paths = [statistics_of(studied / "run", prior, seed, row["solver"].item(), nfe, row["warmth"].item()) for seed in (0, 1)]
        features = [xr.load_dataset(path)["classifier_distance_features"].values for path in paths]
        draws = np.mean([drawn_distances(of_seed, reference, DRAWS)[1] for of_seed in features], axis=0)
        np.testing.assert_allclose(row["classifier_distance_interval"], np.quantile(draws, BOUNDS))


def test_the_best_solver_and_warmth_have_the_least_distance_on_validation_images(study):
    curves = study.isel(setting=(study["kind"] == "curve").values)
    points = set(zip(curves["prior"].values, curves["nfe"].values, strict=True))
    for prior, nfe in points:
        settings = curves.isel(setting=((curves["prior"] == prior) & (curves["nfe"] == nfe)).values)
        if settings.sizes["setting"] == 1:
            assert settings["best"].all()
            continue
        least = settings["classifier_distance_validation"].values.argmin()
        assert np.flatnonzero(settings["best"]).tolist() == [least]
    assert study["best"].sum() == len(points) < curves.sizes["setting"]


def test_the_floor_is_the_distance_of_true_images(studied, images, study):
    extract = extractors(RECIPE, studied / "run", images, None, Summary(""), False)
    reference = references(images, extract)["classifier_distance"]
    assert reference.count == 162
    features = features_of(extract["classifier_distance"], images.images[images.parts["test"]][:12])
    assert study.attrs["floor_classifier_distance"] == pytest.approx(frechet_distance(FeatureStatistics.of(features), reference), rel=1e-5)


def test_the_page_shows_the_scores_and_loads_nothing(studied, study):
    page = (studied / "run/study.html").read_text()
    assert study.attrs["recipe_hash"] in page
    assert not re.search(r"https?:(?!//www\.w3\.org)", page)
    for words in ("data:image/png;base64,", "features-only", "6 contexts of test images", "training seeds 0, 1"):
        assert words in page
    pair = study.sel(standard_nfe=4)
    low, high = pair["crps_difference_interval"].values
    by_seed = ", ".join(f"{value:.4f}" for value in pair["crps_difference_by_seed"].values)
    assert f"<td>{pair['crps_difference'].item():.4f} [{low:.4f}, {high:.4f}]</td><td>{by_seed}</td>" in page
    with Image.open(studied / "run/same_noise.png") as picture:
        assert min(picture.size) > 100
    names = {path.name for path in (studied / "run").iterdir()}
    assert names == {"images", "classifier", "study", "study.nc", "study.html", "same_noise.png"}


def test_impossible_numbers_of_evaluations_are_named(copy, without_page):
    summary = inpaint_study(run=copy, nfe=[2, 3], ablations=[], seeds=[0], solvers=["midpoint"], visible=[])
    assert summary.facts["left out: midpoint"] == "3 evaluations, which it cannot make exactly"
    assert {row["nfe"] for row in summary.scores} == {0, 2}
    line = refused("inpaint", "study", "--run", str(copy), "--nfe", "3", "--solvers", "dpm2,midpoint")
    assert "nothing to study: nfe 3: the solver midpoint" in line


def test_damaged_statistics_are_computed_again(copy, without_page):
    fewer = {"seeds": [0], "solvers": ["midpoint"], "ablations": [], "visible": [], "warmths": [1], "nfe": [2]}
    path = statistics_of(copy, "warm", 0, "midpoint", 2)
    before = xr.load_dataset(path)
    for content in (b"", b"no NetCDF", path.read_bytes()[:1000]):
        path.write_bytes(content)
        inpaint_study(run=copy, **fewer)
        xr.testing.assert_identical(xr.load_dataset(path), before)


def test_a_study_runs_with_two_held_out_images(tmp_path, without_page):
    recipe = RECIPE.changed(data__test_share=0.01, generator__steps=1, moments__steps=1)
    prepare(recipe, tmp_path / "run")
    summary = inpaint_study(recipe, tmp_path / "run", seeds=[0], ablations=[], nfe=[2], solvers=["midpoint"], visible=[], warmths=[1])
    assert "2 contexts of test images" in summary.facts["scored"]
    assert len(summary.scores) == 3


def test_the_example_prints_the_tables_of_a_study(studied, study, tmp_path):
    script = Path(__file__).parents[1] / "examples/image_study_tables.py"
    done = subprocess.run([sys.executable, script, studied / "run/study.nc", tmp_path, "tiny"], capture_output=True, text=True, check=True)
    for prior in ("warm", "standard", "features-only", "moments alone"):
        rows = [line for line in done.stdout.splitlines() if line.startswith(f"| {prior} |")]
        best = ((study["prior"] == prior) & study["best"]).values
        assert len(rows) == best.sum()
        for score in study["crps"].values[best]:
            assert any(f"| {score:.4f} [" in row for row in rows)
    ratios = study["crps_by_seed"].isel(setting=((study["kind"] == "sensitivity") & (study["visible"] == 0.5)).values)
    of_prior = dict(zip(zip(ratios["prior"].values, ratios["warmth"].values, strict=True), ratios.values, strict=True))
    expected = of_prior["warm", 1.0] / of_prior["standard", 1.0]
    assert f"{expected.mean():.2f} / {expected[0]:.2f}, {expected[1]:.2f}" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"tiny-evaluations.png", "tiny-visible.png"}


def test_a_study_takes_each_solver_on_each_time_grid(copy, images, without_page):
    """Log-SNR times use the ends in the recipe and its momentum, as direct sampling does."""
    fewer = {"seeds": [0], "priors": ["warm"], "ablations": [], "visible": [], "nfe": [4], "warmths": [1.0]}
    recipe = RECIPE.changed(sample__log_snr_ends=(-2.0, 4.0), sample__momentum=0.8)
    inpaint_study(recipe, copy, solvers=["ab2", "dpm2"], grids_in_time=["uniform", "log-snr"], **fewer)
    with xr.open_dataset(copy / "study.nc") as dataset:
        curve = dataset.load().isel(setting=(dataset["solver"] != "").values)
    pairs = list(zip(curve["solver"].values.tolist(), curve["grid_in_time"].values.tolist(), strict=True))
    assert pairs == [("ab2", "uniform"), ("ab2", "log-snr"), ("dpm2", "uniform"), ("dpm2", "log-snr")]
    networks = trained(RECIPE.changed(seed=0), copy / "study/warm-0", images)
    contexts = fixed_contexts(images, "test", RECIPE.task, count=6)
    for number, (solver, grid) in enumerate(pairs):
        settings = drawn_by(solver, 4, grid, log_snr_ends=(-2.0, 4.0), momentum=0.8 if solver == "ab2" else 1.0)
        sampler = sampler_of(networks, settings, 1.0)
        samples = np.stack(list(draw_samples(contexts, sampler, 2)))
        assert curve["crps"].values[number] == pytest.approx(statistics_by_context(samples, contexts, {}, 0)["crps"].mean().item())
    assert np.unique(curve["crps"]).size == 4
