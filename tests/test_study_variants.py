"""Variants of a study: other paths and networks, each trained at the cost of the recipe itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from conftest import new_run
from small_training import WIND

import wsdcast
from wsdcast.data.store.analysis import open_analysis
from wsdcast.nets.weights import operations
from wsdcast.runs.artefact import make_stamp
from wsdcast.runs.errors import UserError
from wsdcast.runs.old_names import NEW_NAMES, with_new_names
from wsdcast.study.sharing import training_seconds, variant_directory
from wsdcast.study.weather_variants import generator_operations, moments_cost, training_samples, variant_of
from wsdcast.weather.networks import generator_model, moments_model
from wsdcast.weather.recipe import Recipe, load_recipe

VARIANTS = {
    "warm, blurred": {"generator.path": "blur-noise", "generator.bnr": 0.5},
    "blurred": {"generator.path": "blur-noise", "generator.prior": "standard"},
    "wide": {"generator.widths": [16, 16]},
    "large batches": {"generator.batch": 8},
    "joint": {"generator.moments": "joint", "generator.batch": 2},
}


@pytest.fixture(scope="module")
def recipe(prepared) -> Recipe:
    """Return the tiny recipe with trainings that are long enough to compare costs, and a small study."""
    study = {"seeds": [0], "priors": ["warm"], "ablations": [], "nfe": [2, 4], "rollout_nfe": [4], "members": 3, "starts": 3}
    study |= {"rollout_starts": 2, "leads": [6, 12]}
    recipe = load_recipe(prepared / "tiny.yaml").changed(moments__steps=40, generator__steps=60, rollout__nfe=4)
    return recipe.changed(**{f"study__{key}": value for key, value in study.items()})


def computed_cost(recipe, record) -> float:
    """Return the floating-point operations of a whole training.

    A step costs three evaluations for each of its samples. The moments network also predicts the training samples.
    """
    generator = generator_model(recipe.generator, WIND)
    inputs = torch.zeros(1, generator.first.in_channels, 8, 16), torch.zeros(1), torch.zeros(1)
    total = 3 * recipe.generator.steps * recipe.generator.batch * operations(generator, *inputs)
    if recipe.generator.needs_moments_network:
        visits = 3 * recipe.moments.steps * recipe.moments.batch + record.now("train").size
        if recipe.generator.moments == "joint":
            visits = 3 * recipe.generator.steps * recipe.generator.batch
        total += visits * operations(moments_model(recipe.moments, WIND), torch.zeros(1, 4, 8, 16))
    return total


def test_a_variant_links_to_what_others_of_its_seed_made_from_its_own_recipe(tmp_path):
    recipe, study = load_recipe("planet").changed(generator__moments="frozen"), tmp_path / "run"
    warm, other, of_seed_1 = (recipe.changed(seed=seed, generator__dropout=dropout) for seed, dropout in ((0, 0.0), (0, 0.5), (1, 0.0)))

    def make(variant: Recipe, place: Path, *artefacts: str) -> None:
        for name in artefacts:
            (place / name).mkdir(parents=True)
            is_record = name == "analysis.zarr"
            stamp = json.dumps(make_stamp(variant, place, name, "files" * is_record) | {"seconds": 2.5})
            text = json.dumps({"attributes": {"wsdcast": stamp}}) if is_record else stamp
            (place / name / ("zarr.json" if is_record else "stamp.json")).write_text(text)

    def linked(variant: Recipe, name: str) -> dict[str, Path]:
        place = variant_directory(variant, study, name, ("moments", "generator"))
        return {path.name: path.resolve().relative_to(study) for path in sorted(place.iterdir())}

    record = {"analysis.zarr": Path("analysis.zarr")}
    make(warm, study, "analysis.zarr", "moments")
    of_the_run = record | {"moments": Path("moments")}
    assert linked(warm, "warm-0") == of_the_run
    assert linked(of_seed_1, "warm-1") == record
    make(warm, study / "study/warm-0", "generator")
    assert linked(other, "other-0") == of_the_run  # the generator of warm-0 has another recipe
    assert linked(warm, "again-0") == of_the_run | {"generator": Path("study/warm-0/generator")}
    assert linked(of_seed_1, "warm-1") == record
    assert training_seconds(study / "study/again-0", ("moments", "generator", "few-steps")) == 5
    (study / "moments/stamp.json").write_text("{}")  # of an older version
    assert np.isnan(training_seconds(study / "study/again-0", ("moments", "generator")))
    # What is there stays, a link to nothing goes, and links outlive a new place of the run directory.
    shutil.rmtree(study / "moments")
    assert linked(warm, "warm-0") == record | {"generator": Path("study/warm-0/generator")}
    study.rename(tmp_path / "moved")
    assert (tmp_path / "moved/study/again-0/generator/stamp.json").is_file()


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_cost_as_much_as_the_recipe(prepared, recipe, name):
    recipe = recipe.changed(study__variants=VARIANTS)
    record = open_analysis(prepared / "run/analysis.zarr")
    variant, share = variant_of(recipe, record, moments_cost(recipe, record), name)
    # Steps, and the costs of both moments networks in steps, are whole numbers.
    own, of_recipe = (3 * generator_operations(one, record) for one in (variant, recipe))
    rounded = (own * (1 + share) + own + of_recipe) / 2
    assert computed_cost(variant, record) == pytest.approx(computed_cost(recipe, record), abs=rounded)
    assert (share == 0) == (name == "blurred")


TRAININGS = {
    "frozen": {},
    "folds": {"moments__folds": 2},
    "joint": {"generator__moments": "joint"},
    "end-to-end": {"generator__moments": "end-to-end"},
    "joint, distilled": {"generator__moments": "joint", "generator__objective": "distil", "few_steps__steps": 5},
    "joint, fine-tuned": {"generator__moments": "joint", "fine_tune__steps": 5, "fine_tune__nfe": 2},
    "distilled": {"generator__objective": "distil", "few_steps__steps": 5},
    "crps": {"generator__objective": "crps"},
}


@pytest.mark.parametrize("training", TRAININGS)
def test_a_variant_that_is_the_recipe_itself_has_its_steps(prepared, recipe, training):
    record = open_analysis(prepared / "run/analysis.zarr")
    recipe = recipe.changed(**TRAININGS[training], study__variants={"same": {"generator.bnr": recipe.generator.bnr}})
    cost = moments_cost(recipe, record)
    for name in ("same", "warm", "features-only"):
        assert variant_of(recipe, record, cost, name)[0].generator.steps == recipe.generator.steps


@pytest.mark.parametrize("moments", ["joint", "end-to-end"])
@pytest.mark.parametrize("prior", ["warm", "standard"])
def test_steps_of_a_moments_network_that_is_not_trained_alone_cost_nothing(prepared, recipe, moments, prior):
    """Trained with the generator, the moments network has the generator's steps. Each costs the generator's step and its share."""
    record = open_analysis(prepared / "run/analysis.zarr")
    variants = {"wide": {"generator.widths": [16, 16]}, "standard, wide": {"generator.prior": "standard", "generator.widths": [16, 16]}}
    recipe = recipe.changed(generator__moments=moments, generator__prior=prior, study__variants=variants)
    steps = []
    for of_moments in (1, 40, 4000):
        other = recipe.changed(moments__steps=of_moments)
        cost = moments_cost(other, record)
        steps.append([variant_of(other, record, cost, name)[0].generator.steps for name in ("warm", "standard", *variants)])
    assert steps[0] == steps[1] == steps[2]
    assert steps[0][:2] == [recipe.generator.steps, round(recipe.generator.steps * (1 + cost[0]))]


@pytest.mark.parametrize("network", ["moments", "generator", "few_steps", "fine_tune"])
def test_a_batch_larger_than_the_record_costs_only_its_samples(prepared, recipe, network):
    record = open_analysis(prepared / "run/analysis.zarr")
    less = {"moments.steps": 10, "few_steps.steps": 1, "fine_tune.steps": 1}  # so the generator has more
    recipe = recipe.changed(forcings__past_states=30, generator__objective="distil", few_steps__steps=40, fine_tune__steps=40)
    recipe = recipe.changed(study__variants={"less": less})
    samples = training_samples(recipe, record)
    assert samples == record.now("train").size - 29  # the record has no gap
    steps = []
    for batch in (samples, 4 * samples):
        whole = recipe.changed(**{f"{network}__batch": batch})
        steps.append(variant_of(whole, record, moments_cost(whole, record), "less")[0].generator.steps)
    assert steps[0] == steps[1] > recipe.generator.steps


def test_a_record_without_training_samples_is_one_line(prepared, recipe):
    record = open_analysis(prepared / "run/analysis.zarr")
    with pytest.raises(UserError, match="0 training samples"):
        moments_cost(recipe.changed(forcings__past_states=len(record.times)), record)


@pytest.mark.slow
def test_a_study_scores_its_variants_like_priors(prepared, recipe, tmp_path):
    run = new_run(prepared, tmp_path)
    recipe = recipe.changed(
        generator__steps=6, moments__steps=4, study__variants={name: VARIANTS[name] for name in ("warm, blurred", "blurred")}
    )
    summary = wsdcast.study_nfe(recipe, run, solvers=["midpoint", "sde1"])
    reason = "solver sde1: works on the straight path only, not on the path blur-noise"
    assert summary.facts["left out: sde1, blur-noise"] == reason
    with xr.open_dataset(run / "study.nc", decode_timedelta=True) as study:
        study.load()
    settings = set(zip(study["prior"].values.tolist(), study["solver"].values.tolist(), study["nfe"].values.tolist(), strict=True))
    expected = {(name, "midpoint", nfe) for name in ("warm", "warm, blurred", "blurred") for nfe in (2, 4)}
    assert settings == expected | {("warm", "sde1", 2), ("warm", "sde1", 4), ("moments, past errors", "", 0)}
    cost = study["cost"] - study["nfe"]
    np.testing.assert_allclose(cost.values[study["prior"].values == "blurred"], 0)
    np.testing.assert_array_less(0.01, cost.values[study["prior"].values == "warm, blurred"])
    forecasts = study["crps"].sel(prediction_timedelta=np.timedelta64(12, "h"))
    assert np.isfinite(forecasts.values[(study["prior"].values == "warm, blurred") & (study["nfe"].values == 4)]).all()
    # The moments network of a seed is trained once and used on all paths.
    assert (run / "study/warm, blurred-0/moments").resolve() == (run / "study/warm-0/moments").resolve()
    assert "warm, blurred" in (run / "study.html").read_text()


@pytest.mark.parametrize(
    ("variants", "words"),
    [
        ({"warm": {"generator.bnr": 1.0}}, "the variant 'warm' needs another name"),
        ({"a": {"rollout.nfe": 2}}, "the variant 'a' must not change rollout.nfe"),
        ({"a": {"generator.steps": 2}}, "the variant 'a' must not change generator.steps"),
        ({"a": {"generator.bnr": -1}}, "study.variants.a: generator.bnr"),
        (
            {"a": {"moments.steps": 900}},
            "study.variants.a: its networks other than the generator cost more",
        ),
        ({"a": {"generator.pth": "blur"}}, "study.variants.a: generator.pth"),
    ],
)
def test_what_a_variant_must_not_change_is_refused(prepared, recipe, variants, words):
    record = open_analysis(prepared / "run/analysis.zarr")

    def studied() -> None:
        variant_of(recipe.changed(study__variants=variants), record, (0.5, 2), "a")

    with pytest.raises(UserError, match=words) as error:
        studied()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["warm, bnr 0.5", *NEW_NAMES, "rank", "solver", "solvers"])
def test_stored_recipes_keep_names_and_keys_of_variants(recipe, name):
    """A stamp of an older version is read with its keys renamed. Names of variants stay, and the keys that they change."""
    variants = {name: {"generator.path": "blur-noise", "generator.bnr": 1.0}}
    content = recipe.changed(study__variants=variants).dump()
    assert with_new_names(content) == content
    assert with_new_names({"study": {"solvers": ["dpm1"], "variants": variants}}) == {"study": {"solvers": ["euler"], "variants": variants}}
