"""Tests of positions that are chosen evenly out of many."""

from __future__ import annotations

import numpy as np
import pytest

from wsdcast.runs.positions import evenly_spread


@pytest.mark.parametrize("count", [1, 2, 5, 12, 13, 1000])
@pytest.mark.parametrize("most", [2, 3, 5, 12])
def test_positions_go_from_the_first_to_the_last_in_equal_steps(count, most):
    positions = evenly_spread(count, most)
    assert positions.size == min(count, most)
    assert (positions[0], positions[-1]) == (0, count - 1)
    steps = np.diff(positions)
    assert steps.size == 0 or (steps.min() >= 1 and steps.max() - steps.min() <= 1)


def test_none_and_one():
    assert evenly_spread(0, 5).tolist() == []
    assert evenly_spread(7, 1).tolist() == [0]
    assert evenly_spread(7, 0).tolist() == []
