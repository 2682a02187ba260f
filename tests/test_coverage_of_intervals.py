"""How often bootstrap intervals hold the true mean, as the example measures it, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from test_examples import example


def test_intervals_of_few_blocks_are_too_narrow():
    coverage = example("coverage_of_intervals").coverage
    blocks, covered, small, factor = coverage(12, 24, 240, 0, 1000)
    assert blocks == 2
    assert covered == pytest.approx(0.72, abs=0.04)
    assert small == 0  # p is 0.5 at least
    assert factor > 1.8
    blocks, covered, small, factor = coverage(200, 120, 72, 0, 1000)
    assert blocks == 200
    assert covered == pytest.approx(0.95, abs=0.02)
    assert small == pytest.approx(0.05, abs=0.02)
    assert factor == pytest.approx(1, abs=0.1)


def test_intervals_hold_less_if_scores_are_correlated_for_half_a_block():
    """The mean of n such blocks has the variance of an AR(1) series; blocks lose what is correlated across their ends."""
    blocks, covered, small, factor = example("coverage_of_intervals").coverage(200, 24, 24, 36, 1000)
    assert blocks == pytest.approx(200 / 3)
    kept, length = np.exp(-24 / 36), np.arange(1, 3)
    in_blocks, whole = (1 + 2 * np.sum((1 - length / 3) * kept**length)) * (1 - 3 / 200), (1 + kept) / (1 - kept)
    expected = (whole / in_blocks) ** 0.5  # the standard error over its estimate
    assert 0.7 < covered < 0.9
    assert small == pytest.approx(1 - covered, abs=0.03)
    assert factor == pytest.approx(expected, rel=0.12)
