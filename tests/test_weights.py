"""How training weighs the errors of several variables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import new_run
from made_records import with_five_variables

from wsdcast.data.store.analysis import Analysis, open_analysis
from wsdcast.data.variables import DEFAULT
from wsdcast.runs.errors import UserError
from wsdcast.warmstart.crps import ensemble_loss
from wsdcast.weather.climate import change_std, minimum_std, zonal_amplitude
from wsdcast.weather.forcings import forcings_of
from wsdcast.weather.networks import moments_model, sizes_of
from wsdcast.weather.recipe import Recipe, load_recipe
from wsdcast.weather.weights import channel_weights, generator_weights, loss_of_ensembles


@pytest.fixture(scope="module")
def record(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """Return a record of five variables."""
    directory = new_run(prepared, tmp_path_factory.mktemp("weights"))
    with_five_variables(directory / "analysis.zarr")
    return open_analysis(directory / "analysis.zarr")


@pytest.fixture
def recipe(prepared: Path) -> Recipe:
    return load_recipe(prepared / "tiny.yaml")


def test_weights_follow_pressure_and_differences(record):
    """Levels count by pressure; if asked for, errors count in units of the 6 h difference; u and v share a weight; the mean is 1."""
    assert channel_weights({}, record, by_difference=False) is None  # one level of each variable
    weights = channel_weights({}, record, by_difference=True).flatten().numpy()
    ratios = (record.std / record.difference_std)[:5] ** 2
    assert weights.mean() == pytest.approx(1)
    assert weights[0] / weights[4] == pytest.approx(ratios[0] / ratios[4], rel=1e-4)
    assert weights[1] == weights[3]
    doubled = channel_weights({"geopotential": 3.0}, record, by_difference=False).flatten().numpy()
    np.testing.assert_allclose(doubled, np.array([1, 1, 1, 1, 3]) * 5 / 7, rtol=1e-6)
    with pytest.raises(UserError, match=r"training\.weights: wind is not forecast"):
        channel_weights({"wind": 1.0}, record, by_difference=False)


@pytest.mark.parametrize(
    ("changes", "by_difference"),
    [
        ({}, False),
        ({"generator__prior": "persistence"}, False),
        ({"generator__prior": "standard"}, True),
        ({"generator__prior": "climatology"}, True),
        ({"moments__std": 0.3}, True),
        ({"moments__std": 0.3, "generator__prior": "persistence"}, False),
    ],
)
def test_errors_are_divided_by_the_difference_where_the_prior_does_not(recipe, record, changes, by_difference):
    weights, expected = generator_weights(recipe.changed(**changes), record), channel_weights({}, record, by_difference)
    assert torch.equal(weights, expected) if by_difference else weights is expected is None


@pytest.mark.parametrize(("factors", "of_channels"), [({}, [1.0] * 5), ({DEFAULT[0]: 3.0}, [5 / 7, 15 / 7, 5 / 7, 5 / 7, 5 / 7])])
def test_the_loss_of_ensembles_has_the_changes_of_the_record_and_the_settings_of_the_recipe(recipe, record, factors, of_channels):
    recipe = recipe.changed(crps__alpha=0.9, crps__spectral_weight=0.3, training__weights=factors)
    weights = torch.from_numpy(record.grid.area_weights).float()[:, None]
    scale = torch.from_numpy(record.difference_std / record.std)[:5] / torch.tensor(of_channels)
    expected = ensemble_loss(weights, scale[:, None, None], zonal_amplitude(record), 0.9, 0.3)
    *members, truth = torch.randn(3, 4, 5, 8, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss_of_ensembles(recipe, record)(torch.stack(members), truth), expected(torch.stack(members), truth))


def test_a_variable_that_hardly_changes_may_have_a_smaller_std(recipe, record):
    """The paper's bound is 0.01 of all values. Where they change by less than 0.4 of their deviation in 6 h, it is a fortieth of that."""
    shares = np.array([0.5, 0.4, 0.1, 0.0, np.nan, *np.ones(len(record.std) - 5)], dtype=np.float32)
    slow = replace(record, difference_std=shares * record.std)
    expected = (0.01, 0.01, 0.0025, 1e-4, 0.01)
    assert minimum_std(slow) == pytest.approx(expected, rel=1e-6)
    assert minimum_std(replace(record, difference_std=np.full_like(record.std, np.nan))) == pytest.approx((0.01,) * 5)
    sizes = sizes_of(slow, forcings_of(slow, recipe.forcings, torch.device("cpu")))
    model = moments_model(recipe.moments, sizes)
    with torch.no_grad():
        for parameter in model.network.last.parameters():
            parameter.fill_(0)
        model.network.last.bias[5:] = -50  # the raw standard deviations
        _, std = model(torch.zeros(1, sizes.context, *record.grid.shape))
    np.testing.assert_allclose(std.amax((0, 2, 3)), expected, rtol=1e-6)
    np.testing.assert_allclose(std.amin((0, 2, 3)), expected, rtol=1e-6)


def test_the_change_of_a_variable_that_hardly_changes_is_kept(record):
    shares = np.array([0.5, 0.02, 0.005, 1e-3, 0.0, *np.ones(len(record.std) - 5)], dtype=np.float32)
    change = change_std(replace(record, difference_std=shares * record.std))
    np.testing.assert_allclose(change, np.array([0.5, 0.02, 0.005, 1e-3, 1e-4])[:, None, None], rtol=1e-6)


def test_levels_of_one_variable_are_weighted_by_pressure(prepared):
    record = open_analysis(prepared / "run/analysis.zarr")
    levels = replace(record, variables=("temperature@250", "temperature@750"), mean=record.mean, std=record.std)
    np.testing.assert_allclose(channel_weights({}, levels, by_difference=False).flatten(), [0.5, 1.5])
