"""Tests of kinetic energy by degree: winds with known harmonics, symmetries, sums, and explicit projection."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.special import sph_harm_y

from wsdcast.data.grid import Grid
from wsdcast.data.harmonics import SphericalHarmonics
from wsdcast.verification.kinetic_energy import (
    kinetic_energy,
    kinetic_energy_metrics,
    kinetic_energy_statistics,
    truncation,
)
from wsdcast.verification.spectra import compared, wavelength_of_degree, wavelength_of_wavenumber

GRIDS = ["24x13", "24x12", "64x32", "16x13"]


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def wind_of(grid: Grid, potential: np.ndarray | float, stream: np.ndarray | float, degree: int) -> np.ndarray:
    """Return wind (channel, latitude, longitude) from coefficients (m, l)."""
    harmonics = SphericalHarmonics(degree, grid.latitude, grid.longitude.size)
    zero = np.zeros((degree + 1, degree + 1), dtype=complex)
    (divergent_u, divergent_v), (east, north) = (harmonics.gradient(zero + of) for of in (potential, stream))
    return np.stack([divergent_u - north, divergent_v + east]).transpose(0, 2, 1)


def coefficients(random: np.random.Generator, degree: int) -> np.ndarray:
    real, imaginary = random.standard_normal((2, degree + 1, degree + 1))
    imaginary[0] = 0
    return np.triu(real + 1j * imaginary)


def energy_of(coefficients: np.ndarray) -> np.ndarray:
    degree = np.arange(coefficients.shape[1])
    squares = np.abs(coefficients) ** 2
    return degree * (degree + 1) * (squares[0] + 2 * squares[1:].sum(axis=0)) / 2


@pytest.mark.parametrize("name", ["240x121", *GRIDS])
def test_solid_rotation_about_any_axis_is_of_degree_one(name):
    grid = Grid.regular(name)
    latitude, longitude = np.meshgrid(np.deg2rad(grid.latitude), np.deg2rad(grid.longitude), indexing="ij")
    about_the_poles = np.stack([np.cos(latitude), 0 * longitude])
    across_the_poles = np.stack([np.sin(latitude) * np.cos(longitude), -np.sin(longitude)])
    rotational, divergent = kinetic_energy(np.stack([10 * about_the_poles, 10 * across_the_poles]), grid)
    np.testing.assert_allclose(rotational[:, 1], 100 / 3, rtol=1e-12)  # half of the mean of cos^2, 2/3
    assert np.delete(rotational, 1, axis=1).max() < 1e-24 * 1e4
    assert divergent.max() < 1e-24 * 1e4


@pytest.mark.parametrize(("degree", "order"), [(1, 0), (1, 1), (4, 0), (7, 3), (11, 1), (11, 11)])
@pytest.mark.parametrize("name", ["24x13", "24x12"])
def test_a_gradient_is_divergent_and_turned_by_a_right_angle_rotational_of_its_degree_alone(name, degree, order):
    grid = Grid.regular(name)
    one = np.zeros((12, 12), dtype=complex)
    one[order, degree] = 0.6 - (0.8j if order else 0)
    expected = np.zeros((2, 12))
    expected[1] = energy_of(one)
    np.testing.assert_allclose(kinetic_energy(wind_of(grid, one, 0, 11), grid), expected, atol=1e-12 * expected.max())
    np.testing.assert_allclose(kinetic_energy(wind_of(grid, 0, one, 11), grid), expected[::-1], atol=1e-12 * expected.max())


@pytest.mark.parametrize("name", GRIDS)
def test_parseval_up_to_the_truncation(random, name):
    """The energy of every degree is that of its coefficients, and the sum is the area mean of (u^2 + v^2) / 2."""
    grid = Grid.regular(name)
    highest = truncation(grid)
    potential, stream = coefficients(random, highest), coefficients(random, highest)
    rotational, divergent = kinetic_energy(wind_of(grid, potential, stream, highest), grid)
    np.testing.assert_allclose(rotational, energy_of(stream), rtol=1e-10)
    np.testing.assert_allclose(divergent, energy_of(potential), rtol=1e-10)
    # The grid is so fine that cell means and point values agree.
    fine = Grid.regular("80x2000")
    wind = wind_of(fine, potential, stream, highest)
    mean = np.average((wind**2).sum(axis=0).mean(axis=-1) / 2, weights=fine.area_weights)
    assert (rotational + divergent).sum() == pytest.approx(mean, rel=1e-3)


def test_the_paper_grid_to_its_highest_degree(random):
    grid = Grid.regular("240x121")
    assert truncation(grid) == 119
    potential, stream = coefficients(random, 119), coefficients(random, 119)
    wind = wind_of(grid, potential, stream, 119)
    for precision, tolerance in ((np.float64, 1e-9), (np.float32, 1e-4)):
        rotational, divergent = kinetic_energy(wind.astype(precision), grid)
        np.testing.assert_allclose(rotational[1:], energy_of(stream)[1:], rtol=tolerance)
        np.testing.assert_allclose(divergent[1:], energy_of(potential)[1:], rtol=tolerance)


def test_projection_on_every_vector_harmonic_by_quadrature(random):
    """Compare with the wind of random potentials, written with scipy's harmonics and integrated on Gaussian latitudes."""
    highest, grid = 6, Grid.regular("24x13")
    sines, weights = np.polynomial.legendre.leggauss(24)
    chosen = [(degree, order) for degree in range(1, highest + 1) for order in range(-degree, degree + 1)]
    amplitudes = random.standard_normal((2, len(chosen))) + 1j * random.standard_normal((2, len(chosen)))

    def gradient(degree, order, latitude):
        colatitude, longitude = np.meshgrid(np.pi / 2 - latitude, np.deg2rad(grid.longitude), indexing="ij")
        _, slopes = sph_harm_y(degree, order, colatitude, longitude, diff_n=1)
        return np.stack([slopes[..., 1] / np.sin(colatitude), -slopes[..., 0]])

    def wind(latitude):
        total = 0
        for (degree, order), (potential, stream) in zip(chosen, amplitudes.T, strict=True):
            east, north = gradient(degree, order, latitude)
            total = total + potential * np.stack([east, north]) + stream * np.stack([-north, east])
        return total.real

    latitude = np.arcsin(sines)
    field, expected = wind(latitude), np.zeros((2, highest + 1))
    for degree, order in chosen:
        east, north = gradient(degree, order, latitude)
        for part, harmonic in enumerate((np.stack([-north, east]), np.stack([east, north]))):
            projection = ((field * harmonic.conj()).sum(axis=0).mean(axis=-1) * weights).sum() / 2
            norm = ((np.abs(harmonic) ** 2).sum(axis=0).mean(axis=-1) * weights).sum() / 2
            expected[part, degree] += np.abs(projection) ** 2 / norm / 2
    # scipy's derivative along a parallel is not finite at a pole.
    near_poles = np.clip(grid.latitude, -90 + 1e-6, 90 - 1e-6)
    energy = np.stack(kinetic_energy(wind(np.deg2rad(near_poles)), grid))
    np.testing.assert_allclose(energy[:, : highest + 1], expected, rtol=1e-6)
    assert energy[:, highest + 1 :].max() < 1e-10 * expected.max()


@pytest.mark.parametrize("name", GRIDS)
def test_turning_the_globe_and_looking_at_it_in_a_mirror_change_nothing(random, name):
    grid = Grid.regular(name)
    wind = random.standard_normal((3, 2, *grid.shape))
    before = kinetic_energy(wind, grid)
    across = wind[..., ::-1, :] * np.array([1, -1])[:, None, None]
    along = wind[..., ::-1] * np.array([-1, 1])[:, None, None]
    for same in (np.roll(wind, 5, axis=-1), across, along, -wind):
        np.testing.assert_allclose(kinetic_energy(same, grid), before, rtol=1e-9, atol=1e-12)
    # A mirror image without the change of sign of v is another wind.
    assert np.abs(kinetic_energy(wind[..., ::-1, :], grid)[0] / before[0].clip(1e-9) - 1).max() > 0.1


def test_wind_that_is_no_vector_at_a_pole_does_not_count(random):
    grid = Grid.regular("24x13")
    wind = random.standard_normal((2, *grid.shape))
    before, changed, angle = kinetic_energy(wind, grid), wind.copy(), np.deg2rad(grid.longitude)
    for order in (0, 2, 5):
        changed[:, [0, -1]] += 50 * np.cos(order * angle)
    changed[:, 0] += 50 * np.stack([np.sin(angle), -np.cos(angle)])  # turns the wrong way round
    np.testing.assert_allclose(kinetic_energy(changed, grid), before, atol=1e-11)
    changed[:, 0] += 50 * np.stack([np.sin(angle), np.cos(angle)])  # one vector, seen from each longitude
    assert np.sum(kinetic_energy(changed, grid)) > 2 * np.sum(before)


def test_energy_by_degree_is_that_of_torch_harmonics():
    """Wind that torch-harmonics 0.7.4 made of known coefficients. Its transform back is off by 7 % at the highest degrees here."""
    stored = json.loads((Path(__file__).parent / "pinned/torch_harmonics.json").read_text())
    rotational, divergent = kinetic_energy(np.array(stored["wind"]), Grid.regular(stored["grid"]))
    np.testing.assert_allclose(rotational, stored["rotational"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(divergent, stored["divergent"], rtol=1e-9, atol=1e-12)


def test_noise_is_spread_over_all_degrees_alike(random):
    """White noise has energy in proportion to the 2 l + 1 modes of a degree. No degree is amplified, also not at the truncation."""
    grid = Grid.regular("64x32")
    energy = np.mean(kinetic_energy(random.standard_normal((60, 2, *grid.shape)), grid), axis=(0, 1))[1:]
    per_mode = energy / (2 * np.arange(1, 32) + 1)
    np.testing.assert_allclose(per_mode, per_mode.mean(), rtol=0.3)
    assert 2 * energy.sum() < 1


def test_statistics_are_of_members_and_their_ratio_is_of_averages(random):
    grid = Grid.regular("24x12")
    ensemble, truth = random.standard_normal((4, 3, 2, *grid.shape)), random.standard_normal((3, 2, *grid.shape))
    energy = kinetic_energy_statistics(ensemble, truth, grid)
    assert energy["kinetic_energy"].dims == ("prediction_timedelta", "part", "degree")
    for lead in range(3):
        parts = np.mean([kinetic_energy(member[lead], grid) for member in ensemble], axis=0)
        np.testing.assert_allclose(energy["kinetic_energy"].sel(part=["rotational", "divergent"])[lead], parts)
        np.testing.assert_allclose(energy["kinetic_energy"].sel(part="total")[lead], parts.sum(axis=0))
    scores = kinetic_energy_metrics(energy)
    expected = energy["kinetic_energy"][1, 0, 5] / energy["kinetic_energy_truth"][1, 0, 5]
    assert scores["kinetic_energy_ratio"].sel(degree=5, part="rotational")[1].item() == pytest.approx(expected.item())
    assert scores["kinetic_energy_ratio"]["degree"][0] == 1


def test_a_forecast_that_is_the_truth_deviates_nowhere(random):
    grid = Grid.regular("24x12")
    truth = random.standard_normal((1, 2, *grid.shape))
    scores = kinetic_energy_metrics(kinetic_energy_statistics(np.stack([truth, truth]), truth, grid))
    np.testing.assert_allclose(scores["kinetic_energy_ratio"], 1, rtol=1e-12)
    for name in ("kinetic_energy_deviation", "kinetic_energy_deviation_mean", "kinetic_energy_deviation_sum"):
        np.testing.assert_allclose(scores[name], 0, atol=1e-12)


def test_wind_without_divergence_has_no_ratio_of_its_divergent_part(random):
    grid = Grid.regular("24x12")
    rounded = [np.round(wind_of(grid, 0, coefficients(random, 11), 11), 3)[None] for _ in range(2)]
    scores = kinetic_energy_metrics(kinetic_energy_statistics(rounded[0][None], rounded[1], grid)).isel(prediction_timedelta=0)
    for name in ("kinetic_energy_ratio", "kinetic_energy_deviation", "kinetic_energy_deviation_mean", "kinetic_energy_deviation_sum"):
        assert np.isnan(scores[name].sel(part="divergent")).all()
        assert np.isfinite(scores[name].sel(part=["rotational", "total"])).all()


def test_deviations_are_of_energetic_waves():
    truth = xr.DataArray([100.0, 50.0, 1.0, 0.01], dims="degree")
    scores = compared(truth * [1.1, 0.7, 1.0, 9.0], truth, "degree", "power")
    assert scores["power_deviation"].item() == pytest.approx(0.3)
    assert scores["power_deviation_mean"].item() == pytest.approx(0.4 / 3)
    assert scores["power_deviation_sum"].item() == pytest.approx(0.4)
    assert scores["energetic_degrees"].item() == 3
    assert np.isnan(compared(truth * np.nan, truth, "degree", "power")["power_deviation_sum"])


def test_wavelengths():
    assert wavelength_of_wavenumber(1) == pytest.approx(40008.18, abs=0.01)  # round the equator
    np.testing.assert_allclose(wavelength_of_wavenumber([4, 120]), [40008.18 / 4, 333.40], rtol=1e-5)
    np.testing.assert_allclose(wavelength_of_degree([1, 119]), [40008.18 / np.sqrt(2), 334.80], rtol=1e-5)
    assert wavelength_of_degree(0) == np.inf
