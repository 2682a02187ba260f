"""Tests of the scores of forecasts with several winds: what belongs to a wind is computed for each, and named after it."""

from __future__ import annotations

import re

import netCDF4
import numpy as np
import pytest
import xarray as xr
from report_pages import written

from wsdcast.data.grid import Grid
from wsdcast.data.variables import DEFAULT
from wsdcast.verification.comparison import compare
from wsdcast.verification.coordinates import write_netcdf
from wsdcast.verification.intervals import as_table, attributes_of, scores_of
from wsdcast.verification.metrics import SQUARES, with_both
from wsdcast.verification.scoring import joined, statistics_of

GRID = Grid.regular("16x8")
UPPER = ("u_component_of_wind@250", "v_component_of_wind@250")
NAMES = (UPPER[1], DEFAULT[0], "2m_temperature", UPPER[0], DEFAULT[1])
"""Channels in an order in which no wind has its components next to each other."""
STARTS = np.datetime64("2020-01-01", "ns") + np.timedelta64(5, "D") * np.arange(6)
LEADS = np.array([6, 12], "timedelta64[h]").astype("timedelta64[ns]")
OF_WIND = ("energy_score", "kinetic_energy", "kinetic_energy_truth")


def fields(start: int, error: float) -> tuple[np.ndarray, np.ndarray]:
    """Return members (member, lead, channel, latitude, longitude) and truth (lead, ...). The upper wind is four times as strong."""
    random = np.random.default_rng(start)
    strength = np.where(np.isin(NAMES, UPPER), 20.0, 5.0)[:, None, None]
    truth = strength * random.standard_normal((2, len(NAMES), *GRID.shape))
    return truth + error * strength * random.standard_normal((3, *truth.shape)), truth


def by_start(error: float, names: tuple[str, ...] = NAMES) -> xr.Dataset:
    """Return the statistics of the channels with these names, (time, prediction_timedelta, ...)."""
    chosen = [NAMES.index(name) for name in names]
    parts = (fields(start, error) for start in range(STARTS.size))
    return xr.concat([statistics_of(m[:, :, chosen], t[:, chosen], GRID, None, names) for m, t in parts], dim="time")


@pytest.fixture(scope="module")
def statistics() -> xr.Dataset:
    return joined({"good": by_start(0.3), "bad": by_start(0.6)}, STARTS, LEADS)


@pytest.fixture(scope="module")
def scores(statistics) -> xr.Dataset:
    return scores_of(statistics)


@pytest.mark.parametrize(("pair", "vector"), [(DEFAULT, "vector"), (UPPER, "vector@250")])
def test_scores_of_each_wind_are_those_of_it_alone(pair, vector):
    together, alone = by_start(0.3), by_start(0.3, pair)
    for name in OF_WIND:
        assert "wind" not in alone[name].dims
        xr.testing.assert_allclose(together[name].sel(wind=vector, drop=True), alone[name], rtol=1e-12)


def test_strong_wind_is_that_at_10_m():
    """Beaufort's thresholds are of the 10 m wind. Without it there are no scores of strong wind."""
    together, upper = by_start(0.3), by_start(0.3, UPPER)
    assert {"energy_score", "kinetic_energy"} <= set(upper)
    assert not {"brier_score", "reliability", "threshold"} & set(upper.variables)
    for name in ("brier_score", "reliability"):
        xr.testing.assert_equal(together[name], by_start(0.3, DEFAULT)[name])


def test_each_wind_has_rows_with_its_name_in_the_table(scores):
    table = as_table(scores)
    for metric in ("energy_score", "energy_score_skill bad", "kinetic_energy_deviation total", "energetic_degrees rotational"):
        assert set(table[table["metric"] == metric]["variable"]) == {"vector", "vector@250"}, metric
    assert set(table[table["metric"] == "brier_score 10.8"]["variable"]) == {"10m_wind_speed"}
    at = (table["region"] == "tropics") & (table["lead_hours"] == 12) & (table["forecast"] == "bad")
    row = table[at & (table["metric"] == "energy_score") & (table["variable"] == "vector@250")].iloc[0]
    metric = scores.sel(wind="vector@250", region="tropics", prediction_timedelta=LEADS[1], forecast="bad")
    assert row["value"] == metric["energy_score"].item()
    assert [row["low"], row["high"]] == metric["energy_score_interval"].values.tolist()
    assert row["units"] == "m s-1"
    # The upper wind is four times as strong, so its error is.
    assert float((scores["energy_score"].sel(wind="vector@250") / scores["energy_score"].sel(wind="vector")).mean()) == pytest.approx(
        4, rel=0.1
    )


@pytest.fixture(scope="module")
def of_one_unit() -> xr.Dataset:
    return scores_of(joined({"good": by_start(0.3, DEFAULT), "bad": by_start(0.6, DEFAULT)}, STARTS, LEADS))


UNITS = re.compile(r"1|[a-zA-Z]+\d?( [a-zA-Z]+-?\d?)*|(hours|days) since [-\d]+.*")
"""What the units of UDUNITS look like that scores have."""


def test_every_variable_of_the_scores_has_units_and_a_long_name(of_one_unit):
    assert of_one_unit.attrs["Conventions"] == "CF-1.11"
    for name, field in of_one_unit.data_vars.items():
        assert set(field.attrs) == {"units", "long_name"}, name
    expected = {"rmse_interval": "m s-1", "crps_fair_skill": "1", "crps_fair_skill_interval": "1", "spread_skill_interval": "1"}
    expected |= {"crps_fair_by_start": "m s-1", "variance_by_start": "m2 s-2", "energetic_degrees": "1"}
    assert {name: of_one_unit[name].units for name in expected} == expected


def test_scores_in_different_units_have_none(scores):
    """CF knows no unit for them. The coordinate ``units`` has that of each variable."""
    in_words = {"rmse": "root mean squared error of the ensemble mean, in the unit of the variable"}
    in_words["variance_by_start"] = "variance of the members, of each initial time, in the square of the unit of the variable"
    assert {name: scores[name].attrs for name in in_words} == {name: {"long_name": words} for name, words in in_words.items()}
    mixed = {
        name.partition("_by_start")[0].partition("_interval")[0] for name, field in scores.data_vars.items() if "units" not in field.attrs
    }
    assert mixed == {"crps_fair", "crps_standard", "bias", "rmse", "spread", "variogram_score"} | set(SQUARES)
    assert scores["units"].sel(variable=["2m_temperature", "vector@250"]).values.tolist() == ["K", "m s-1"]


@pytest.mark.parametrize("which", ["scores", "of_one_unit"])
def test_the_file_of_scores_has_coordinates_of_cf(request, which, tmp_path):
    write_netcdf(request.getfixturevalue(which), tmp_path / "scores.nc")
    with netCDF4.Dataset(tmp_path / "scores.nc") as file:
        for name, stored in file.variables.items():
            assert stored.long_name, name
            assert UNITS.fullmatch(getattr(stored, "units", "1")), name
            assert name not in file.dimensions or "_FillValue" not in stored.ncattrs(), name
            assert name not in file.dimensions or stored.dtype is str or stored.units, name
        assert file["time"].standard_name == "forecast_reference_time"
        assert file["prediction_timedelta"].standard_name == "forecast_period"
        assert (file["threshold"].standard_name, file["threshold"].units) == ("wind_speed", "m s-1")


def test_the_square_of_any_unit_is_one():
    squares = {names: attributes_of("variance", names)["units"] for names in (("10m_wind_speed",), ("2m_temperature",), ("sea_ice_cover",))}
    assert list(squares.values()) == ["m2 s-2", "(K)2", "(1)2"]


def test_a_statistic_that_nothing_is_said_about_is_named():
    with pytest.raises(KeyError, match="kurtosis_by_start is neither in ABOUT nor in ABOUT_STATISTICS"):
        attributes_of("kurtosis_by_start", DEFAULT)


def test_a_ratio_to_zero_has_no_value(statistics, scores):
    """In a dry region, persistence has no error in some bootstrap samples, or in all: the ratios were infinite there, with a warning."""
    dry = statistics.copy(deep=True)
    at = {"forecast": "bad", "variable": "2m_temperature"}
    for name in ("crps_fair", "squared_error_debiased"):
        dry[name].loc[at | {"region": "tropics", "time": STARTS[1:]}] = 0
        dry[name].loc[at | {"region": "globe"}] = 0
    dry["power_truth"].loc[at] = 0
    result = scores_of(dry)
    skill = [
        result[name].sel(reference="bad", forecast="good", variable="2m_temperature")
        for name in ("crps_fair_skill", "crps_fair_skill_interval")
    ]
    ratios = [result[name].sel(at) for name in ("spread_skill", "spread_skill_interval")]
    for value, ends in (skill, ratios):
        assert value.sel(region="globe").isnull().all()
        assert np.isfinite(value.sel(region="tropics")).all()
        assert ends.sel(region=["globe", "tropics"]).isnull().all()
    assert result["power_ratio"].sel(at).isnull().all()
    untouched = [name for name in scores if "skill" in str(name)]
    xr.testing.assert_equal(result[untouched].sel(region="Europe"), scores[untouched].sel(region="Europe"))


@pytest.mark.parametrize(("headline", "vector"), [("both@250", "vector@250"), ("10m_wind_speed", "vector"), ("2m_temperature", None)])
def test_two_forecasts_are_compared_by_the_energy_score_of_the_headline(statistics, headline, vector):
    good, bad = (with_both(statistics.sel(forecast=[name])).assign_attrs(headline=headline) for name in ("good", "bad"))
    rows = [row for row in compare(good, bad) if row["metric"] == "energy_score"]
    if vector is None:
        assert rows == []
        return
    expected = statistics["energy_score"].sel(wind=vector, region="globe").mean("time")
    assert [row["first"] for row in rows] == expected.sel(forecast="good").values.tolist()
    assert [row["second"] for row in rows] == expected.sel(forecast="bad").values.tolist()


def test_the_report_shows_the_energy_score_of_each_wind(scores, tmp_path):
    page = written(tmp_path / "report.html", scores.assign_attrs(headline="2m_temperature"), GRID, None)
    for vector in ("vector", "vector@250"):
        energy = scores.sel(wind=vector, region="globe", forecast="good", prediction_timedelta=LEADS[0])["energy_score"]
        assert f"{energy.item():.3f}" in page
    assert page.count("energy score (m/s)") == 2
    assert page.count("How often wind exceeded a threshold") == 1
