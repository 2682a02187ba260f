"""Variants of a study of images: other paths, other networks, each at the cost of training of the recipe itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from commands import refused
from image_runs import RECIPE

from wsdcast.images.data.store import open_images
from wsdcast.images.networks import generator_model, moments_model, trained
from wsdcast.images.recipe import ImageRecipe
from wsdcast.images.stages.prepare import prepare
from wsdcast.nets.weights import operations
from wsdcast.runs.summary import Summary
from wsdcast.study.images import inpaint_study, settings_of
from wsdcast.study.images_variants import moments_cost, variant_of

VARIANTS = {
    "warm, blurred": {"generator.path": "blur-noise", "generator.bnr": 0.5},
    "blurred": {"generator.path": "blur-noise", "generator.prior": "standard"},
    "wide": {"generator.widths": [16, 16]},
    "large batches": {"generator.batch": 8},
    "cheap moments": {"moments.widths": [4, 4], "moments.batch": 2},
}
STUDY = {
    "seeds": [0],
    "priors": ["warm"],
    "ablations": ["standard"],
    "nfe": [2, 4],
    "solvers": ["midpoint"],
    "visible": [0.5],
    "warmths": [1],
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("variants") / "run"
    prepare(RECIPE, run)
    return run


@pytest.fixture(scope="module")
def images(prepared):
    return open_images(prepared / "images")


def recipe_with(variants: dict[str, dict[str, object]]) -> ImageRecipe:
    return RECIPE.changed(**{f"study__{key}": value for key, value in STUDY.items()}, study__variants=variants)


def cost_by_hand(recipe: ImageRecipe) -> float:
    """Floating-point operations of a whole training: three evaluations a step, and one prediction of the moments of each sample."""
    generator = generator_model(recipe.generator, 3)
    of_generator = operations(generator, torch.zeros(1, generator.first.in_channels, 16, 16), torch.zeros(1), torch.zeros(1))
    of_moments = operations(moments_model(recipe.moments, 3), torch.zeros(1, 4, 16, 16)) * recipe.generator.needs_moments_network
    samples = recipe.generator.steps * recipe.generator.batch
    return samples * (3 * of_generator + of_moments) + 3 * recipe.moments.steps * recipe.moments.batch * of_moments


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_cost_as_much_as_the_recipe(images, name):
    recipe = recipe_with(VARIANTS).changed(generator__steps=60, moments__steps=40)
    cost = moments_cost(recipe, images)
    variant, share = variant_of(recipe, images, cost, name)
    one_more = variant.changed(generator__steps=variant.generator.steps + 1)
    assert cost_by_hand(variant) == pytest.approx(cost_by_hand(recipe), abs=1.2 * (cost_by_hand(one_more) - cost_by_hand(variant)))
    assert share == pytest.approx(0 if name == "blurred" else moments_cost(variant, images)[0])
    of_steps, _ = variant_of(recipe.changed(study__budget="steps"), images, cost, name)
    assert of_steps.generator.steps == 60


def test_a_batch_larger_than_the_images_costs_only_the_images(images):
    train, costs = images.count("train"), []
    for batch in (train, 4 * train):
        recipe = recipe_with({"warm, blurred": VARIANTS["warm, blurred"]}).changed(moments__batch=batch, moments__steps=40)
        costs.append(moments_cost(recipe, images))
    assert costs[0] == costs[1]


def test_a_variant_is_in_the_curves_and_not_in_the_sensitivity(images):
    recipe = recipe_with(VARIANTS).changed(study__warmths=[0.5, "calibrated"], study__solvers=["midpoint", "dpm2"], study__nfe=[2])
    variants = {name: variant_of(recipe, images, moments_cost(recipe, images), name)[0] for name in ("warm, blurred", "blurred")}
    found = {
        name: [dataclasses.astuple(setting) for setting in settings_of(variant, name, Summary("study"))]
        for name, variant in variants.items()
    }
    for name, warmths in (("warm, blurred", (1.0, 0.5)), ("blurred", (1.0,))):
        pairs = [(solver, warmth) for solver in ("midpoint", "dpm2") for warmth in warmths]
        assert found[name] == [("curve", name, solver, "uniform", warmth, 0.1, 2) for solver, warmth in pairs]


@pytest.mark.slow
def test_a_study_scores_its_variants_like_priors(prepared, images):
    recipe = recipe_with({name: VARIANTS[name] for name in ("warm, blurred", "blurred")})
    summary = inpaint_study(recipe, prepared, solvers=["midpoint", "sde1"])
    assert summary.facts["left out: sde1, blur-noise"] == "solver sde1: works on the straight path only, not on the path blur-noise"
    with xr.open_dataset(prepared / "study.nc") as study:
        study.load()
    curve = study.isel(setting=(study["kind"] == "curve").values)
    settings = set(zip(curve["prior"].values.tolist(), curve["solver"].values.tolist(), curve["nfe"].values.tolist(), strict=True))
    expected = {(name, "midpoint", nfe) for name in ("warm", "warm, blurred", "blurred") for nfe in (2, 4)}
    expected |= {("warm", "sde1", 2), ("warm", "sde1", 4)}
    assert settings == expected | {("standard", "midpoint", 2), ("moments alone", "", 0)}
    variant, share = variant_of(recipe, images, moments_cost(recipe, images), "warm, blurred")
    cost = dict(zip(curve["prior"].values.tolist(), (curve["cost"] - curve["nfe"]).values.tolist(), strict=True))
    assert cost["blurred"] == cost["standard"] == 0
    assert cost["warm, blurred"] == pytest.approx(share)
    assert np.isfinite(curve["crps"]).all()
    place = prepared / "study/warm, blurred-0"
    assert trained(variant, place, images).path.name == "blur-noise"
    # Moments are trained once for a seed, whatever the path.
    assert (place / "moments").resolve() == (prepared / "study/warm-0/moments").resolve()
    assert "<td>warm, blurred</td>" in (prepared / "study.html").read_text()
    assert [row["nfe"] for row in summary.scores if row["prior"] == "warm, blurred"] == [2, 4]


@pytest.mark.parametrize(
    ("variants", "words"),
    [
        ({"class-climatology": {"generator.bnr": 1.0}}, "the variant 'class-climatology' needs another name"),
        ({"warm, calibrated": {"generator.bnr": 1.0}}, "the variant 'warm, calibrated' needs another name"),
        ({"a/b": {"generator.bnr": 1.0}}, "the variant 'a/b' needs another name"),
        ({"a": {"sample.nfe": 2}}, "the variant 'a' must not change sample.nfe"),
        ({"a": {"generator.steps": 2}}, "the variant 'a' must not change generator.steps"),
        ({"a": {"generator.bnr": -1}}, "study.variants.a: generator.bnr"),
        ({"a": {"generator.pth": "blur"}}, "study.variants.a: generator.pth: unknown key"),
        ({"a": {"generator.prior": "class-climatology"}}, "study.variants.a: recipe: the prior class-climatology needs"),
        (
            {"a": {"moments.steps": 9000}},
            "study.variants.a: its networks other than the generator cost more",
        ),
    ],
)
def test_what_a_variant_must_not_do_is_one_line(prepared, tmp_path, variants, words):
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(RECIPE.dump() | {"study": STUDY | {"variants": variants}}))
    assert words in refused("inpaint", "study", "--recipe", str(tmp_path / "bad.yaml"), "--run", str(prepared))
