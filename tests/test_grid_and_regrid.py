from __future__ import annotations

import numpy as np
import pytest

from wsdcast.data.grid import Grid
from wsdcast.data.regrid import conservative
from wsdcast.errors import UserError

PAIRS = [("24x13", "12x6"), ("24x12", "16x9"), ("36x19", "24x13"), ("12x6", "24x13"), ("20x11", "20x11")]


def test_weatherbench_grids():
    with_poles = Grid.regular("240x121")
    assert with_poles.latitude[[0, 1, -1]].tolist() == [90, 88.5, -90]
    assert with_poles.longitude[[0, -1]].tolist() == [0, 358.5]
    assert with_poles.includes_poles
    without = Grid.regular("64x32")
    assert without.latitude[[0, -1]].tolist() == [87.1875, -87.1875]
    assert not without.includes_poles


def test_area_weights_are_exact_and_the_pole_counts():
    grid = Grid.regular("240x121")
    assert grid.area_weights.mean() == pytest.approx(1)
    # WeatherBench 2's weight of a pole row relative to the mean: half a cell, not cos(90 degrees) = 0.
    assert grid.area_weights[0] == pytest.approx(5.18e-3, rel=1e-3)
    expected = np.cos(np.deg2rad(grid.latitude[1:-1]))
    np.testing.assert_allclose(grid.area_weights[1:-1] / grid.area_weights[60], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("latitude", "longitude", "message"),
    [
        ([-45.0, 45.0], [0.0, 90.0, 180.0, 270.0], "north to south"),
        ([45.0, -45.0], [-180.0, -90.0, 0.0, 90.0], "within 0 and 360"),
        ([45.0, -45.0], [0.0, 90.0, 180.0], "not a global grid"),
        ([60.0, 50.0, 40.0], [0.0, 90.0, 180.0, 270.0], "leave out a pole"),
        ([45.0, -45.0], [0.0, 80.0, 180.0, 270.0], "equal steps"),
    ],
)
def test_wrong_coordinates_are_refused(latitude, longitude, message):
    with pytest.raises(UserError, match=message):
        Grid(np.array(latitude), np.array(longitude))


@pytest.mark.parametrize("name", ["64", "64x", "x32", "63x32", "64x32x2", "2x2"])
def test_wrong_grid_names_are_refused(name):
    with pytest.raises(UserError, match="expected LONGITUDESxLATITUDES"):
        Grid.regular(name)


def brute_force(field: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """Sum over all pairs of cells of the area of their overlap, found by splitting circles at every bound."""
    out = np.zeros(target.shape)
    for row in range(target.shape[0]):
        for column in range(target.shape[1]):
            west, east = target.longitude_bounds[column : column + 2]
            north, south = target.latitude_bounds[row : row + 2]
            total = area = 0.0
            for i in range(source.shape[0]):
                top, bottom = min(north, source.latitude_bounds[i]), max(south, source.latitude_bounds[i + 1])
                if top <= bottom:
                    continue
                height = np.sin(np.deg2rad(top)) - np.sin(np.deg2rad(bottom))
                for j in range(source.shape[1]):
                    for turn in (-360, 0, 360):
                        left, right = source.longitude_bounds[j] + turn, source.longitude_bounds[j + 1] + turn
                        width = min(east, right) - max(west, left)
                        if width > 0:
                            area += height * width
                            total += height * width * field[i, j]
            out[row, column] = total / area
    return out


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_agrees_with_brute_force_overlaps(source, target):
    source, target = Grid.regular(source), Grid.regular(target)
    field = np.random.default_rng(0).standard_normal(source.shape)
    np.testing.assert_allclose(conservative(field, source, target), brute_force(field, source, target), atol=1e-12)


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_keeps_the_global_mean_and_constants(source, target):
    source, target = Grid.regular(source), Grid.regular(target)
    field = np.random.default_rng(0).standard_normal((2, *source.shape))
    mean = (field * source.area_weights[:, None]).mean(axis=(-2, -1))
    regridded = conservative(field, source, target)
    np.testing.assert_allclose((regridded * target.area_weights[:, None]).mean(axis=(-2, -1)), mean, atol=1e-13)
    np.testing.assert_allclose(conservative(np.full(source.shape, 3.0), source, target), 3.0, rtol=1e-14)


def test_onto_itself_changes_nothing():
    grid = Grid.regular("24x13")
    field = np.random.default_rng(0).standard_normal(grid.shape)
    np.testing.assert_allclose(conservative(field, grid, grid), field, rtol=1e-12)


def test_turning_the_globe_turns_the_result():
    source, target = Grid.regular("24x13"), Grid.regular("12x6")
    field = np.random.default_rng(0).standard_normal(source.shape)
    turned = conservative(np.roll(field, 8, axis=1), source, target)
    np.testing.assert_allclose(turned, np.roll(conservative(field, source, target), 4, axis=1), atol=1e-13)


def test_a_missing_value_spreads_to_the_cells_it_touches_and_no_further():
    source, target = Grid.regular("24x12"), Grid.regular("12x6")
    field = np.ones(source.shape)
    field[3, 7] = np.nan
    missing = np.isnan(conservative(field, source, target))
    touched = np.isnan(brute_force(field, source, target))
    np.testing.assert_array_equal(missing, touched)
