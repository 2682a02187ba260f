"""The baseline without a generator: moments with noise that is made from past errors."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import torch
import xarray as xr

import wsdcast
from wsdcast.data.store.analysis import open_analysis
from wsdcast.runs.artefact import resolve
from wsdcast.runs.names import GENERATOR, MOMENTS_ALONE, PAST_ERRORS, PAST_ERRORS_FORECAST
from wsdcast.sampling.samplers import past_errors_sampler
from wsdcast.warmstart.prior import frozen_prior
from wsdcast.weather.forecast import origin, past_errors
from wsdcast.weather.recipe import Recipe
from wsdcast.weather.samples import samples_of
from wsdcast.weather.trained import trained

pytestmark = pytest.mark.usefixtures("without_animation")

SHAPE = (2, 3, 4)


def moments(context):
    return context[:, :2], context[:, 2:].exp()


def test_the_noise_is_the_sum_of_all_errors_each_times_a_normal_number():
    rng = np.random.default_rng(0)
    errors, noise, context = (
        rng.normal(size=(count, *shape)).astype(np.float32) for count, shape in zip((3, 5, 5), (SHAPE, SHAPE, (4, 3, 4)), strict=True)
    )
    sampler = past_errors_sampler(frozen_prior(moments), torch.from_numpy(errors))
    samples = sampler(torch.from_numpy(context), torch.from_numpy(noise)).numpy()
    for member in range(5):
        numbers = noise[member].ravel()[:3]
        structured = (numbers[0] * errors[0] + numbers[1] * errors[1] + numbers[2] * errors[2]) / np.sqrt(3)
        np.testing.assert_allclose(samples[member], context[member, :2] + np.exp(context[member, 2:]) * structured, rtol=1e-5, atol=1e-6)


def test_the_noise_has_the_covariance_of_the_errors():
    generator = torch.Generator().manual_seed(0)
    errors = torch.randn(6, 8, generator=generator) @ torch.randn(8, 24, generator=generator)
    sampler = past_errors_sampler(
        frozen_prior(lambda context: (torch.zeros_like(context), torch.ones_like(context))), errors.reshape(6, *SHAPE)
    )
    samples = sampler(torch.zeros(200_000, *SHAPE), torch.randn(200_000, *SHAPE, generator=generator)).flatten(1)
    expected = errors.T @ errors / 6
    assert samples.mean(dim=0).abs().max() < 0.02 * expected.diagonal().max().sqrt()
    torch.testing.assert_close(samples.T @ samples / len(samples), expected, atol=0.02 * expected.abs().max().item(), rtol=0)


@pytest.fixture
def opened(trained_run):
    record = open_analysis(trained_run / "analysis.zarr")
    recipe, _ = resolve(None, trained_run, Recipe, GENERATOR)
    return record, trained(recipe, trained_run, record)


@pytest.mark.parametrize("whole", [True, False])
def test_past_errors_are_standardised_errors_on_the_validation_split(opened, trained_run, monkeypatch, whole):
    """They are those of the training samples, whether the states are in memory or on disk."""
    monkeypatch.setattr(past_errors, "MOST", 5)
    record, networks = opened
    (samples,) = samples_of(record, networks.forcings, "validation")
    chosen = torch.from_numpy(np.unique(np.linspace(0, len(samples) - 1, 5).round().astype(int)))
    assert len(chosen) == 5 < len(samples)
    with torch.inference_mode():
        mean, std = networks.moments(samples.context(chosen))
        expected = (samples.target(chosen) - mean) / std
    errors = past_errors.past_errors(networks, open_analysis(trained_run / "analysis.zarr", whole=whole))
    torch.testing.assert_close(errors, expected, atol=2e-4, rtol=1e-3)


def test_there_are_no_more_errors_than_a_state_has_numbers(opened, monkeypatch):
    """The normal numbers of the sum are those of one state's noise."""
    record, networks = opened
    monkeypatch.setattr(past_errors, "MOST", 10_000)
    whole = dataclasses.replace(record, validation_from=record.times[0])
    assert len(past_errors.past_errors(networks, whole)) == min(2 * 8 * 16, whole.now("validation").size)


def test_without_a_validation_split_there_is_no_such_baseline(trained_run, monkeypatch):
    opened = origin.open_analysis
    monkeypatch.setattr(origin, "open_analysis", lambda *arguments, **options: without_validation(opened(*arguments, **options)))
    summary = wsdcast.rollout(run=trained_run, starts=1, days=0.25)
    assert summary.facts[f"not written: {PAST_ERRORS_FORECAST}"].startswith("the past errors are those on the validation split")
    assert not (trained_run / PAST_ERRORS_FORECAST).exists()
    summary = wsdcast.score(run=trained_run)
    assert "where the record has truth and a validation split" in summary.facts[PAST_ERRORS]


def without_validation(record):
    return dataclasses.replace(record, validation_from=record.test_from)


def test_scores_with_the_baseline_of_an_earlier_version_are_computed_again(trained_run):
    """Its noise was white. The table had its column beside the note that the moments with past errors are not scored."""
    wsdcast.rollout(run=trained_run, starts=1, days=0.25)
    wsdcast.score(run=trained_run)
    shutil.rmtree(trained_run / PAST_ERRORS_FORECAST)
    with xr.open_dataset(trained_run / "scores.nc", decode_timedelta=False) as file:
        scores = file.load()
    names = [MOMENTS_ALONE if name == PAST_ERRORS else name for name in scores["forecast"].values]
    scores.assign_coords(forecast=("forecast", names, scores["forecast"].attrs)).to_netcdf(trained_run / "scores.nc")
    assert f"crps_fair: {MOMENTS_ALONE}" not in wsdcast.score(run=trained_run).scores[0]
