"""The YAML of recipes and of -o: what plain values mean, and texts that would become large."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml
from commands import refused

from wsdcast.runs.yaml_text import MOST_VALUES, as_yaml, yaml_of
from wsdcast.weather.recipe import load_recipe

PIPELINES = Path(__file__).parents[1] / "pipelines"

# Of the core schema of YAML 1.2, section 10.3.2. In YAML 1.1, which PyYAML reads, most of the first two lines are something else.
VALUES = {"010": 10, "0o10": 8, "-010": -10, "1e-4": 1e-4, "1E3": 1e3, "1.e2": 100.0, ".5e1": 5.0, "-.5": -0.5, "12:30": "12:30"}
VALUES |= {word: word for word in ("yes", "No", "on", "OFF", "y", "1_000", "0b11", "1:30.5", "2020-01-31", "=")}
VALUES |= {"7": 7, "+7": 7, "-0": 0, "0x1F": 31, "1.5": 1.5, "1.0e-4": 1e-4, "-.inf": -math.inf}
VALUES |= dict.fromkeys(("", "~", "null", "Null", "NULL")) | dict.fromkeys(("true", "True", "TRUE"), True)
VALUES |= dict.fromkeys(("false", "False", "FALSE"), False) | dict.fromkeys((".inf", ".Inf", "+.INF"), math.inf)
VALUES |= dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan)
VALUES |= {
    "64x32": "64x32",
    "1.2.3": "1.2.3",
    ".": ".",
    "e5": "e5",
    "0o8": "0o8",
    "tRue": "tRue",
    "'010'": "010",
}


@pytest.mark.parametrize(("text", "value"), VALUES.items())
def test_plain_values_are_those_of_yaml_1_2(text, value):
    assert repr(yaml_of(f"key: {text}")["key"]) == repr(value)  # which tells 1 from 1.0 and True, and nan is like nan


def test_merged_keys_are_read():
    assert yaml_of("a: &a {p: 1, q: 2}\nb: {<<: *a, q: 3}")["b"] == {"p": 1, "q": 3}


@pytest.mark.parametrize("text", VALUES)
def test_a_text_is_written_so_that_both_versions_read_it_as_a_text(text):
    for value in (text, VALUES[text]):
        written = as_yaml({"name": value})
        assert repr(yaml_of(written)) == repr({"name": value})
    assert yaml.safe_load(as_yaml({"name": text})) == {"name": text}


@pytest.mark.parametrize("path", sorted(PIPELINES.rglob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_mean_the_same_as_before(path):
    """Only times differ: they are texts now."""
    assert yaml_of(path.read_text()) == json.loads(json.dumps(yaml.safe_load(path.read_text()), default=str))


def test_the_recipe_that_a_report_shows_is_the_recipe():
    recipe = load_recipe("era5").changed(generator__learning_rate=1e-9, name="no")
    assert yaml_of(as_yaml(recipe.dump())) == recipe.dump()
    assert as_yaml(recipe.dump()) == yaml.safe_dump(recipe.dump(), sort_keys=False)


@pytest.mark.parametrize("text", ["!!bool maybe", "!!timestamp now", "!!float ''"])
def test_a_value_that_does_not_fit_its_tag_is_refused(text):
    with pytest.raises(ValueError, match="does not fit its tag"):
        yaml_of(f"key: {text}")


LISTS = "a0: &a0 [x, x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
MAPPINGS = "a0: &a0 {p: 1, q: 2}\n" + "".join(f"a{n}: &a{n} {{p: *a{n - 1}, q: *a{n - 1}}}\n" for n in range(1, 60))
MERGED = "a0: &a0 {p: 1, q: 2}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 60))
ITSELF = "a: &a [*a]"


@pytest.mark.parametrize(
    "text", [LISTS, MAPPINGS, MERGED, ITSELF, f"[{'1,' * MOST_VALUES}]"], ids=["lists", "mappings", "merged", "itself", "long"]
)
def test_aliases_of_aliases_are_refused_before_they_grow(directory, text):
    (directory / "r.yaml").write_text(text)
    assert f"it has more than {MOST_VALUES} values" in refused("run", "r.yaml")
    assert "-o seed: the value cannot be read (it has more than" in refused("run", "planet", "-o", f"seed={text}")


def test_a_character_that_yaml_does_not_allow_is_named(directory):
    (directory / "r.yaml").write_text("name: x\a")
    assert "r.yaml: cannot be read (unacceptable character #x0007" in refused("run", "r.yaml")
