"""Studies that compare objectives, at the same cost of training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from conftest import new_run
from small_training import WIND

import wsdcast
from wsdcast.data.store.analysis import open_analysis
from wsdcast.nets.weights import operations
from wsdcast.study.weather_variants import generator_operations, moments_cost, variant_of
from wsdcast.weather.networks import generator_model, moments_model
from wsdcast.weather.recipe import Recipe, load_recipe

VARIANTS = {
    "distilled": {"generator.objective": "distil", "few_steps.steps": 20},
    "shortcut": {"generator.objective": "shortcut", "few_steps.steps": 20, "generator.prior": "standard"},
    "mean flow": {"generator.objective": "mean-flow", "few_steps.steps": 10},
    "crps": {"generator.objective": "crps"},
    "crps of fields": {"generator.objective": "crps", "crps.noise": "fields"},
    "tuned": {"generator.objective": "distil", "few_steps.steps": 10, "fine_tune.steps": 10, "fine_tune.rollout": [1, 3]},
}


@pytest.fixture(scope="module")
def studied(prepared) -> Recipe:
    study = {"seeds": [0], "priors": ["warm"], "ablations": [], "nfe": [1, 2], "rollout_nfe": [1, 2], "members": 3, "starts": 3}
    study |= {"rollout_starts": 2, "leads": [6, 12], "variants": VARIANTS}
    recipe = load_recipe(prepared / "tiny.yaml").changed(moments__steps=40, generator__steps=100, rollout__nfe=4)
    return recipe.changed(**{f"study__{key}": value for key, value in study.items()})


def computed_cost(recipe: Recipe, record) -> float:
    """Return the floating-point operations of a whole training, written out."""
    generator = generator_model(recipe.generator, WIND, noise=recipe.crps.noise)
    few = generator_model(recipe.generator, WIND, few_steps=True)
    of_generator, of_few = (operations(net, *map(torch.zeros, net.input_shapes(8, 16))) for net in (generator, few))
    of_moments = operations(moments_model(recipe.moments, WIND), torch.zeros(1, 4, 8, 16)) * recipe.generator.needs_moments_network
    total = recipe.generator.steps * recipe.generator.batch * 3 * of_generator * (2 if recipe.generator.objective == "crps" else 1)
    total += (3 * recipe.moments.steps * recipe.moments.batch + record.now("train").size) * of_moments
    samples = recipe.few_steps.steps * recipe.few_steps.batch
    total += {"distil": 3 + 4, "shortcut": 3 + 2 / 8, "mean-flow": 5}.get(recipe.generator.objective, 0) * samples * of_few
    if recipe.fine_tune.steps:  # rollouts of 1 and of 3 steps, of two members; the last step of the network has gradients
        samples = recipe.fine_tune.steps * recipe.fine_tune.batch * 2
        total += samples * ((3 + 5) / 2 * of_few + (1 + 3) / 2 * of_moments)
    return total


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_cost_as_much_as_the_recipe(prepared, studied, name):
    record = open_analysis(prepared / "run/analysis.zarr")
    variant, _ = variant_of(studied, record, moments_cost(studied, record), name)
    rounded = 3 * generator_operations(variant, record) + 3 * generator_operations(studied, record)
    # The embedding of the step's length costs a few thousandths more.
    expected = computed_cost(studied, record)
    assert computed_cost(variant, record) == pytest.approx(expected, abs=rounded / 2 + 0.005 * expected)


@pytest.mark.slow
def test_a_study_compares_objectives(prepared, studied, tmp_path):
    run = new_run(prepared, tmp_path)
    quick = {name: changes | {"few_steps.steps": 2} for name, changes in VARIANTS.items()}
    quick["tuned"] |= {"fine_tune.steps": 2}
    recipe = studied.changed(generator__steps=30, moments__steps=4, fine_tune__batch=2, study__variants=quick)
    summary = wsdcast.study_nfe(recipe, run)
    with xr.open_dataset(run / "study.nc", decode_timedelta=True) as study:
        study.load()
    names, numbers, solvers = (study[name].values.tolist() for name in ("prior", "nfe", "solver"))
    rows = dict(zip(zip(names, numbers, strict=True), solvers, strict=True))
    # Names and numbers whose "euler" is no solver of the flow are told apart.
    others = ["shortcut 1, 2", "mean flow 1, 2", *(f"{name} 1" for name in VARIANTS if name not in ("shortcut", "mean flow"))]
    assert sorted(study.attrs["not_by_the_flow"].split("; ")) == sorted(others)
    assert study.attrs["not_by_the_flow"] in summary.facts["not by the flow"]
    assert f"whose solver is called euler: {study.attrs['not_by_the_flow']}." in (run / "study.html").read_text()
    assert rows == {
        ("warm", 2): "midpoint",
        ("moments, past errors", 0): "",
        **{(name, 1): "euler" for name in VARIANTS},
        ("shortcut", 2): "euler",
        ("mean flow", 2): "euler",
    }
    assert np.isfinite(study["crps_6h"]).all()
    one = study.isel(setting=study["nfe"].values == 1)
    assert one["crps"].sel(prediction_timedelta=np.timedelta64(12, "h")).notnull().all()
