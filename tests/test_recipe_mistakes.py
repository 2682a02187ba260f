"""Mistakes in recipes are named in one line. Times may be written in several ways."""

from __future__ import annotations

from datetime import date, datetime

import numpy as np
import pytest
from commands import refused

import wsdcast
from wsdcast.runs.errors import UserError
from wsdcast.weather.recipe import Data, Rollout, load_recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nmemebers: 3", "memebers: unknown key"),
        ("name: x\nrollout: {member: 3}", "rollout.member: unknown key; did you mean rollout.members?"),
        ("name: x\nrollout: {members: many}", "rollout.members: input should be a valid integer"),
        ("name: x\nmoments: {widths: [10]}", "widths must be multiples of 4"),
        ("name: x\ngenerator: {rate: 0.1}", "generator.rate: is called learning_rate now"),
        (
            "name: x\nmoments: {average: 0.1, clip: 1.0}",
            "moments.average: is called ema_decay now; moments.clip: is called gradient_clip now",
        ),
        ("name: x\nmoments: {recompute: true}", "moments.recompute: is called activation_checkpointing now"),
        ("name: x\nmoments: {warm_up: 1}", "moments.warm_up: is called warmup_steps now"),
        ("name: x\ntraining: {every: 3, keep: 1}", "training.every: is called training.validate_every now"),
        ("name: x\ncontext: {solar_time: true}", "context: is called forcings now"),
        ("name: x\nrollout: {solver: fixed_adams}", "rollout.solver: the solver fixed_adams is gone; use implicit_adams"),
        ("name: x\nstudy: {solvers: [ab2, dpm1]}", "study.solvers.1: the solver dpm1 is gone; use euler"),
        ("name: x\nrollout: {solver: [ab2]}", "rollout.solver: input should be 'auto'"),
        ("name: x\ndata: {validation_from: 2020-01-01}", "validation_from needs a test_from"),
        ("data: {days: 3}", "name: field required"),
        ("just text", "expected keys and values"),
        ("# nothing", "expected keys and values"),
        ("? [name]\n: x", "cannot be read (line 1: while constructing a mapping, found unhashable key)"),
        ("name: x\ndata: {test_from: 2020-13-01}", "data.test_from: expected a time such as 2020-01-01 or 2020-01-01T18, not '2020-13-01'"),
        ("name: x\ndata: {test_from: 3000-01-01}", "out of the range"),
        ("name: x\nrollout: {days: .inf}", "rollout.days: input should be a finite number"),
        ("name: ..", "name: '..': expected letters, digits, _, - and . without spaces"),
        ("a: [", "cannot be read (line 1: while parsing a flow node, expected the node content, but found '<stream end>')"),
        ("name: x\nrollout: {members: 3\nmoments: {steps: 4}\n", "cannot be read (line 3: while parsing a flow mapping, expected ',' or "),
        ("name: x\nrollout:\n\tnfe: 4\n", "(line 3: while scanning for the next token, found character '\\t' that cannot start any token)"),
        ("name: x\n---\nname: y\n", "(line 2: expected a single document in the stream, but found another document)"),
        ("name: x\ndata: *unknown\n", "(line 2: found undefined alias 'unknown')"),
        ("name: x\nrollout: {nfe: true}", "rollout.nfe: expected a number, not true"),
        pytest.param("a: " + "[" * 3000 + "]" * 3000, "cannot be read (its values are nested too deeply)", id="deep"),
        ("name: x\nrollout: {nfe: 2}\nrollout: {members: 4}", "rollout is there twice"),
        ("name: x\nrollout: {nfe: 2, nfe: 4}", "nfe is there twice"),
        ("name: x\ndata: {start: 2001}", "data.start: expected a time such as 2020-01-01 or 2020-01-01T18, not 2001"),
        ("name: x\ndata: {end: '2001-02'}", "data.end: expected a time such as"),
        ("name: x\nrollout: {variables: []}", "rollout.variables: expected at least one value"),
        ("name: x\ndata: {skip: 2020-01-01}", "data.skip: expected a list, not 2020-01-01"),
        ("name: x\nstudy: {nfe: [2], rollout_nfe: [2, 4, 8]}", "study.rollout_nfe: 4, 8 not in nfe"),
        ("name: x\nstudy: {nfe: [4, 2]}", "study.rollout_nfe: 20 not in nfe"),
        ("name: x\nstudy: {nfe: [0]}", "study.nfe.0: input should be greater than 0, not 0"),
        ("name: x\nrollout: {log_snr_ends: [-3, 40]}", "rollout.log_snr_ends: must increase by more than 0.01, between -15 and 15"),
        ("name: x\nrollout: {log_snr_ends: [0.0, 1.0e-16]}", "rollout.log_snr_ends: must increase by more than 0.01, between -15 and 15"),
        ("name: x\nrollout: {nfe: 1000000000}", "rollout.nfe: input should be less than or equal to 16777216, not 1000000000"),
        ("name: x\nrollout: {days: 1e9}", "rollout.days: input should be less than or equal to 36500"),
        ("name: x\ndata: {days: 1000000000}", "data.days: input should be less than or equal to 73000"),
        (f"name: x\nseed: {2**63}", "seed: expected a number below 2**63"),
        (f"name: x\nmoments: {{widths: [4, {10**30}]}}", "moments.widths: expected numbers below 2**63"),
        ("name: x\ndata: {skip: [5]}", "data.skip.0: expected a time such as 2020-01-01 or 2020-01-01T18, not 5"),
    ],
)
def test_mistakes_in_recipes_are_named(directory, text, message):
    (directory / "r.yaml").write_text(text)
    line = refused("run", "r.yaml")
    assert message in line
    assert "r.yaml" in line


@pytest.mark.parametrize("recipe", [{"name": "x"}, ["planet"], 5])
def test_a_recipe_of_a_wrong_type_is_not_taken_for_the_default(directory, recipe):
    with pytest.raises(UserError, match=f"^recipe: expected a path or the name of a shipped one, not {type(recipe).__name__}$"):
        wsdcast.train(recipe, directory / "run")


@pytest.mark.parametrize("function", [wsdcast.score, wsdcast.train, wsdcast.prepare])
def test_a_run_directory_in_the_place_of_the_recipe_is_named(directory, function):
    (directory / "runs/tiny").mkdir(parents=True)
    with pytest.raises(UserError, match=r"^recipe 'runs/tiny': is a directory; a run directory is given as --run, from Python as run=$"):
        function("runs/tiny")
    assert "recipe 'runs/tiny': is a directory" in refused("run", "runs/tiny")
    assert "recipe 'runs/tiny/': is a directory" in refused("plot", "curves", "--recipe", "runs/tiny/")
    assert not list((directory / "runs/tiny").iterdir())


@pytest.mark.parametrize("skipped", ["2020-01-02, 2020-01-01T18:00:00+02:00", "'20200102', '2020-01-01T18+02:00'"])
@pytest.mark.parametrize("end", ["2020-01-03", "'2020-01-03'", "'20200103'", "2020-01-03T23:59:59", "'2020-01-03T23:59:59.999999'"])
def test_times_may_be_dates_or_end_with_the_hour(directory, skipped, end):
    (directory / "r.yaml").write_text(f"name: x\ndata: {{skip: [{skipped}], end: {end}}}")
    data = load_recipe("r.yaml").data
    assert data.skip == (datetime(2020, 1, 1, 16), datetime(2020, 1, 2))
    assert data.end == datetime(2020, 1, 3, 23, 59, 59)


@pytest.mark.parametrize("kind", ["h", "s", "ns"])
def test_times_to_leave_out_may_be_those_of_numpy(kind):
    times = np.array(["2020-01-02T06", "2020-01-01"], f"datetime64[{kind}]")
    assert Data(skip=list(times)).skip == (datetime(2020, 1, 1), datetime(2020, 1, 2, 6))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        *[(text, "2020-01-03T00") for text in ("2020-01-03", "2020-01-03 00:00", "2020-01-03T02:00:00+02:00", date(2020, 1, 3))],
        ("2020-01-03T06:30", "2020-01-03T06:30"),
        ("2020-01-03T06:00:05", "2020-01-03T06:00:05"),
        ("latest", "latest"),
        ("2020-01-03/2020-01-04/12h", "2020-01-03/2020-01-04/12h"),
    ],
)
def test_one_initial_time_has_one_spelling(given, kept):
    assert Rollout(start=given).start == kept


def test_an_unknown_recipe_is_refused_with_the_known_names(directory):
    assert "gfs, gfs-1.5, planet" in refused("run", "plnaet")
    assert "cannot be read" in refused("run", "nowhere.yaml")
