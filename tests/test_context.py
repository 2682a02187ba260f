"""Tests of the forcings: static fields and solar time as inputs in addition to the wind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY

import wsdcast
from wsdcast.data.store.analysis import open_analysis
from wsdcast.runs.errors import UserError
from wsdcast.weather.forcings import ForcingFields, elapsed_fractions, forcings_of, solar_time
from wsdcast.weather.network_sections import Forcings
from wsdcast.weather.samples import samples_of


def test_solar_time_is_noon_where_the_sun_is():
    """At 06 UTC it is noon at 90 E; the cosine of the time of day is then -1. Half a year is a turn of pi."""
    times = np.array(["2021-07-02T12", "2020-01-01T00", "2021-01-01T06"], dtype="datetime64[ns]")
    cos_day, sin_day, cos_year, sin_year = solar_time(elapsed_fractions(times), torch.tensor([0.0, 90.0, 180.0])).numpy().transpose(1, 0, 2)
    np.testing.assert_allclose(cos_day, [[-1, 0, 1], [1, 0, -1], [0, -1, 0]], atol=1e-6)
    np.testing.assert_allclose(sin_day, [[0, -1, 0], [0, 1, 0], [1, 0, -1]], atol=1e-6)
    np.testing.assert_allclose(cos_year[:, 0], [-1, 1, np.cos(2 * np.pi / 4 / 365)], atol=1e-6)
    np.testing.assert_allclose(sin_year[:, 1], [0, 0, np.sin(2 * np.pi / 4 / 365)], atol=1e-6)


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    """Return a directory with a tiny planet that was prepared, and trained with all forcings."""
    directory = tmp_path_factory.mktemp("context")
    recipe = TINY + "forcings: {static: [land_sea_mask, geopotential_at_surface], solar_time: true}\n"
    (directory / "r.yaml").write_text(recipe)
    wsdcast.prepare(directory / "r.yaml", directory / "run")
    wsdcast.train(run=directory / "run")
    return directory


@pytest.fixture(scope="module")
def record(directory):
    return open_analysis(directory / "run/analysis.zarr")


def test_static_fields_have_mean_0_and_std_1_on_the_sphere(record):
    forcings = forcings_of(record, Forcings(static=("geopotential_at_surface", "land_sea_mask")), torch.device("cpu"))
    assert forcings.channels == 2
    weights = torch.from_numpy(record.grid.area_weights)[:, None]
    torch.testing.assert_close((forcings.static * weights).mean(dim=(1, 2)), torch.zeros(2, dtype=torch.float64), atol=1e-5, rtol=0)
    torch.testing.assert_close((forcings.static**2 * weights).mean(dim=(1, 2)), torch.ones(2, dtype=torch.float64), atol=1e-5, rtol=0)
    land = record.static["land_sea_mask"]
    assert 0 <= land.min() < 0.1 < 0.9 < land.max() <= 1
    assert np.corrcoef(forcings.static[1].ravel(), land.ravel())[0, 1] == pytest.approx(1)
    assert record.static["geopotential_at_surface"].max() > 5000  # m2 s-2: mountains


def test_context_is_wind_then_fields_then_sun(record):
    forcings = forcings_of(record, Forcings(static=("land_sea_mask",), solar_time=True), torch.device("cpu"))
    states = torch.from_numpy(record.normalise(record.states[:]))
    (samples,) = samples_of(record, forcings, "train")
    now = torch.tensor([7, 3])
    context = samples.context(now - 1)  # the first state has no state before it
    assert context.shape == (2, 4 + 1 + 4, 8, 16)
    assert torch.equal(context[:, :4], torch.cat([states[now], states[now - 1]], dim=1))
    assert torch.equal(samples.target(now - 1), states[now + 1])
    torch.testing.assert_close(context[0, 4], forcings.static[0])
    expected = solar_time(elapsed_fractions(record.times[[7, 3]]), torch.tensor(record.grid.longitude)).float()
    torch.testing.assert_close(context[:, 5:, 5], expected, rtol=0, atol=0)


def test_without_forcings_a_context_is_the_wind_alone(record):
    forcings = forcings_of(record, Forcings(), torch.device("cpu"))
    (samples,) = samples_of(record, forcings, "train")
    assert forcings.channels == 0
    assert samples.context(torch.tensor([4])).shape == (1, 4, 8, 16)


def test_forcings_of_a_forecast_follow_its_valid_time(directory, without_animation, monkeypatch):
    """A rollout asks for the forcings at the initial time and at every later step except the last."""
    requested = []
    original = ForcingFields.at
    monkeypatch.setattr(ForcingFields, "at", lambda self, times: requested.append(times) or original(self, times))
    wsdcast.rollout(run=directory / "run", starts=1)
    errors, requested = requested[:-5], requested[-5:]
    record = open_analysis(directory / "run/analysis.zarr")
    assert sorted(np.concatenate(errors).tolist()) == record.times[record.now("validation")].tolist()  # of the past errors
    # There are two lead times for the moments with past errors, one for their Gaussian one step ahead, and two for the generator.
    assert (requested[2] == requested[0][0]).all()
    for first, second in (requested[:2], requested[3:]):
        assert (np.unique(first).size, second[0] - first[0]) == (1, np.timedelta64(6, "h"))


def test_a_static_field_that_the_store_lacks_is_refused(directory, record):
    with pytest.raises(UserError, match=r"forcings.static: the prepared store has no angle_of.*, only land_sea_mask, geopotential"):
        forcings_of(record, Forcings(static=("angle_of_sub_gridscale_orography",)), torch.device("cpu"))


def test_networks_of_other_forcings_are_refused(directory):
    (directory / "other.yaml").write_text(TINY)
    with pytest.raises(UserError, match=r"made from another recipe \(forcings.static"):
        wsdcast.train(directory / "other.yaml", directory / "run")
