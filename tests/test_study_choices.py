"""A study chooses settings on the validation split. Settings that diverge are marked and never chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from conftest import new_run
from made_studies import SHARES, Scores, made_settings

import wsdcast
from wsdcast.data.store.analysis import open_analysis
from wsdcast.data.variables import DEFAULT
from wsdcast.runs.artefact import resolve
from wsdcast.runs.errors import UserError
from wsdcast.runs.summary import Summary
from wsdcast.study.design import combinations
from wsdcast.study.evaluation import evaluate, studied_variables
from wsdcast.study.weather_summary import combine, rows, saturation
from wsdcast.verification.scoring import statistics_of
from wsdcast.weather.forecast.noise import member_noise
from wsdcast.weather.recipe import Recipe, load_recipe
from wsdcast.weather.samplers import require_rollout
from wsdcast.weather.solver_choice import best_of, without_auto
from wsdcast.weather.trained import trained

T850, WIND_850 = "temperature@850", ("u_component_of_wind@850", "v_component_of_wind@850")


def studied(solver: str, test: Scores, validation: Scores) -> list:
    """Return made-up settings whose scores differ between the test and the validation split."""
    of_test, of_validation = (made_settings(scores, solver=solver) for scores in (test, validation))
    return [
        (setting, {"one step": datasets["one step"], "validation": others["validation"]})
        for (setting, datasets), (_, others) in zip(of_test, of_validation, strict=True)
    ]


def test_the_validation_split_chooses_and_the_test_split_reports():
    lucky = studied("euler", {("warm", 4): (0.8, 1.0)}, {("warm", 4): (1.2, 1.0)})
    steady = studied("midpoint", {("warm", 4): (1.0, 1.0)}, {("warm", 4): (1.0, 1.0)})
    study = combine([*lucky, *steady], SHARES)
    (best,) = np.flatnonzero(study["best"])
    assert study["solver"].values[best] == "midpoint"
    assert study["crps_6h"].values[best] == pytest.approx(1.0)
    assert study["crps_6h_validation"].values == pytest.approx([1.2, 1.0])
    assert study.attrs["chosen_on"] == "the validation split"


def test_the_number_of_evaluations_at_saturation_is_chosen_on_the_validation_split():
    test: Scores = {("warm", 2): (1.0, 1.1), ("warm", 4): (1.5, 1.3)}
    validation: Scores = {("warm", 2): (1.5, 1.3), ("warm", 4): (1.0, 1.1)}
    assert saturation(combine(studied("midpoint", test, validation), SHARES)) == {"warm": 4}


def without_validation(scores: Scores, solver: str = "midpoint") -> list:
    return [(setting, {"one step": datasets["one step"]}) for setting, datasets in made_settings(scores, solver=solver)]


def test_without_a_validation_split_nothing_is_chosen():
    scores: Scores = {("warm", 4): (1.0, 1.0), ("standard", 4): (1.0, 1.0)}
    study = combine([*without_validation(scores), *without_validation({("warm", 4): (0.9, 1.0)}, "euler")], SHARES)
    assert study["prior"].values[study["best"].values].tolist() == ["standard"]  # only one setting of this prior
    assert "no validation split" in study.attrs["chosen_on"]


def test_a_setting_that_diverged_is_marked_and_never_chosen():
    good, bad = (
        made_settings({("warm", 4): (crps, 1.0), ("standard", 4): (1.0, 1.0)}, solver=name)
        for crps, name in ((1.0, "midpoint"), (0.1, "ab4"))
    )
    for _, datasets in bad:
        for name in datasets:
            datasets[name] = datasets[name].copy(deep=True)
            datasets[name]["runaway"][3] = 0.25  # a quarter of the members on one of ten dates
    study = combine([*good, *bad], SHARES)
    assert set(study["solver"].values[study["best"].values]) == {"midpoint"}
    diverged = study.isel(setting=(study["solver"] == "ab4").values)
    assert np.isnan(diverged["crps_6h"]).all()
    np.testing.assert_allclose(diverged["runaway_6h"], 0.025)
    words = {row["solver"]: row["diverged"] for row in rows(study)}
    assert words == {"midpoint": "", "ab4": "2.5 % of members at validation, 6 h, 2.5 % of members at 6 h"}
    assert best_of(diverged) is None


@pytest.fixture(scope="module")
def run(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run directory with trained networks."""
    run = new_run(prepared, tmp_path_factory.mktemp("choices"))
    wsdcast.train(run=run)
    return run


@pytest.mark.parametrize("kind", ["infinite", "not a number", "too strong"])
def test_diverging_members_spoil_no_other_initial_time(run, kind):
    """One wind component of one member of the second initial time diverges at 12 h, and is weak again at 18 h."""
    recipe = load_recipe(run.parent / "tiny.yaml")
    record = open_analysis(run / "analysis.zarr")
    networks = trained(recipe, run, record)
    value = {"infinite": torch.inf, "not a number": torch.nan, "too strong": 1e4}[kind]
    starts, members, calls = record.starts(2, 3), 3, [0]

    def sampler(context: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        state = 0.1 * noise
        calls[0] += 1
        if calls[0] == 2 and state.shape[0] > members:
            state[members, 1] = value
        return state

    both = evaluate(record, networks, sampler, starts, (6, 12, 18), members=members, seed=0, batch=2 * members)
    alone = evaluate(record, networks, sampler, starts[:1], (6, 12, 18), members=members, seed=0, batch=members)
    xr.testing.assert_allclose(both.isel(time=[0]), alone)
    assert np.isfinite(both["crps_fair"].isel(prediction_timedelta=0)).all()
    assert np.isnan(both["crps_fair"].isel(time=1, prediction_timedelta=[1, 2])).all()
    np.testing.assert_allclose(both["runaway"].isel(variable=0), [[0, 0, 0], [0, 1 / 3, 1 / 3]])


@pytest.mark.parametrize(
    ("headline", "among", "expected"),
    [
        (None, (T850, *WIND_850, *DEFAULT), DEFAULT),
        (None, (T850, *WIND_850), WIND_850),
        (None, ("mean_sea_level_pressure", T850), ("mean_sea_level_pressure",)),
        (T850, (*DEFAULT, T850), (T850,)),
        (DEFAULT[1], DEFAULT, (DEFAULT[1],)),
        ("both@850", (T850, *DEFAULT, *WIND_850), WIND_850),
    ],
)
def test_a_study_compares_one_variable_or_both_components_of_a_wind(headline, among, expected):
    assert studied_variables(among, headline) == expected


@pytest.mark.parametrize("headline", [None, DEFAULT[1]])
def test_statistics_are_of_the_members_and_the_truth_at_each_lead_time(run, headline):
    recipe = load_recipe(run.parent / "tiny.yaml")
    record = open_analysis(run / "analysis.zarr")
    networks = trained(recipe, run, record)
    starts, shape = record.starts(2, 3), (2, *record.grid.shape)
    ours = evaluate(record, networks, lambda _, noise: 0.1 * noise, starts, (6, 18), members=3, seed=4, headline=headline)
    assert ours["variable"].values.tolist() == ([headline] if headline else [*DEFAULT])
    np.testing.assert_array_equal(ours["time"], record.times[starts])
    np.testing.assert_array_equal(ours["prediction_timedelta"], np.array([6, 18], "m8[h]"))
    noises = list(member_noise(4, record.times[starts], 3, 3, shape))
    for row, start in enumerate(starts.tolist()):
        for position, step in enumerate((1, 3)):
            fields = record.denormalise(0.1 * noises[step - 1].numpy()).reshape(2, 3, 1, *shape)[row]
            truth = record.states[start + step][None]
            expected = statistics_of(fields, truth, record.grid).sel(region="globe").isel(prediction_timedelta=0)
            at = ours.isel(time=row, prediction_timedelta=position)
            for name in ("crps_fair", "squared_error", "rank_histogram", "power_truth"):
                np.testing.assert_allclose(at[name], expected[name].sel(variable=at["variable"]), rtol=1e-5, err_msg=name)
            if headline is None:
                assert at["energy_score"] == pytest.approx(float(expected["energy_score"]), rel=1e-5)


@pytest.mark.parametrize(("nfe", "momentum"), [(4, 1.0), (5, 0.5)])
def test_auto_takes_a_momentum_only_for_a_solver_that_has_one(nfe, momentum, tmp_path):
    """As a study does, whose solvers share one momentum. The midpoint rule was refused for it."""
    recipe = load_recipe("planet").changed(rollout__solver="auto", rollout__nfe=nfe, rollout__momentum=0.5)
    chosen = without_auto(recipe, tmp_path)
    assert chosen.rollout.momentum == momentum
    require_rollout(chosen)


def test_auto_does_not_choose_by_a_study_without_a_validation_split(run):
    wsdcast.study_nfe(run=run, seeds=[0], priors=["warm"], ablations=[], nfe=[2], rollout_nfe=[], leads=[6], starts=2, members=2)
    recipe, directory = resolve(run.parent / "tiny.yaml", run, Recipe, rollout__solver="auto", rollout__nfe=2)
    assert without_auto(recipe, directory).rollout.solver == "midpoint"
    with xr.open_dataset(directory / "study.nc") as study:
        older = study.load().drop_vars([name for name in study.data_vars if "validation" in str(name)])
    older.to_netcdf(directory / "study.nc")
    with pytest.raises(UserError, match=r"study\.nc has no scores on the validation split, by which --solver auto chooses"):
        without_auto(recipe, directory)


def test_combinations_that_cannot_be_sampled_are_left_out_or_refused():
    """A solver that can make none of the numbers is refused. One that only the straight path allows is left out on another path."""
    summary = Summary("study")
    assert combinations(["euler", "midpoint"], ["uniform"], [2, 3], summary, "straight") == [
        ("euler", "uniform", 2),
        ("euler", "uniform", 3),
        ("midpoint", "uniform", 2),
    ]
    assert summary.facts == {"left out: midpoint": "3 evaluations, which it cannot make exactly"}
    with pytest.raises(UserError, match="nothing to study: nfe 3: the solver midpoint"):
        combinations(["euler", "midpoint"], ["uniform"], [3], Summary("study"), "straight")
    summary = Summary("study")
    assert combinations(["euler", "sde2"], ["uniform"], [2], summary, "blur") == [("euler", "uniform", 2)]
    assert list(summary.facts) == ["left out: sde2, blur"]
    with pytest.raises(UserError, match="nothing to study: solver sde2: works on the straight path only"):
        combinations(["sde2"], ["uniform"], [2], Summary("study"), "blur")
