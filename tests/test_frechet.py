"""The Fréchet distance between sets of features: closed forms, another formula, and bootstrap draws."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from wsdcast.images.data.resampling import context_weights
from wsdcast.images.frechet import FeatureStatistics, drawn_distances, frechet_distance
from wsdcast.verification.bootstrap import BOUNDS


def gaussian(count, mean, covariance):
    """Return statistics of ``count`` features that have exactly this mean and covariance."""
    mean, covariance = np.asarray(mean, dtype=float), np.asarray(covariance, dtype=float)
    return FeatureStatistics(count, count * mean, (count - 1) * covariance + count * np.outer(mean, mean))


def test_the_distance_of_known_gaussians_is_the_closed_form():
    a = gaussian(100, [0, 0, 1], np.diag([1, 4, 9]))
    b = gaussian(50, [3, 0, 1], np.diag([4, 4, 1]))
    # For diagonal covariances it is |mean difference|^2 plus the squared differences of the standard deviations.
    assert frechet_distance(a, b) == pytest.approx(9 + 1 + 0 + 4)
    assert frechet_distance(b, a) == pytest.approx(14)


def test_distance_agrees_with_a_matrix_square_root():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(200, 7)) @ random.normal(size=(7, 7)), random.normal(size=(90, 7)) @ random.normal(size=(7, 7)) + 1
    a, b = np.cov(x.T), np.cov(y.T)
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
    assert frechet_distance(FeatureStatistics.of(x), FeatureStatistics.of(y)) == pytest.approx(expected, rel=1e-10)


def test_statistics_of_parts_add_up_to_those_of_the_whole():
    features = np.random.default_rng(1).normal(3, 1, (40, 5)).astype(np.float32)
    whole, parts = FeatureStatistics.of(features), FeatureStatistics.of(features[:11]) + FeatureStatistics.of(features[11:])
    np.testing.assert_allclose(parts.covariance, np.cov(features.astype(float).T), rtol=1e-12)
    np.testing.assert_allclose(parts.mean, features.astype(float).mean(0), rtol=1e-12)
    assert parts.count == 40
    assert frechet_distance(whole, parts) == pytest.approx(0, abs=1e-6)


def test_the_distance_is_right_for_fewer_images_than_features():
    random = np.random.default_rng(2)
    # All features lie in two of fifty dimensions, where the distance is known.
    turn = np.linalg.qr(random.normal(size=(50, 50)))[0]
    x = np.zeros((8, 50))
    x[:, :2] = random.normal(size=(8, 2))
    y = x * 3
    a, b = FeatureStatistics.of(x @ turn), FeatureStatistics.of(y @ turn)
    expected = 4 * (np.square(x.mean(0)).sum() + x.var(axis=0, ddof=1).sum())
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("features", [4, 60], ids=["more samples than features", "fewer"])
def test_draws_are_distances_of_resampled_contexts(features):
    random = np.random.default_rng(3)
    samples, reference = random.normal(size=(10, 3, features)), FeatureStatistics.of(random.normal(0.5, 2, size=(100, features)))
    distance, draws = drawn_distances(samples, reference, draws=7)
    assert distance == pytest.approx(frechet_distance(FeatureStatistics.of(samples), reference))
    expected = []
    for weight in context_weights(10, 7):
        drawn = np.repeat(samples, np.rint(10 * weight).astype(int), axis=0)
        assert drawn.shape == samples.shape
        expected.append(frechet_distance(FeatureStatistics.of(drawn), reference))
    np.testing.assert_allclose(draws - draws.mean(), np.array(expected) - np.mean(expected), atol=1e-6)
    assert draws.mean() == pytest.approx(distance)
    same, no_draws = drawn_distances(samples, reference, draws=0)
    assert same == distance
    assert no_draws.shape == (0,)


def test_intervals_of_the_distance_cover_its_expectation():
    """About 19 of 20 intervals hold the mean distance over many draws of new contexts."""
    random, reference = np.random.default_rng(5), gaussian(1000, np.zeros(4), np.eye(4))

    def features():
        # Samples of one context are correlated.
        return 0.3 + random.normal(size=(60, 1, 4)) + 0.5 * random.normal(size=(60, 3, 4))

    expected = np.mean([frechet_distance(FeatureStatistics.of(features()), reference) for _ in range(1000)])
    inside = [
        low < expected < high for low, high in (np.quantile(drawn_distances(features(), reference, 200)[1], BOUNDS) for _ in range(100))
    ]
    assert 0.88 < np.mean(inside) < 0.99
