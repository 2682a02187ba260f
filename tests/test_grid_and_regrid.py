"""Grids with their area weights, and regridding between them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

from wsdcast.data.grid import Grid
from wsdcast.data.regrid import matrices, regrid
from wsdcast.runs.errors import UserError

PAIRS = [("24x13", "12x6"), ("24x12", "16x9"), ("36x19", "24x13"), ("12x6", "24x13"), ("20x11", "20x11"), ("gaussian", "12x7")]


def grid_of(name: str) -> Grid:
    """A regular grid, or one with the latitudes of Gauss and longitudes that do not begin at 0."""
    if name != "gaussian":
        return Grid.regular(name)
    return Grid(np.rad2deg(np.arcsin(-np.polynomial.legendre.leggauss(14)[0])), 360 / 28 * (np.arange(28) + 0.3))


def test_grids_of_weatherbench_have_their_coordinates():
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
        ([45.0, -45.0], [0.0, 1.0, 2.0, 330.0, 331.0], "longitudes -30 to 2 are"),
        ([45.0, -45.0], [140.0, 180.0, 230.0], "longitudes 140 to 230 are"),
        ([0.0], [0.0, 90.0, 180.0, 270.0], "at least two"),
        ([90.5, 0.0, -90.5], [0.0, 90.0, 180.0, 270.0], "within 90 and -90"),
        ([45.0, -45.0], [-0.5, 89.5, 179.5, 269.5], "within 0 and 360"),
        ([45.0, -45.0], [90.0, 180.0, 270.0, 360.0], "within 0 and 360"),
    ],
)
def test_wrong_coordinates_are_refused(latitude, longitude, message):
    with pytest.raises(UserError, match=message):
        Grid(np.array(latitude), np.array(longitude))


def test_the_nearest_column_is_found_round_the_circle():
    rows, columns = Grid.regular("8x5").nearest(np.array([80.0, -20.0, -90.0]), np.array([359.0, -50.0, 405.0]))
    assert (rows.tolist(), columns.tolist()) == ([0, 2, 4], [0, 7, 1])


@pytest.mark.parametrize("name", ["64", "64x", "x32", "63x32", "64x32x2", "2x2", "8x1"])
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
    source, target = grid_of(source), grid_of(target)
    field = np.random.default_rng(0).standard_normal(source.shape)
    np.testing.assert_allclose(regrid(field, source, target), brute_force(field, source, target), atol=1e-12)


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_keeps_the_global_mean_and_constants(source, target):
    source, target = grid_of(source), grid_of(target)
    field = np.random.default_rng(0).standard_normal((2, *source.shape))
    mean = (field * source.area_weights[:, None]).mean(axis=(-2, -1))
    regridded = regrid(field, source, target)
    np.testing.assert_allclose((regridded * target.area_weights[:, None]).mean(axis=(-2, -1)), mean, atol=1e-13)
    np.testing.assert_allclose(regrid(np.full(source.shape, 3.0), source, target), 3.0, rtol=1e-14)


def test_regridding_to_the_same_grid_changes_nothing():
    grid = Grid.regular("24x13")
    field = np.random.default_rng(0).standard_normal(grid.shape)
    np.testing.assert_allclose(regrid(field, grid, grid), field, rtol=1e-12)


def test_turning_the_globe_turns_the_result():
    source, target = Grid.regular("24x13"), Grid.regular("12x6")
    field = np.random.default_rng(0).standard_normal(source.shape)
    turned = regrid(np.roll(field, 8, axis=1), source, target)
    np.testing.assert_allclose(turned, np.roll(regrid(field, source, target), 4, axis=1), atol=1e-13)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_missing_value_spreads_only_to_the_cells_that_it_overlaps(bad):
    source, target = Grid.regular("24x12"), Grid.regular("12x6")
    field = np.ones(source.shape)
    field[3, 7] = bad
    missing = np.isnan(regrid(field, source, target, missing="nan"))
    field[3, 7] = np.nan
    touched = np.isnan(brute_force(field, source, target))
    assert touched.any()
    np.testing.assert_array_equal(missing, touched)
    with pytest.raises(UserError, match=f"leave {touched.sum()} of 72 target cells without one"):
        regrid(field, source, target)


def test_fields_of_another_shape_are_refused():
    with pytest.raises(UserError, match=r"fields of shape \(12, 25\) are not on the grid 24x12"):
        regrid(np.ones((12, 25)), Grid.regular("24x12"), Grid.regular("12x6"))


@pytest.mark.parametrize(("source", "target"), PAIRS)
@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_bilinear_and_nearest_agree_with_scipy(source, target, method):
    """On the source widened by one turn on each side, and by one row beyond each end that repeats it."""
    source, target = grid_of(source), grid_of(target)
    field = np.random.default_rng(0).standard_normal(source.shape)
    wide = np.pad(np.tile(field, 3), ((1, 1), (0, 0)), mode="edge")
    rows = np.concatenate([[-91.0], -source.latitude, [91.0]])
    columns = np.concatenate([source.longitude - 360, source.longitude, source.longitude + 360])
    # Halfway between two neighbours both are right. A small shift makes scipy take the same one as this package.
    points = np.meshgrid(-target.latitude - 1e-9, target.longitude - 1e-9, indexing="ij")
    expected = RegularGridInterpolator((rows, columns), wide, method={"bilinear": "linear"}.get(method, method))(tuple(points))
    np.testing.assert_allclose(regrid(field, source, target, method), expected, atol=1e-7)


def test_bilinear_does_not_need_values_of_weight_zero():
    source, target = Grid.regular("24x13"), Grid.regular("12x7")  # every target point is one of the source
    field = np.random.default_rng(0).standard_normal(source.shape)
    field[1::2] = np.nan
    np.testing.assert_array_equal(regrid(field, source, target, "bilinear"), field[::2, ::2])


def test_regridding_from_a_quarter_degree_to_one_and_a_half():
    """At the sizes of ERA5: both matrices are as sparse as they can be, single precision is kept, the pole row is a mean of its cap."""
    source, target = Grid.regular("1440x721"), Grid.regular("240x121")
    rows, columns = matrices(source, target, "conservative", "<f4")
    assert rows.nnz == 121 * 7 - 6  # an inner cell overlaps seven rows, a polar cap four with the row at the pole
    assert columns.nnz == 240 * 7
    field = np.random.default_rng(0).standard_normal(source.shape).astype(np.float32)
    out = regrid(field, source, target)
    assert out.dtype == np.float32
    weights = source.area_weights[:, None]
    half = 1 - (np.sin(np.deg2rad(89.25)) - np.sin(np.deg2rad(89.125))) / (np.sin(np.deg2rad(89.375)) - np.sin(np.deg2rad(89.125)))
    shares = weights[:4] * np.array([1, 1, 1, half])[:, None]
    cap = np.concatenate([field[:4, -3:-2] * 0.5, field[:4, -2:], field[:4, :3], field[:4, 3:4] * 0.5], axis=1)
    assert out[0, 0] == pytest.approx((cap * shares).sum() / (6 * shares.sum()), rel=1e-5)
    exact = regrid(field.astype(np.float64), source, target)
    assert (exact * target.area_weights[:, None]).mean() == pytest.approx((field.astype(np.float64) * weights).mean(), abs=1e-12)


def test_grids_are_equal_by_their_coordinates():
    one, other = Grid.regular("24x13"), Grid.regular("24x13")
    assert one == other
    assert hash(one) == hash(other)
    turned = Grid(-one.latitude[::-1], one.longitude)  # its equator is -0.0
    assert turned == one
    assert hash(turned) == hash(one)
    shifted = Grid(one.latitude, one.longitude + 1e-6)
    assert shifted != one
    assert shifted.is_close(one)
    assert not Grid.regular("24x12").is_close(one)


@pytest.mark.parametrize("name", ["240x121", "64x32", "14x27"])
@pytest.mark.parametrize("west", [-40, 20])
def test_the_steps_of_a_region_continue_to_its_grid(name, west):
    """Also of coordinates in single precision, and of longitudes across Greenwich."""
    grid = Grid.regular(name)
    rows = np.flatnonzero(np.abs(grid.latitude - 20) <= 40)
    columns = np.flatnonzero((grid.longitude - west) % 360 <= 100)
    points = [axis.astype(np.float32).astype(np.float64) for axis in (grid.latitude[rows], grid.longitude[columns])]
    whole = Grid.around(*points)
    assert whole.is_close(grid)  # also where 360 degrees become 359.99999 by rounding
    for found, expected in zip(grid.region_of(*points), (rows, columns), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert grid.region_of(points[0][::2], points[1]) is None
    assert grid.region_of(points[0], np.delete(points[1], 1)) is None
    assert grid.region_of(points[0], points[1] + 0.02) is None
    assert Grid.around(grid.latitude, grid.longitude) == grid


@pytest.mark.parametrize(
    ("latitude", "longitude", "words"), [([60, 60], [0, 3], "must fall strictly"), ([60], [0, 3], "at least two"), ([60, 57], [3], "two")]
)
def test_points_without_steps_continue_to_no_grid(latitude, longitude, words):
    with pytest.raises(UserError, match=words):
        Grid.around(np.float64(latitude), np.float64(longitude))


@pytest.mark.parametrize("name", ["240x121", "64x32"])
def test_flow_across_a_pole_is_hardly_weaker(name):
    """Its u is a cosine of longitude. Cells of width w keep the share sin(w / 2) / (w / 2)."""
    source, target = Grid.regular("5760x181"), Grid.regular(name)
    across = np.broadcast_to(np.cos(np.deg2rad(source.longitude)), source.shape)
    width = 2 * np.pi / target.longitude.size
    expected = np.cos(np.deg2rad(target.longitude)) * np.sin(width / 2) / (width / 2)
    np.testing.assert_allclose(regrid(across, source, target)[0], expected, atol=1e-7)
    assert 1 - np.sin(width / 2) / (width / 2) == pytest.approx({"240x121": 3e-5, "64x32": 4e-4}[name], rel=0.06)


def test_a_finer_grid_has_more_points_along_both_axes():
    assert Grid.regular("24x13").size == 24 * 13
    for name, finer in {"24x14": False, "26x13": False, "22x14": False, "24x13": False, "26x14": True}.items():
        assert Grid.regular(name).is_finer_than(Grid.regular("24x13")) == finer


def test_grids_with_the_same_latitudes_and_other_longitudes_are_two_grids():
    """Fields are taken over unchanged only between equal grids. Half a step to the east, each cell is the mean of two."""
    source = Grid.regular("8x4")
    shifted = Grid(source.latitude, source.longitude + 22.5)
    fields = np.random.default_rng(0).normal(size=source.shape)
    np.testing.assert_allclose(regrid(fields, source, shifted, "conservative"), (fields + np.roll(fields, -1, axis=1)) / 2)
