"""The summary of a study: intervals, saturation and gains, on made statistics."""

from __future__ import annotations

import re

import numpy as np
import pytest
import xarray as xr
from made_studies import SHARES, made_settings

from wsdcast.runs.errors import UserError
from wsdcast.study.design import equal_cost_steps
from wsdcast.study.figures import by_evaluations
from wsdcast.study.summary import smallest_sufficient
from wsdcast.study.weather_figures import by_lead
from wsdcast.study.weather_page import write_study_page
from wsdcast.study.weather_summary import combine, described, rows, saturation
from wsdcast.verification.bootstrap import block_length, block_weights, blocks_in_words, interval, p_value, resampled

TOLERANCES = {"crps": 1.01, "deviation": 1.05}


def test_bootstrap_weights_are_blocks_of_dates():
    times = np.datetime64("2020-01-01", "ns") + np.arange(40) * np.timedelta64(12, "h")
    weights = block_weights(times, draws=500)
    np.testing.assert_allclose(weights.sum("time"), 1)
    counts = (weights.values * 40).round().astype(int)
    # Blocks of 48 h have four dates, so a date is mostly drawn with its neighbour.
    together = np.mean([(row[:-1] > 0) & (row[1:] > 0) for row in counts]) / np.mean(counts > 0)
    alone = block_weights(times[0] + np.arange(40) * np.timedelta64(5, "D"), draws=500).values > 0
    assert together > 0.85 > np.mean(alone[:, 1:] & alone[:, :-1]) / np.mean(alone)


def test_blocks_are_longer_for_longer_forecasts():
    times = np.datetime64("2020-01-01", "ns") + np.arange(40) * np.timedelta64(12, "h")
    lengths = []
    for lead in (6, 120):
        drawn = block_weights(times, np.timedelta64(lead, "h"), 300).values > 0
        lengths.append(np.mean(drawn.sum(axis=1) / np.maximum(1, (drawn & ~np.roll(drawn, 1, axis=1)).sum(axis=1))))
    assert lengths[1] > 1.8 * lengths[0]


@pytest.mark.parametrize("lead", [6, 72, 240])
def test_forecasts_with_a_common_valid_time_are_in_one_block(lead):
    """Also if there are gaps between the initial times, such as those between the winters of some years."""
    day, lead = np.timedelta64(24, "h"), np.timedelta64(lead, "h")
    winter = np.datetime64("2015-12-01", "ns") + np.arange(90) * day
    winters = np.concatenate([winter + year * 365 * day for year in range(4)])
    in_reach = (np.timedelta64(48, "h") + lead) / day
    assert block_length(winter, lead) == block_length(winters, lead) == np.ceil(in_reach)
    mondays = winter[0] + np.arange(40) * 7 * day
    twice = np.sort(np.concatenate([mondays, mondays + day / 2]))
    assert block_length(twice, lead) == 2 * block_length(mondays, lead) == 2 * np.ceil(in_reach / 7)


def test_bootstrap_interval_of_a_mean_is_that_of_its_standard_error():
    random = np.random.default_rng(0)
    times = np.datetime64("2020-01-01", "ns") + np.arange(200) * np.timedelta64(5, "D")
    values = xr.Dataset({"x": ("time", random.normal(3, 2, 200))}, coords={"time": times})
    low, high = interval(resampled(values, block_weights(times, draws=4000))["x"]).values
    error = values["x"].values.std(ddof=1) / 200**0.5
    assert (low, high) == pytest.approx((values["x"].mean().item() - 1.96 * error, values["x"].mean().item() + 1.96 * error), abs=0.03)


@pytest.mark.parametrize("present", [[0], [3]])
def test_one_initial_time_has_no_interval_and_no_p(present):
    """Both of a record of one initial time, and of a record in which only one has a score. All samples were equal, and p was 0."""
    times = np.datetime64("2020-01-01", "ns") + np.arange(max(present) + 1) * np.timedelta64(5, "D")
    scored = xr.DataArray(np.isin(np.arange(times.size), present), {"time": times}, ["time"])
    values = xr.Dataset({"x": ("time", np.ones(times.size))}, {"time": times})
    drawn = resampled(values, block_weights(times), scored)["x"]
    assert np.isnan(interval(drawn)).all()
    assert np.isnan(p_value(xr.DataArray(1.0), drawn, xr.DataArray(1.0)))
    assert np.isnan(interval(resampled(values.isel(time=[0]), block_weights(times[:1]))["x"])).all()


def test_p_counts_the_samples_that_deviate_as_much():
    draws, many = xr.DataArray([0.5, 1.0, 1.9, 2.5, -1.0], dims="draw"), xr.DataArray(20.0)
    assert p_value(xr.DataArray(1.0), draws, many).item() == pytest.approx((2 + 1) / (5 + 1))  # 2.5 and -1 deviate from 1 by at least 1
    assert p_value(xr.DataArray(-1.0), -draws, many).item() == p_value(xr.DataArray(1.0), draws, many).item()  # whichever is the first
    assert p_value(xr.DataArray(0.0), draws, many).item() == 1


@pytest.mark.parametrize("count", [2, 3, 5])
def test_p_of_few_blocks_is_at_least_that_of_equal_signs_by_chance(count):
    """p was 0.001 from two initial times whose differences have the same sign, which is so in one of two cases by chance."""
    times = np.datetime64("2020-01-01", "ns") + np.arange(count) * np.timedelta64(5, "D")
    values = xr.Dataset({"x": ("time", np.linspace(0.8, 0.9, count))}, {"time": times})
    draws = resampled(values, block_weights(times))["x"]
    assert p_value(values["x"].mean(), draws, xr.DataArray(count)).item() == 0.5 ** (count - 1)
    assert p_value(values["x"].mean(), draws, xr.DataArray(0.5)).item() == 1


def test_samples_are_means_over_the_initial_times_that_count():
    """Those that do not count have values too, and other lead times have other initial times."""
    weights = xr.DataArray([[0.5, 0.25, 0.25, 0], [0, 0.25, 0.25, 0.5]], dims=("draw", "time"))
    scored = xr.DataArray([[True, True], [False, True], [True, False], [True, True]], dims=("time", "prediction_timedelta"))
    values = xr.Dataset({"x": (("time", "prediction_timedelta"), [[1.0, 10], [2, 20], [3, 30], [4, 40]])})
    expected = [[(2 * 1 + 3) / 3, (2 * 10 + 20) / 3], [(3 + 2 * 4) / 3, (20 + 2 * 40) / 3]]
    np.testing.assert_allclose(resampled(values, weights, scored)["x"].transpose("draw", ...), expected)


@pytest.mark.parametrize(
    ("count", "hours", "lead", "text"),
    [
        (12, 72, 120, "4 blocks of initial times, which are few"),
        (21, 12, 120, "2.1 blocks of initial times, which are few"),
        (12, 24, 240, "2 blocks of initial times, which are few"),
        (19, 120, 72, "19 blocks of initial times, which are few"),
        (20, 120, 72, "20 blocks of initial times"),
        (1, 24, 6, "none: they need two initial times"),
    ],
)
def test_the_number_of_blocks_is_said(count, hours, lead, text):
    times = np.datetime64("2020-01-01", "ns") + np.arange(count) * np.timedelta64(hours, "h")
    said = blocks_in_words(times, np.timedelta64(lead, "h"))
    assert said.startswith(text)
    assert said.endswith("too narrow") == ("few" in text)


def test_differences_on_the_same_dates_are_sharper_than_scores():
    study = combine(made_settings({("standard", 20): (1.0, 1.0), ("warm", 4): (0.95, 1.1)}), SHARES)
    warm = study.isel(setting=1)
    assert warm["crps_gain_6h"].item() == pytest.approx(0.05)
    np.testing.assert_allclose(warm["crps_gain_6h_interval"], [0.05, 0.05], atol=1e-9)  # the dates differ, but their ratio is the same
    assert np.diff(warm["crps_6h_interval"].values)[0] > 0.2
    assert warm["power_deviation_6h"].item() == pytest.approx(0.1)
    assert warm["power_deviation_sum_6h"].item() == pytest.approx(0.3)
    assert study["cost"].values.tolist() == [20, 4.5]
    assert study.attrs["intervals"].startswith("one step: ")
    assert " blocks of initial times" in study.attrs["intervals"]


@pytest.mark.parametrize(("total", "relative", "once", "share"), [(900, 1, 0, 0), (900, 2.5, 40, 0), (900, 0.5, 0, 0.25), (900, 3, 50, 1)])
def test_variants_train_at_equal_cost(total, relative, once, share):
    """All costs of a variant are in steps of its generator, and one such step costs ``relative`` steps of the recipe's."""
    steps = equal_cost_steps(total, relative, once, share, "warm:")
    assert relative * (steps * (1 + share) + once) == pytest.approx(total, abs=relative * (1 + share) / 2)
    assert equal_cost_steps(relative * (1 + share + once), relative, once, share, "warm:") == 1
    with pytest.raises(UserError, match=r"^warm: its networks other than the generator cost more than the training of the recipe"):
        equal_cost_steps(relative * once, relative, once, share, "warm:")


def test_intervals_of_forecasts_have_the_blocks_of_the_longest_lead_time():
    settings = made_settings({("warm", 4): (1.0, 1.1)})
    leads = np.array([6, 240], "timedelta64[h]").astype("timedelta64[ns]")
    one_step = settings[0][1]["one step"]
    settings[0][1]["forecast"] = one_step.isel(prediction_timedelta=[0, 0]).assign_coords(prediction_timedelta=leads)
    expected = [blocks_in_words(one_step["time"].values, lead) for lead in leads]
    assert expected[0] != expected[1]
    assert combine(settings, SHARES).attrs["intervals"] == f"one step: {expected[0]}; forecasts: {expected[1]}"


def test_saturation_is_the_smallest_number_that_is_as_good_as_any():
    scores = {
        ("warm", 2): (1.02, 1.3),
        ("warm", 4): (1.005, 1.12),
        ("warm", 6): (1.0, 1.2),
        ("warm", 10): (1.001, 1.119),
        ("warm", 20): (1.0, 1.118),
    }
    assert saturation(combine(made_settings(scores), SHARES)) == {"warm": 4}
    scores["warm", 20] = (0.99, 1.118)
    assert saturation(combine(made_settings(scores), SHARES)) == {"warm": 20}
    scores["warm", 10], scores["warm", 20] = (0.97, 1.3), (1.0, 1.1)
    assert saturation(combine(made_settings(scores), SHARES)) == {"warm": None}


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("diverged", [{0}, {3}, {0, 2}, {1, 2, 3}, {0, 1, 2, 3}])
def test_settings_that_diverged_hide_no_saturation(diverged, wrong):
    """The others saturate where they do without them; another prior is not touched."""
    crps, deviation, numbers = np.array([1.02, 1.005, 1.0, 1.001]), np.array([0.3, 0.1, 0.1, 0.1]), np.array([2, 4, 6, 10])
    lost = np.isin(np.arange(4), list(diverged))

    def best(crps: np.ndarray, deviation: np.ndarray, chosen: np.ndarray, prior: str) -> xr.Dataset:
        scores = {"crps": ("setting", crps[chosen]), "deviation": ("setting", deviation[chosen])}
        return xr.Dataset(scores, coords={"prior": ("setting", [prior] * chosen.sum()), "nfe": ("setting", numbers[chosen])})

    every = np.full(4, True)
    with_wrong = best(np.where(lost, wrong, crps), np.where(lost, wrong, deviation), every, "warm")
    found = smallest_sufficient(xr.concat([with_wrong, best(crps, deviation, every, "standard")], "setting"), TOLERANCES)
    left = smallest_sufficient(best(crps, deviation, ~lost, "warm"), TOLERANCES)
    assert found == {"warm": left.get("warm"), "standard": 4}
    assert (found["warm"] is None) == lost.all()


def test_without_a_validation_split_a_setting_that_diverged_hides_no_saturation():
    settings = made_settings({("warm", 2): (1.0, 1.1), ("warm", 4): (1.0, 1.1)})
    for _, datasets in settings:
        del datasets["validation"]
    diverged = settings[0][1]["one step"] = settings[0][1]["one step"].copy(deep=True)
    diverged["runaway"][3] = 0.25
    assert saturation(combine(settings, SHARES)) == {"warm": 4}


def test_spectra_of_seeds_are_judged_one_by_one():
    """Power that is a fifth too large in one generator and a fifth too small in another is wrong by a fifth."""
    study = combine(made_settings({("warm", 4): (1.0, 1.0)}, power_by_seed={0: 0.8, 1: 1.2}), SHARES)
    assert study["power_deviation_6h"].item() == pytest.approx(0.2)
    np.testing.assert_allclose(study["power_deviation_6h_by_seed"].values.ravel(), 0.2)


def test_a_setting_that_diverged_with_one_seed_has_no_score():
    """Its mean would be that of the other seeds, and look better than it is."""
    settings = made_settings({("warm", 4): (1.0, 1.1), ("warm", 6): (1.0, 1.1)}, power_by_seed={0: 1.0, 1: 1.0})
    assert (settings[2][0]["nfe"], settings[2][0]["seed"]) == (4, 1)
    diverged = settings[2][1]["one step"] = settings[2][1]["one step"].copy(deep=True)
    diverged["runaway"][3] = 0.25
    study = combine(settings, SHARES)
    np.testing.assert_array_equal(np.isfinite(study["crps_6h_by_seed"].transpose("setting", "seed")), [[True, False], [True, True]])
    np.testing.assert_array_equal(np.isfinite(study["crps_6h"]), [False, True])
    np.testing.assert_allclose(study["runaway_6h"], [0.25 / 10 / 2, 0])
    assert ["crps_6h" in row for row in rows(study)] == [False, True]


def test_a_setting_without_evaluations_of_the_generator_is_not_a_best_one():
    study = combine(made_settings({("warm", 0): (0.9, 1.0), ("warm", 4): (1.0, 1.1)}), SHARES)
    assert study["best"].values.tolist() == [False, True]


@pytest.mark.parametrize("order", [1, -1])
def test_each_setting_is_compared_with_the_best_of_the_other_prior(order):
    worse = made_settings({("standard", 4): (2.0, 1.0), ("standard", 20): (1.5, 1.0)}, solver="euler")
    others = made_settings(
        {("standard", 4): (1.2, 1.2), ("standard", 20): (1.0, 1.1), ("warm", 4): (0.9, 1.05), ("features-only", 4): (1.0, 1.1)}
    )
    study = combine([*worse, *others][::order], SHARES).set_index(setting=["prior", "solver", "nfe"]).sel(prior="warm", nfe=4)
    assert study["crps_gain_6h"].item() == pytest.approx(0.1)
    assert study["crps_gain_same_6h"].item() == pytest.approx(1 - 0.9 / 1.2)
    assert study["crps_gain_features_6h"].item() == pytest.approx(0.1)
    assert study["power_deviation_gain_6h"].item() == pytest.approx(0.5)
    assert study["power_deviation_gain_features_6h"].item() == pytest.approx(0.5)
    assert study["crps_gain_first_6h"].item() == pytest.approx(0.1)


def test_figures_name_one_evaluation_and_their_legends_hide_nothing():
    settings = made_settings({("standard", 1): (1.0, 1.0), ("warm", 1): (0.95, 1.1), ("warm", 4): (0.9, 1.1)})
    leads = np.array([6, 12], "timedelta64[h]").astype("timedelta64[ns]")
    for _, datasets in settings:
        later = datasets["one step"].isel(prediction_timedelta=[0, 0]).assign_coords(prediction_timedelta=leads)
        datasets["forecast"] = later
    study = combine(settings, SHARES)
    assert list(by_evaluations(study, ("crps_6h",)).axes[0].get_xticks()[:3]) == [1, 2, 3]
    figure = by_lead(study)
    figure.draw_without_rendering()
    for axis in figure.axes:
        assert axis.get_legend().get_window_extent().y1 < axis.bbox.y0
    assert [line.get_linestyle() for line in figure.axes[0].lines] == [":", "-"]  # told apart in print without colours
    labels = [text.get_text() for axis in figure.axes[1:] for text in axis.get_legend().get_texts()]
    assert labels == ["1 evaluation", "1 evaluation", "4 evaluations"]


def test_the_legends_of_many_variants_fit():
    names = ["standard", "warm", *(f"a variant with a long name, {number}" for number in range(9))]
    settings = made_settings({(name, 4): (1.0, 1.0) for name in names})
    leads = np.array([6, 12], "timedelta64[h]").astype("timedelta64[ns]")
    for _, datasets in settings:
        datasets["forecast"] = datasets["one step"].isel(prediction_timedelta=[0, 0]).assign_coords(prediction_timedelta=leads)
    study = combine(settings, dict.fromkeys(names, 0.0))
    figure = by_evaluations(study, ("crps_6h",))
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    assert figure.bbox.x0 <= legend.x0 < legend.x1 <= figure.bbox.x1
    for axis in (by_leads := by_lead(study)).axes:
        legend = axis.get_legend().get_window_extent()
        assert by_leads.bbox.y0 <= legend.y0
        assert legend.y1 <= axis.xaxis.get_tightbbox().y0


def test_gains_over_the_first_prior_are_over_its_most_evaluations():
    study = combine(made_settings({("warm", 4): (0.8, 1.1), ("warm", 20): (0.75, 1.1), ("standard", 20): (1.0, 1.0)}), SHARES)
    np.testing.assert_allclose(study["crps_gain_first_6h"], [1 - 0.8 / 0.75, 0, 1 - 1 / 0.75], atol=1e-9)
    np.testing.assert_allclose(study["crps_gain_first_6h_interval"].isel(setting=2), [1 - 1 / 0.75] * 2, atol=1e-9)


def test_without_the_standard_prior_gains_are_over_the_first():
    """They had no reference: the column of gains was empty."""
    study = combine(made_settings({("warm", 4): (0.8, 1.1), ("warm", 20): (0.75, 1.1), ("features-only", 20): (1.0, 1.0)}), SHARES)
    assert described(study).startswith("the warm prior with 20 evaluations (")
    np.testing.assert_allclose(study["crps_gain_6h"], [1 - 0.8 / 0.75, 0, 1 - 1 / 0.75], atol=1e-9)
    assert ["crps_gain_6h" in row for row in rows(study)] == [True] * 3


def test_the_table_of_settings_has_no_heading_twice(tmp_path):
    study = combine(made_settings({(prior, 4): (1.0, 1.1) for prior in ("standard", "warm", "features-only")}), SHARES)
    study["training_seconds"], study["seed"] = ("studied", [np.nan]), ("seed", [0])
    study = study.assign_coords(studied=["warm"]).assign_attrs(grid="16x8", members=3, recipe_hash="", reference="", moments_share=0.5)
    write_study_page(tmp_path / "study.html", study, "made", "", {})
    head = (tmp_path / "study.html").read_text().rpartition("<thead>")[2].partition("</thead>")[0]
    headings = re.findall(r"<th[^>]*>([^<]*)</th>", head)
    assert {"CRPS gain %", "spectrum gain %"} < set(headings)
    assert len(headings) == len(set(headings))


def test_deviations_of_spectra_and_gains_in_them_have_no_intervals():
    """Bootstrap samples have fewer different dates than the study, and so hardly ever hold a small deviation; docs/study.md says so."""
    study = combine(made_settings({("standard", 4): (1.0, 1.5), ("warm", 4): (0.9, 1.1)}), SHARES)
    names = {str(name).removesuffix("_interval") for name in study if str(name).endswith("_interval")}
    assert names == {"crps_6h", "spread_skill_6h", "crps_gain_6h", "crps_gain_same_6h", "crps_gain_first_6h"}
    row = rows(study)[1]
    assert row["power_deviation_6h"] == pytest.approx(0.1)
    assert row["power_deviation_gain_6h_by_seed"] == pytest.approx([0.8])
    assert "power_deviation_gain_6h_interval" not in row


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        (
            {"warm": 0.5, "standard": 0, "persistence": 0, "given": 0, "features-only": 0.5, "wide, <b>": 0.125},
            "the generator; a moments network adds 0.50 to warm, features-only; 0.12 to wide, &lt;b&gt;.<",
        ),
        ({"standard": 0, "persistence": 0}, "the generator; no prior here has a moments network.<"),
    ],
)
def test_the_page_says_which_priors_a_moments_network_adds_to(shares, words, tmp_path):
    study = combine(made_settings({(prior, nfe): (1.0, 1.1) for prior in shares for nfe in (2, 4)}), shares)
    study["training_seconds"], study["seed"] = ("studied", [np.nan]), ("seed", [0])
    study = study.assign_coords(studied=["warm"]).assign_attrs(
        grid="16x8", members=3, recipe_hash="abc", chosen_on="nothing", reference="none", moments_share=0.5
    )
    write_study_page(tmp_path / "study.html", study, "made", "", {})
    assert words in (tmp_path / "study.html").read_text()
