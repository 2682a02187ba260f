"""Variants of a study: other paths, other networks, each at the cost of training of the recipe itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import wsdcast
from wsdcast.data.store.analysis import open_analysis
from wsdcast.nets.weights import operations
from wsdcast.runs.errors import UserError
from wsdcast.study.weather_variants import generator_operations, moments_cost, named_variant
from wsdcast.weather.networks import generator_model, moments_model
from wsdcast.weather.recipe import load_recipe

RECIPE = """
name: tiny
data: {grid: 16x8, days: 30}
moments: {widths: [8, 8], steps: 40, batch: 4}
generator: {widths: [8, 8], steps: 60, batch: 4}
rollout: {members: 3, nfe: 4, starts: 2, days: 0.5}
study: {seeds: [0], priors: [warm], ablations: [], nfe: [2, 4], rollout_nfe: [4], members: 3, starts: 3, rollout_starts: 2, leads: [6, 12]}
"""
VARIANTS = {
    "warm, blurred": {"generator.path": "blur-noise", "generator.bnr": 0.5},
    "blurred": {"generator.path": "blur-noise", "generator.prior": "standard"},
    "wide": {"generator.widths": [16, 16]},
    "large batches": {"generator.batch": 8},
    "joint": {"generator.moments": "joint", "generator.batch": 2},
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("variants")
    (place / "tiny.yaml").write_text(RECIPE)
    wsdcast.prepare(place / "tiny.yaml", place / "run")
    return place


def cost_by_hand(recipe, record) -> float:
    """Floating-point operations of a whole training: three evaluations a step, and the predictions of the training samples."""
    generator = generator_model(recipe.generator, False)
    inputs = torch.zeros(1, generator.first.in_channels, 8, 16), torch.zeros(1), torch.zeros(1)
    total = 3 * recipe.generator.steps * recipe.generator.batch * operations(generator, *inputs)
    if recipe.generator.needs_moments_network:
        visits = 3 * recipe.moments.steps * recipe.moments.batch + record.now("train").size
        if recipe.generator.moments == "joint":
            visits = 3 * recipe.generator.steps * recipe.generator.batch
        total += visits * operations(moments_model(recipe.moments, False), torch.zeros(1, 4, 8, 16))
    return total


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_cost_as_much_as_the_recipe(prepared, name):
    recipe = load_recipe(prepared / "tiny.yaml").changed(study__variants=VARIANTS)
    record = open_analysis(prepared / "run/analysis.zarr")
    variant, share = named_variant(recipe, record, moments_cost(recipe, record), name)
    # Steps, and the costs of both moments networks in steps, are whole numbers.
    own, of_recipe = (3 * generator_operations(one, record) for one in (variant, recipe))
    rounded = (own * (1 + share) + own + of_recipe) / 2
    assert cost_by_hand(variant, record) == pytest.approx(cost_by_hand(recipe, record), abs=rounded)
    assert (share == 0) == (name == "blurred")


def test_a_study_scores_its_variants_like_priors(prepared):
    recipe = load_recipe(prepared / "tiny.yaml").changed(
        generator__steps=6, moments__steps=4, study__variants={name: VARIANTS[name] for name in ("warm, blurred", "blurred")}
    )
    summary = wsdcast.study_nfe(recipe, prepared / "run", solvers=["midpoint", "sde1"])
    reason = "solver sde1: works on the straight path only, not on the path blur-noise"
    assert summary.facts["left out: sde1, blur-noise"] == reason
    with xr.open_dataset(prepared / "run/study.nc", decode_timedelta=True) as study:
        study.load()
    settings = set(zip(study["prior"].values.tolist(), study["solver"].values.tolist(), study["nfe"].values.tolist(), strict=True))
    expected = {(name, "midpoint", nfe) for name in ("warm", "warm, blurred", "blurred") for nfe in (2, 4)}
    assert settings == expected | {("warm", "sde1", 2), ("warm", "sde1", 4), ("moments alone", "", 0)}
    cost = study["cost"] - study["nfe"]
    np.testing.assert_allclose(cost.values[study["prior"].values == "blurred"], 0)
    np.testing.assert_array_less(0.01, cost.values[study["prior"].values == "warm, blurred"])
    forecasts = study["crps"].sel(prediction_timedelta=np.timedelta64(12, "h"))
    assert np.isfinite(forecasts.values[(study["prior"].values == "warm, blurred") & (study["nfe"].values == 4)]).all()
    # Moments are trained once for a seed, whatever the path.
    places = prepared / "run/study"
    assert (places / "warm, blurred-0/moments").resolve() == (places / "warm-0/moments").resolve()
    assert "warm, blurred" in (prepared / "run/study.html").read_text()


@pytest.mark.parametrize(
    ("variants", "words"),
    [
        ({"warm": {"generator.bnr": 1.0}}, "the variant 'warm' needs another name"),
        ({"a": {"rollout.nfe": 2}}, "the variant 'a' must not change rollout.nfe"),
        ({"a": {"generator.steps": 2}}, "the variant 'a' must not change generator.steps"),
        ({"a": {"generator.bnr": -1}}, "study.variants.a: generator.bnr"),
        ({"a": {"moments.steps": 900}}, "study.variants.a: its moments network alone costs more than the training of the recipe"),
        ({"a": {"generator.pth": "blur"}}, "study.variants.a: generator.pth"),
    ],
)
def test_what_a_variant_must_not_do_is_one_line(prepared, variants, words):
    record = open_analysis(prepared / "run/analysis.zarr")

    def studied() -> None:
        named_variant(load_recipe(prepared / "tiny.yaml").changed(study__variants=variants), record, (0.5, 2), "a")

    with pytest.raises(UserError, match=words) as error:
        studied()
    assert "\n" not in str(error.value)
