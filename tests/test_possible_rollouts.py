"""A recipe whose networks cannot make its own rollout is refused before anything is made."""

from __future__ import annotations

import pytest
from commands import refused
from test_path_runs import run_with

import wsdcast
from wsdcast.runs.recipes import shipped_recipes
from wsdcast.weather.recipe import Recipe, load_recipe
from wsdcast.weather.samplers import require_rollout


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"generator.objective": "crps"}, "rollout.nfe 2: a generator of the objective crps makes one evaluation; set it to 1"),
        ({"rollout.nfe": 3}, "rollout.nfe 3: the solver midpoint cannot make this number of evaluations"),
        ({"rollout.nfe": 1}, "number is 2; one evaluation needs a distilled network (generator.objective distil) or the solver euler"),
        (
            {"rollout.nfe": 4, "generator.objective": "distil", "rollout.solver": "rk4", "rollout.momentum": 0.5},
            "rollout.solver rk4 has no",
        ),
        ({"rollout.solver": "sde2", "generator.path": "blur"}, "rollout.solver sde2: works on the straight path only"),
        ({"rollout.grid_in_time": "sgmse", "generator.path": "blur"}, "rollout.grid_in_time sgmse: begins with noise"),
        (
            {"rollout.solver": "explicit_adams", "rollout.grid_in_time": "edm", "rollout.nfe": 4},
            "rollout.solver explicit_adams: assumes equal steps",
        ),
        ({"rollout.momentum": 0.5}, "rollout.solver midpoint has no momentum"),
        (
            {"rollout.warmth": 0.5, "rollout.nfe": 1, "generator.objective": "distil"},
            "rollout.warmth 0.5: the network for nfe 1 is trained",
        ),
        ({"rollout.warmth": 0.5, "fine_tune.steps": 2, "fine_tune.nfe": 2}, "rollout.warmth 0.5: the network for nfe 2 is trained"),
    ],
    ids=str,
)
def test_a_recipe_whose_own_rollout_is_impossible_is_refused_before_anything_is_made(prepared, tmp_path, changes, words):
    """It was trained to the end, and then refused by the rollout."""
    options = [word for key, value in changes.items() for word in ("-o", f"{key}={value}")]
    assert words in refused("run", prepared / "tiny.yaml", "--run", tmp_path / "nothing", *options)
    assert not (tmp_path / "nothing").exists()


def test_train_says_that_the_own_rollout_is_impossible(prepared, tmp_path):
    """Options of the rollout may make it possible, so the networks are trained."""
    recipe, run = run_with(prepared, tmp_path, generator__objective="crps", few_steps__steps=3, few_steps__batch=4)
    summary = wsdcast.train(recipe, run)
    assert not summary.written
    assert summary.facts["own rollout"] == "impossible: rollout.nfe 4: a generator of the objective crps makes one evaluation; set it to 1"


@pytest.mark.parametrize(
    "changes",
    [
        {"generator__objective": "crps", "rollout__nfe": 1, "rollout__solver": "ab2", "rollout__grid_in_time": "edm"},
        {"generator__objective": "distil", "rollout__nfe": 1},
        {"generator__objective": "distil", "few_steps__nfe": 3, "rollout__nfe": 3},
        {"generator__objective": "shortcut", "rollout__nfe": 8, "rollout__solver": "rk4"},
        {"fine_tune__steps": 2, "fine_tune__nfe": 3, "rollout__nfe": 3},
        {"rollout__solver": "auto", "rollout__nfe": 7, "rollout__momentum": 0.5, "generator__path": "blur"},
        {"rollout__solver": "ab2", "rollout__nfe": 7, "rollout__momentum": 0.5, "rollout__warmth": 0.5},
    ],
    ids=str,
)
def test_a_possible_rollout_is_none_that_is_refused(prepared, changes):
    require_rollout(load_recipe(prepared / "tiny.yaml").changed(**changes))


@pytest.mark.parametrize("name", shipped_recipes(Recipe))
def test_shipped_recipes_can_be_rolled_out(name):
    require_rollout(load_recipe(name))
