"""Scores refuse fields whose shapes do not fit: others would broadcast, or be read beyond their ends."""

from __future__ import annotations

import numpy as np
import pytest

from wsdcast.data.grid import Grid
from wsdcast.verification.kernels import brier_score, energy_scores, ranked, variogram_score, zonal_power
from wsdcast.verification.metrics import joint_statistics, statistics
from wsdcast.verification.regions import region_weights
from wsdcast.verification.scoring import statistics_of


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("truth", [(1, 4, 8), (2, 4, 1), (2, 4, 7), (5, 2, 4, 8)])
def test_a_truth_of_another_shape_is_refused(random, truth):
    """Numbers beyond the end of a smaller truth would be read, and some shapes would broadcast."""
    grid, ensemble, other = Grid.regular("8x4"), random.standard_normal((5, 2, 4, 8)), random.standard_normal(truth)
    scores = (
        lambda: ranked(ensemble, other),
        lambda: energy_scores(ensemble, other, region_weights(grid)),
        lambda: variogram_score(ensemble, other, 1),
        lambda: brier_score(ensemble, other, 0.5),
    )
    for score in scores:
        with pytest.raises(ValueError, match=r"the truth has the shape .*, and a member \(2, 4, 8\)"):
            score()


@pytest.mark.parametrize("score", [statistics, joint_statistics, statistics_of])
def test_members_and_lead_times_are_not_taken_for_each_other(random, score):
    """With as many members as lead times, or more, lead times would be scored as members."""
    grid, truth = Grid.regular("8x4"), random.standard_normal((2, 2, 4, 8))
    for members, leads in ((2, 3), (3, 3)):
        with pytest.raises(ValueError, match="the members' dimension comes first"):
            score(random.standard_normal((members, leads, 2, 4, 8)), truth, grid)


@pytest.mark.parametrize("name", ["4x8", "8x8", "8x2", "16x4"])
def test_a_grid_of_another_shape_is_refused(random, name):
    """Weights of more points than there are would read numbers beyond the end of the fields, and weights of fewer leave points out."""
    grid, ensemble, truth = Grid.regular(name), random.standard_normal((3, 1, 2, 4, 8)), random.standard_normal((1, 2, 4, 8))
    for score in (statistics, joint_statistics, lambda *fields: energy_scores(ensemble[:, 0], truth[0], region_weights(grid))):
        with pytest.raises(ValueError, match="does not end with that of the grid"):
            score(ensemble, truth, grid)
    with pytest.raises(ValueError, match="does not end with that of the grid"):
        zonal_power(truth, grid)
