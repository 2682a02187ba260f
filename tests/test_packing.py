"""Channels of unlike units are packed as int16, each with its own scale and offset."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from conftest import six_hourly
from layouts_of_variables import made_weather

import wsdcast
from wsdcast.data.grid import Grid
from wsdcast.data.sources.blocks import read_block
from wsdcast.data.store import packings
from wsdcast.data.store.analysis import Analysis
from wsdcast.data.store.states import PackedStates, StoredStates
from wsdcast.data.store.zarr_store import Packing, wind_packing
from wsdcast.data.variables import DEFAULT
from wsdcast.weather.forcings import ForcingFields
from wsdcast.weather.samples import samples_of

PACKING = Packing(np.array([0.005, 0.5], np.float32), np.array([0, 54000], np.float32))


@pytest.fixture
def values() -> np.ndarray:
    """Return wind and a geopotential, (time, channel, latitude, longitude)."""
    random = np.random.default_rng(0)
    return np.stack([random.normal(0, 8, (12, 2, 4)), random.normal(54000, 3000, (12, 2, 4))], axis=1).astype(np.float32)


def test_rounding_is_at_most_half_a_unit_of_each_channel(values):
    unpacked = PACKING.unpack(PACKING.pack(values))
    assert unpacked.dtype == np.float32
    error = np.abs(unpacked.astype(float) - values).max(axis=(0, 2, 3))
    assert (error <= [0.0025 + 4e-6, 0.25 + 4e-3]).all()


def test_values_out_of_reach_become_the_nearest_integer():
    assert wind_packing(1).pack(np.float32([[[1000, -1000, 163]]])).tolist() == [[[32767, -32768, 32600]]]


def test_packed_wind_has_the_bits_of_the_product(values):
    integers = wind_packing(1).pack(values[:, 0])
    np.testing.assert_array_equal(wind_packing(1).unpack(integers), integers * np.float32(0.005))


@pytest.fixture(params=["in memory", "on disk"])
def states(request, values) -> PackedStates | StoredStates:
    packed = PACKING.pack(values)
    if request.param == "in memory":
        return PackedStates(packed, PACKING)
    return StoredStates(tuple(zarr.array(packed[:, channel], store={}) for channel in (0, 1)), PACKING)


@pytest.mark.parametrize("steps", [3, slice(2, 9), [5, 1], slice(None, None, -2), np.arange(4).reshape(2, 2), np.int64(-1)], ids=str)
def test_states_of_any_times_have_the_packing_of_each_channel(values, states, steps):
    np.testing.assert_array_equal(states[steps], PACKING.unpack(PACKING.pack(values))[steps])


@pytest.mark.parametrize("index", [np.s_[:, 1], np.s_[4, 0], np.s_[2:4, ::-1, 1], np.s_[[1, 2], [1, 0]]], ids=str)
def test_an_index_of_channels_is_refused(states, index):
    """The packing of one channel would be that of another, or of both."""
    with pytest.raises(IndexError):
        states[index]


def test_training_samples_are_the_normalised_states(values):
    times, grid = six_hourly("2020-01-01", 12), Grid.regular("4x2")
    mean, std = np.array([1, 53000], np.float32), np.array([8, 3000], np.float32)
    record = Analysis(PackedStates(PACKING.pack(values), PACKING), times, grid, mean, std, std, times[6], times[9])
    samples = samples_of(record, ForcingFields(torch.zeros(0, 2, 4), None), "train")[0]
    np.testing.assert_allclose(samples.states(torch.arange(12)).numpy(), record.normalise(record.states[:]), atol=2e-5)


@pytest.mark.parametrize(("least", "most", "low", "high"), [(250, 300, 237.5, 312.5), (175, 330, 173, 338)], ids=["margin", "range"])
def test_a_unit_spreads_the_integers_over_the_sample_and_its_margin(least, most, low, high):
    unit, offset = packings._unit("2m_temperature", least, most)
    assert 1 <= unit * 65534 / (high - low) < 1.01
    assert unit == pytest.approx(float(f"{unit:.2e}"), rel=1e-12)  # three digits
    assert offset / unit == pytest.approx(round((low + high) / 2 / unit), rel=1e-12)


def test_wind_at_ten_metres_keeps_its_unit_beside_other_channels(monkeypatch):
    monkeypatch.setattr(packings, "_sampled_units", lambda *_: {"2m_temperature": (0.5, 270.0)})
    packing = packings.packing_for(SimpleNamespace(channels=["2m_temperature", *DEFAULT]), Grid.regular("4x2"), "nearest", None)
    np.testing.assert_array_equal([packing.scale, packing.offset], np.float32([[0.5, 0.005, 0.005], [270, 0, 0]]))


@pytest.mark.parametrize("variables", [["2m_temperature"], ["2m_temperature", "mean_sea_level_pressure"]], ids=len)
def test_values_far_beyond_the_sample_are_counted(variables, tmp_path, monkeypatch):
    """A record of one variable also has a packing of its own, and was not searched for such values."""
    weather = made_weather()
    weather["2m_temperature"].values[:] = weather["2m_temperature"] / 10 + 252  # from about 275 to 285 K
    weather["2m_temperature"][-1, 2, 3] = 325.0
    weather[[*variables]].to_netcdf(tmp_path / "weather.nc")
    monkeypatch.setattr(packings, "read_block", lambda block: ((name, fields[:20]) for name, fields in read_block(block)))
    monkeypatch.setattr(packings, "STEPS", 4)
    (tmp_path / "r.yaml").write_text(f"name: r\ndata: {{grid: 12x7, source: {tmp_path}/weather.nc, variables: {variables}}}\n")
    summary = wsdcast.prepare(tmp_path / "r.yaml", tmp_path / "run")
    with xr.open_zarr(tmp_path / "run/analysis.zarr") as record:
        assert record.attrs["values_beyond_packing"] == {"2m_temperature": 1}
    assert "2m_temperature: 1 far beyond the values of a sample" in str(summary)
