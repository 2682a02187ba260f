"""Spherical harmonics: transforms, gradients, and the rows at the poles."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import sph_harm_y

from wsdcast.data.harmonics import SphericalHarmonics, gaussian_latitudes

TRUNCATION = 15


@pytest.fixture(scope="module")
def harmonics() -> SphericalHarmonics:
    latitudes, weights = gaussian_latitudes(24)
    return SphericalHarmonics(TRUNCATION, latitudes, 48, weights)


@pytest.fixture(scope="module")
def coefficients(harmonics: SphericalHarmonics) -> np.ndarray:
    random = np.random.default_rng(0)
    real, imaginary = random.standard_normal((2, TRUNCATION + 1, TRUNCATION + 1, 3))
    imaginary[0] = 0
    return (real + 1j * imaginary) * harmonics.triangle[:, :, None]


def test_analysis_and_synthesis_are_inverse(harmonics, coefficients):
    np.testing.assert_allclose(harmonics.analysis(harmonics.synthesis(coefficients)), coefficients, atol=1e-12)


def test_coefficients_have_the_variance_of_the_field(harmonics, coefficients):
    field = harmonics.synthesis(coefficients)
    mean_square = (field**2).mean(axis=0).T @ harmonics.weights
    power = np.abs(coefficients) ** 2
    np.testing.assert_allclose(mean_square, power[0].sum(axis=0) + 2 * power[1:].sum(axis=(0, 1)), rtol=1e-12)


@pytest.mark.parametrize(("degree", "order"), [(0, 0), (1, 0), (3, 2), (7, 7), (15, 1), (15, 15)])
def test_legendre_functions_agree_with_scipy(harmonics, degree, order):
    theirs = sph_harm_y(degree, order, np.deg2rad(90 - harmonics.latitudes), 0.0).real * np.sqrt(4 * np.pi)
    np.testing.assert_allclose(harmonics.values[order, :, degree], theirs * (-1) ** order, atol=1e-12)


def test_gradient_is_the_derivative(coefficients):
    step = 1e-5
    latitudes = np.array([30.0 + np.rad2deg(step), 30.0, 30.0 - np.rad2deg(step)])
    harmonics = SphericalHarmonics(TRUNCATION, latitudes, 48)
    field = harmonics.synthesis(coefficients)
    eastward, northward = harmonics.gradient(coefficients)
    np.testing.assert_allclose(northward[:, 1], (field[:, 0] - field[:, 2]) / (2 * step), rtol=1e-6, atol=1e-5)
    wavenumbers = np.fft.rfftfreq(48, 1 / 48)[:, None]
    along = np.fft.irfft(1j * wavenumbers * np.fft.rfft(field[:, 1], axis=0), axis=0) / np.cos(np.deg2rad(30))
    np.testing.assert_allclose(eastward[:, 1], along, atol=1e-10)


def test_divergence_of_the_gradient_is_the_laplacian(harmonics, coefficients):
    laplacian = -harmonics.degree * (harmonics.degree + 1)
    np.testing.assert_allclose(harmonics.divergence(*harmonics.gradient(coefficients)), coefficients * laplacian[:, None], atol=1e-10)


def test_pole_rows_of_a_vector_have_only_wavenumber_one(coefficients):
    eastward, northward = SphericalHarmonics(TRUNCATION, np.array([90.0, 0.0, -90.0]), 48).gradient(coefficients)
    for field in (eastward, northward):
        power = np.abs(np.fft.rfft(field[:, [0, 2]], axis=0))
        assert power[1].min() > 1
        assert np.delete(power, 1, axis=0).max() < 1e-9
    # A pole has one wind vector: its northward part at longitude 0 is its eastward part at longitude 90.
    np.testing.assert_allclose(northward[:, 0], np.roll(eastward[:, 0], -12, axis=0), atol=1e-9)


def test_few_longitudes_sample_the_field(harmonics, coefficients):
    coarse = SphericalHarmonics(TRUNCATION, harmonics.latitudes, 24)
    np.testing.assert_allclose(coarse.synthesis(coefficients), harmonics.synthesis(coefficients)[::2], atol=1e-11)


def test_an_analysis_without_weights_is_refused(coefficients):
    harmonics = SphericalHarmonics(TRUNCATION, np.array([10.0, -10.0]), 48)
    with pytest.raises(ValueError, match="no quadrature weights"):
        harmonics.analysis(harmonics.synthesis(coefficients))
