"""Any recipe key from the command line: ``-o section.key=value``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import refused
from conftest import TINY, new_run
from typer.testing import CliRunner

from wsdcast.cli import app
from wsdcast.images.recipe import ImageRecipe
from wsdcast.runs.artefact import read_stamp, resolve
from wsdcast.runs.overrides import Overridden, parsed
from wsdcast.weather.recipe import Recipe, load_recipe

WEATHER = [["prepare"], ["train"], ["rollout"], ["score"], ["plot", "curves"], ["run"], ["study", "nfe"]]
WEATHER += [["bench", "train"], ["bench", "rollout"]]
IMAGES = [["inpaint", stage] for stage in ("prepare", "train", "sample", "score", "study", "run")]


def of_recipe(*overrides: str, recipe: str | None = "planet", kind: type = Recipe, **changes: object):
    return resolve(Overridden(recipe, parsed(overrides)), None, kind, **changes)


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("rollout.nfe=4", ("rollout", "nfe"), 4),
        ("seed=3", ("seed",), 3),
        ("generator.times.mean=1.2", ("generator", "times", "mean"), 1.2),
        ("generator.learning_rate=1e-3", ("generator", "learning_rate"), 1e-3),
        ("moments.maximum_std=null", ("moments", "maximum_std"), None),
        ("moments.widths=[8, 8]", ("moments", "widths"), [8, 8]),
        ("generator.compile=true", ("generator", "compile"), True),
        ("data.source=a=b.nc", ("data", "source"), "a=b.nc"),
        ("data.end=2020-01-31", ("data", "end"), "2020-01-31T23:59:59"),
        ("rollout.keep=[6, 24]", ("rollout", "keep"), [6, 24]),
        ("rollout.start=2020-01-01/2020-02-01/12h", ("rollout", "start"), "2020-01-01/2020-02-01/12h"),
    ],
)
def test_one_key_changes_and_no_other(override, path, value):
    expected = load_recipe("planet").dump()
    section = expected
    for name in path[:-1]:
        section = section[name]
    assert section[path[-1]] != value
    section[path[-1]] = value
    assert of_recipe(override)[0].dump() == expected


def test_several_keys_change_and_the_last_value_of_a_key_holds():
    recipe, _ = of_recipe("rollout.nfe=4", "study.nfe=[2, 8]", "rollout.nfe=6", "study.rollout_nfe=[8]")
    assert (recipe.rollout.nfe, recipe.study.nfe, recipe.study.rollout_nfe) == (6, (2, 8), (8,))


def test_the_name_names_the_run_directory():
    recipe, directory = of_recipe("name=mine")
    assert (recipe.name, directory) == ("mine", Path("runs/mine"))


def test_a_mapping_is_replaced_as_a_whole_or_key_by_key(tmp_path):
    """The variants and weights of a recipe could not be left out: it was said that a mapping with keys is a section."""
    path = tmp_path / "mine.yaml"
    sections = "\nstudy: {variants: {a: {generator.prior: warm}}}\ntraining: {weights: {geopotential: 2}}\n"
    path.write_text("name: mine" + sections)
    recipe, _ = of_recipe("study.variants={}", "training.weights.temperature=3", recipe=path)
    assert (recipe.study.variants, recipe.training.weights) == ({}, {"geopotential": 2, "temperature": 3})
    assert recipe.changed(study__variants={"b": {"generator.nfe": 2}}, training__weights={}).training.weights == {}


def test_keys_of_image_recipes_can_be_overridden():
    recipe, _ = of_recipe("task.kind=denoise", "sample.warmth=calibrated", recipe="made", kind=ImageRecipe)
    assert (recipe.task.kind, recipe.sample.warmth) == ("denoise", "calibrated")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rollout.nef=4", "-o: rollout.nef: unknown key; did you mean rollout.nfe?"),
        ("nfe=4", "-o: nfe: unknown key; did you mean few_steps.nfe or fine_tune.nfe or rollout.nfe or study.nfe?"),
        ("generator.members=4", "-o: generator.members: unknown key; did you mean rollout.members or study.members?"),
        ("rolout.nfe=4", "-o: rolout: unknown key; did you mean rollout?"),
        ("generator.times.maen=4", "-o: generator.times.maen: unknown key; did you mean generator.times.mean?"),
        ("moments.widths=8", "-o: moments.widths: expected a list, not 8"),
        ("rollout.nfe.more=4", "-o rollout.nfe.more: unknown key"),
        ("generator.rate=0.1", "-o: generator.rate: is called learning_rate now"),
        ("rollout.nfe=many", "-o: rollout.nfe: input should be a valid integer"),
        ("rollout.nfe=true", "-o: rollout.nfe: expected a number, not true"),
        ("rollout.days=true", "-o: rollout.days: expected a number, not true"),
        ("rollout.keep=[6, false]", "-o: rollout.keep: expected numbers, not false"),
        ("moments.maximum_std=true", "-o: moments.maximum_std: expected a number, not true"),
        ("generator.times.mean=false", "-o: generator.times.mean: expected a number, not false"),
        ("study.nfe=[true, 4]", "-o: study.nfe: expected numbers, not true"),
        ("training.weights={2m_temperature: true}", "-o: training.weights: expected numbers, not true"),
        ("seed=false", "-o: seed: expected a number, not false"),
        ("rollout.nfe=0", "-o: rollout.nfe: input should be greater than 0, not 0"),
        ("moments.blocks=1e6", "-o: moments.blocks: input should be less than or equal to 1000, not 1000000.0"),
        ("rollout.days=.inf", "-o: rollout.days: input should be a finite number"),
        ("rollout.nfe=", "-o: rollout.nfe: input should be a valid integer, not None"),
        ("moments.widths=[10]", "-o: moments: widths must be multiples of 4"),
        ("rollout.nfe", "-o rollout.nfe: expected KEY=VALUE"),
        ("=4", "-o =4: expected KEY=VALUE"),
        ("moments.widths=[8", "the value cannot be read (line 1: while parsing a flow sequence, expected ',' or ']'"),
        ("data.start=2020-13-01", "-o: data.start: expected a time such as 2020-01-01 or 2020-01-01T18, not '2020-13-01'"),
        ("rollout={nfe: 4}", "-o rollout: a section; name one of its keys, such as rollout.members"),
        ("generator.times=1", "-o generator.times: a section; name one of its keys, such as generator.times.kind"),
        ("name=../elsewhere", "-o: name: '../elsewhere': expected letters, digits, _, - and ."),
        (".nfe=4", "-o .nfe: unknown key"),
        ("rollout.=4", "-o rollout.: unknown key"),
        ("rollout..nfe=4", "-o rollout..nfe: unknown key"),
        ("rollout.nfe=" + "[" * 3000, "-o rollout.nfe: the value cannot be read (its values are nested too deeply)"),
    ],
)
def test_mistakes_end_in_one_line_that_names_the_key(tmp_path, monkeypatch, override, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused("run", "planet", "-o", override)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [*WEATHER, *IMAGES], ids=" ".join)
def test_every_command_with_a_recipe_takes_overrides(tmp_path, monkeypatch, command):
    """Each reads the key before it does anything else."""
    monkeypatch.chdir(tmp_path)
    for option in ("-o", "--override"):
        assert "-o: training.evry: unknown key" in refused(*command, option, "seed=1", option, "training.evry=5")


def test_a_key_that_an_option_sets_otherwise_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "-o rollout.nfe: another option" in refused("bench", "rollout", "--nfe", "10", "-o", "rollout.nfe=4")
    assert "or the command itself, sets this key too" in refused("bench", "rollout", "-o", "rollout.solver=ab2")
    assert "or the command itself, sets this key too" in refused("bench", "train", "-o", "generator.steps=5")
    message = refused("rollout", "--nfe", "10", "-o", "rollout.nfe=4")
    assert "-o rollout.nfe: another option of this command, or the command itself, sets this key too" in message
    assert "analysis.zarr is not there" in refused("rollout", "--nfe", "4", "-o", "rollout.nfe=4")


@pytest.mark.parametrize("command", [("study", "nfe"), ("inpaint", "study")])
def test_an_option_and_an_override_may_give_the_same_list(tmp_path, monkeypatch, command):
    """The option's items are words, the override's are numbers."""
    monkeypatch.chdir(tmp_path)
    others = ["-o", "study.rollout_nfe=[2]"] if command[0] == "study" else []
    message = refused(*command, "--nfe", "2,4", *others, "-o", "study.nfe=[2, 4]")
    assert "is not there" in message
    assert "-o study.nfe: another option" in refused(*command, "--nfe", "2,4", *others, "-o", "study.nfe=[2, 6]")


def test_a_forecast_that_has_no_recipe_takes_no_overrides(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "and no recipe" in refused("score", "f.zarr", "--truth", "t.zarr", "-o", "seed=1")
    assert "the only option of a comparison is --json" in refused("score", "runs/a", "runs/b", "-o", "seed=1")


def test_an_override_changes_a_key_of_the_recipe_of_the_run(prepared, tmp_path):
    """Without ``--recipe`` the other keys come from the stored artefacts, not from the default recipe."""
    run = new_run(prepared, tmp_path)
    result = CliRunner().invoke(app, ["train", "--run", str(run), "-o", "generator.steps=2", "-o", "generator.prior=standard", "--json"])
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["stage"] == "train"
    stamp = read_stamp(run / "generator")
    assert stamp is not None
    assert stamp["recipe"]["generator"] | {"steps": 4, "prior": "warm"} == Recipe.model_validate(_tiny()).dump()["generator"]
    assert stamp["recipe"]["data"]["grid"] == "16x8"
    assert (stamp["recipe"]["generator"]["steps"], stamp["recipe"]["generator"]["prior"]) == (2, "standard")


def test_a_study_takes_overrides_but_not_of_a_key_that_has_an_option(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    arguments = ["study", "nfe", "--recipe", str(tmp_path / "tiny.yaml"), "--run", str(tmp_path), "--nfe", "2"]
    arguments += ["-o", "study.nfe=[2, 4]", "-o", "study.rollout_nfe=[2]"]
    assert "-o study.nfe: another option" in refused(*arguments)
    arguments[-4:-2] = []
    assert "analysis.zarr is not there" in refused(*arguments)


def _tiny() -> dict[str, object]:
    import yaml

    return yaml.safe_load(TINY)
