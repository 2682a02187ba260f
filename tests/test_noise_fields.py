"""Noise as fields: its covariances against closed forms, and runs whose generator reads it."""

from __future__ import annotations

from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from commands import refused
from scipy.special import eval_legendre
from small_training import WIND
from test_ensemble import with_threads
from test_path_runs import run_with
from torch import Tensor

import wsdcast
from wsdcast.data.grid import Grid
from wsdcast.data.store.analysis import open_analysis
from wsdcast.sampling.batches import batch_size, in_batches
from wsdcast.sampling.samplers import Sampler
from wsdcast.warmstart.prior import frozen_prior
from wsdcast.weather.forecast.noise import member_noise
from wsdcast.weather.model_file import read_model
from wsdcast.weather.network_sections import Generator
from wsdcast.weather.networks import generator_model, moments_model
from wsdcast.weather.noise_fields import FIELDS, noise_fields, noise_fields_of, spectra_of
from wsdcast.weather.recipe import Recipe, load_recipe
from wsdcast.weather.samplers import few_sampler, sampler_of
from wsdcast.weather.samples import samples_of
from wsdcast.weather.trained import Trained, assembled, trained

FIELDS_OF_CRPS = {"generator__objective": "crps", "crps__noise": "fields"}


def cosines_of(grid: Grid) -> np.ndarray:
    """Return the cosine of the angle between every two points, (point, point)."""
    latitude, longitude = (np.deg2rad(angles).ravel() for angles in np.meshgrid(grid.latitude, grid.longitude, indexing="ij"))
    places = np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)])
    return np.clip(places.T @ places, -1, 1)


GAUSSIAN = Grid(np.rad2deg(np.arcsin(-np.polynomial.legendre.leggauss(7)[0])), 360 / 18 * (np.arange(18) + 0.3))


@pytest.mark.parametrize(
    ("grid", "channels"),
    [(Grid.regular("16x8"), 2), (Grid.regular("16x8"), 1), (Grid.regular("16x9"), 2), (Grid.regular("8x12"), 3), (GAUSSIAN, 2)],
)
def test_the_covariances_of_all_points_are_sums_of_legendre_polynomials(grid, channels):
    """The fields are linear in the numbers of the noise, which are independent, so the images of unit vectors give the covariances."""
    numbers = channels * np.prod(grid.shape)
    unit = torch.eye(numbers, dtype=torch.float64).reshape(numbers, channels, *grid.shape)
    images = noise_fields(grid, channels, dtype=torch.float64)(unit).flatten(2).numpy()
    cosines = cosines_of(grid)
    for (first, spectrum), second in product(enumerate(spectra_of(grid, channels)), range(FIELDS)):
        covariance = images[:, first].T @ images[:, second]
        degrees = np.arange(spectrum.size)[:, None, None]
        expected = np.tensordot(spectrum, eval_legendre(degrees, cosines), axes=1) if first == second else np.zeros_like(cosines)
        np.testing.assert_allclose(covariance, expected, atol=1e-10)
        if first == second:
            np.testing.assert_allclose(np.diag(covariance), 1, rtol=1e-12)


def test_fields_reach_from_one_row_to_a_quarter_of_the_globe():
    spectra = spectra_of(Grid.regular("64x32"), 2)
    assert [spectrum.size - 1 for spectrum in spectra] == [31, 17, 6, 2]
    for spectrum, length in zip(spectra, np.geomspace(180 / 32, 90, 4), strict=True):
        degree, at_length = np.arange(spectrum.size), np.cos(np.deg2rad(length))
        scale = np.deg2rad(length) / 2
        share = (2 * degree + 1) * np.exp(-degree * (degree + 1) * scale**2)
        np.testing.assert_allclose(spectrum, share / share.sum(), rtol=1e-12)
        assert spectrum.sum() == pytest.approx(1, rel=1e-12)
        assert 0.37 < spectrum @ eval_legendre(degree, at_length) < 0.48
    assert [spectrum.size - 1 for spectrum in spectra_of(Grid.regular("240x121"), 2)] == [117, 42, 10, 2]
    for name in ("16x4", "8x16"):  # few rows, or few columns, have no degree above 3
        assert [spectrum.size - 1 for spectrum in spectra_of(Grid.regular(name), 4)] == [3, 3, 3, 2]


@pytest.mark.parametrize(("name", "highest"), [("64x32", 31), ("32x16", 15), ("16x8", 5), ("8x4", 1), ("4x2", 0)])
def test_the_numbers_of_one_channel_are_enough(name, highest):
    grid = Grid.regular(name)
    spectra = spectra_of(grid, 1)
    assert spectra[0].size - 1 == highest
    assert sum(spectrum.size**2 for spectrum in spectra) <= np.prod(grid.shape)
    assert noise_fields(grid, 1)(torch.randn(2, 1, *grid.shape)).shape == (2, FIELDS, *grid.shape)


def test_fields_of_members_have_variance_1_and_the_members_differ():
    grid = Grid.regular("16x9")
    noise = next(member_noise(0, np.array(["2020-01-01", "2020-01-02"], "datetime64[ns]"), 1000, 1, (2, *grid.shape)))
    drawn = noise_fields(grid, 2)(noise)
    assert drawn.dtype == torch.float32
    # The standard deviation of a variance of 2000 numbers is 0.032.
    np.testing.assert_allclose(drawn.var(dim=0), 1, atol=5 * 0.032)
    np.testing.assert_allclose(drawn.mean(dim=0), 0, atol=5 * 2000**-0.5)
    next_member = np.corrcoef(drawn[:-1, 1, 4, 5], drawn[1:, 1, 4, 5])[0, 1]
    assert abs(next_member) < 5 * 2000**-0.5


@pytest.fixture(scope="module")
def planet_sampler() -> Sampler:
    """Return a sampler with the planet recipe's sizes, whose weights are random where they begin at zero."""
    recipe, grid = load_recipe("planet").changed(**FIELDS_OF_CRPS), Grid.regular("64x32")
    torch.manual_seed(0)
    moments, generator = moments_model(recipe.moments, WIND), generator_model(recipe.generator, WIND, noise="fields")
    for parameter in (*moments.parameters(), *generator.parameters()):
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    prior_of, fields = frozen_prior(moments), noise_fields(grid, 2)
    networks = Trained(generator, moments, prior_of, None, objective="crps", noise_fields=fields)  # type: ignore[arg-type]
    return few_sampler(networks, generator, 1)


def test_a_member_has_the_same_bits_in_every_batching(planet_sampler):
    size = batch_size(32 * 64, torch.device("cpu"))
    context = torch.randn(1, 4, 32, 64, generator=torch.Generator().manual_seed(1))

    def states_of(members: int, first: int = 0) -> Tensor:
        noise = next(member_noise(0, np.array(["2020-01-01"], "datetime64[ns]"), members, 1, (2, 32, 64)))[first:]
        with torch.inference_mode():
            return in_batches(planet_sampler, size)(context.expand(len(noise), -1, -1, -1), noise)

    expected = with_threads(1, partial(states_of, size + 3))
    assert (expected[0] - expected[1]).abs().max() > 0.1
    for members, threads, first in ((2, 3, 0), (size - 1, 2, 5), (size + 3, 2, 1)):
        states = with_threads(threads, partial(states_of, members, first))
        assert torch.equal(states, expected[first:members]), (members, threads, first)


@pytest.mark.parametrize("name", ["8x4", "12x6", "16x8", "16x9", "32x16", "64x32"])
def test_fields_have_the_same_bits_at_every_position_in_a_batch(name):
    """The last bits of a product of matrices may depend on the row that a member has in it."""
    grid, random = Grid.regular(name), torch.Generator().manual_seed(0)
    size, fields = batch_size(grid.latitude.size * grid.longitude.size, torch.device("cpu")), noise_fields(grid, 2)
    noise = torch.randn(size, 2, *grid.shape, generator=random)
    expected = with_threads(1, partial(fields, noise))
    for _ in range(3):
        order = torch.randperm(size, generator=random)
        assert torch.equal(with_threads(1, partial(fields, noise[order])), expected[order])


def test_fields_are_inputs_and_numbers_stay_conditions():
    settings = Generator(widths=(8, 8), objective="crps")
    assert generator_model(settings, WIND).input_shapes(8, 16) == ((1, 8, 8, 16), (1, 32))
    network = generator_model(settings, WIND, noise="fields")
    assert network.input_shapes(8, 16) == ((1, 8 + FIELDS, 8, 16),)
    assert not any("modulation" in name or "embedding" in name for name in network.state_dict())
    # Other objectives have the noisy state, and no other noise.
    flow = Generator(widths=(8, 8))
    assert generator_model(flow, WIND, noise="fields").input_shapes(8, 16) == generator_model(flow, WIND).input_shapes(8, 16)


@pytest.mark.parametrize("objective", ["flow", "distil", "crps"])
@pytest.mark.parametrize("tuning", [0, 2])
def test_only_the_objective_crps_reads_the_noise(prepared, objective, tuning):
    """With others no fields are built. The loss of ensembles is that of fine-tuning too."""
    record, recipe = open_analysis(prepared / "run/analysis.zarr"), load_recipe(prepared / "tiny.yaml")
    recipe = recipe.changed(generator__objective=objective, fine_tune__steps=tuning)
    of_fields, of_loss = recipe.changed(crps__noise="fields"), recipe.changed(crps__alpha=1.0)
    assert noise_fields_of(recipe, record) is None
    assert (noise_fields_of(of_fields, record) is not None) == (objective == "crps")
    for artefact in (*recipe.networks, "forecast.zarr", "scores.nc"):
        on_ensembles = artefact not in ("moments", "generator", "few-steps") and tuning > 0
        has_loss = on_ensembles or (objective == "crps" and artefact != "moments")
        assert (of_loss.parts(artefact) != recipe.parts(artefact)) == has_loss, artefact


@pytest.fixture(scope="module")
def tuned(prepared, tmp_path_factory) -> tuple[Recipe, Path]:
    """Return a recipe whose generator reads fields and is fine-tuned, and its run directory."""
    tuning = {"fine_tune__steps": 3, "fine_tune__batch": 2, "fine_tune__rollout": [1, 2]}
    return run_with(prepared, tmp_path_factory.mktemp("fields"), **FIELDS_OF_CRPS, **tuning, generator__steps=20)


def test_a_generator_makes_members_from_fields(tuned):
    recipe, run = tuned
    record = open_analysis(run / "analysis.zarr")
    networks = trained(recipe, run, record)
    (samples,) = samples_of(record, networks.forcings, "train")
    context, noise = samples.context(torch.arange(3)), torch.randn(3, 2, 8, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        prior = networks.prior_of(context)
        inputs = torch.cat([context, prior.mean, prior.std.log(), noise_fields(record.grid, 2)(noise)], dim=1)
        expected = prior.mean + prior.std * networks.few[1](inputs)
        sampled = sampler_of(networks, recipe.rollout.model_copy(update={"nfe": 1}))(context, noise)
        other = sampler_of(networks, recipe.rollout.model_copy(update={"nfe": 1}))(context, -noise)
    torch.testing.assert_close(sampled, expected)
    assert (sampled - other).abs().max() > 1e-3


def test_a_forecast_from_its_model_file_has_the_bits_of_the_run(tuned, tmp_path):
    recipe, run = tuned
    settings = {"nfe": 1, "start": "2000-01-29T12", "members": 3, "keep": "statistics"}
    wsdcast.rollout(run=run, **settings)
    wsdcast.export_model(run, tmp_path / "model.wsd")
    wsdcast.rollout(model=tmp_path / "model.wsd", initial=str(run / "analysis.zarr"), run=tmp_path / "run", **settings)
    with xr.open_zarr(run / "forecast.zarr") as ours, xr.open_zarr(tmp_path / "run/forecast.zarr") as theirs:
        u, same = (forecast["10m_u_component_of_wind"].load() for forecast in (ours, theirs))
        assert np.array_equal(u, same)
        assert u.sel(statistic="std").min() > 0  # the members differ
    file = read_model(tmp_path / "model.wsd")
    assert file.recipe.crps.noise == "fields"
    expected = trained(recipe, run, open_analysis(run / "analysis.zarr")).few[1].state_dict()
    travelled = assembled(file.recipe, file.record, file.load).few[1].state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in travelled.items())


def test_another_noise_is_another_generator(tuned):
    _, run = tuned
    line = refused(
        "train",
        "--run",
        str(run),
        "-o",
        "generator.objective=crps",
        "-o",
        "generator.steps=20",
        "-o",
        "fine_tune.steps=3",
        "-o",
        "rollout.nfe=1",
    )
    assert "another recipe (crps.noise: fields there, numbers here)" in line
    unknown = refused("train", "--run", str(run), "-o", "crps.noise=waves")
    assert "crps.noise" in unknown
    assert "'numbers' or 'fields'" in unknown
