"""What maps show, and where: cells, coastlines, regions and labels lie at their coordinates."""

from __future__ import annotations

import numpy as np
import pytest
from bokeh.models import ColumnDataSource
from bokeh.palettes import Viridis256
from matplotlib.figure import Figure

from wsdcast.data.grid import Grid
from wsdcast.report.map_panels import MapStyle, map_panels
from wsdcast.report.maps import columns_of_map, draw_map, forecast_maps, repeated, rising, view_of
from wsdcast.report.shown_fields import as_bytes, on_map
from wsdcast.report.subjects import WIND


@pytest.mark.parametrize(("name", "edges"), [("24x12", (-90, 90)), ("25x13", (-97.5, 97.5))])
def test_cells_and_coastlines_lie_at_their_coordinates(name, edges):
    grid = Grid.regular(name.replace("25", "24"))
    axis = Figure().subplots()
    image = draw_map(axis, np.zeros(grid.shape), grid, "", 0, 1, lines=[np.array([[170.0, 10.0], [179.0, 20.0]])])
    assert image.get_extent() == pytest.approx([-187.5, 172.5, *edges])
    assert axis.get_ylim() == (-90, 90)
    assert axis.get_xlim() == (-187.5, 172.5)
    (lines,) = axis.collections
    # The line is drawn twice, so that it also shows at the left edge of the map.
    np.testing.assert_allclose(lines.get_segments(), [[[-190, 10], [-181, 20]], [[170, 10], [179, 20]]])
    for ticks, hemispheres in ((axis.xaxis, " EW"), (axis.yaxis, " NS")):
        expected = [f"{abs(place):g}°{hemispheres[int(np.sign(place))]}".strip() for place in ticks.get_ticklocs()]
        assert [label.get_text() for label in ticks.get_ticklabels()] == expected


@pytest.mark.parametrize("west", [-187.5, -180.0, -176.0])
def test_a_map_has_the_lines_of_every_longitude_once(west):
    round_the_globe = [np.array([[begin, 0.0], [begin + 4.0, 10.0]]) for begin in range(-180, 180, 4)]
    drawn = np.array(repeated(round_the_globe, west))[:, :, 0]
    longitudes = west + np.arange(0.25, 360, 0.5)[:, None]
    assert ((drawn[:, 0] < longitudes) & (longitudes < drawn[:, 1])).sum(axis=1).tolist() == [1] * 720
    assert drawn.min(axis=1).max() < west + 360
    assert drawn.max(axis=1).min() > west


@pytest.mark.parametrize("first", [0.0, 5.0])
@pytest.mark.parametrize("stride", [1, 2])
def test_neighbours_across_greenwich_are_drawn_side_by_side(first, stride):
    """Maps began at Greenwich, so that Europe was cut in two."""
    grid = Grid(np.array([45.0, -45]), first + np.arange(0, 360, 30.0))
    rows, columns = on_map(stride, grid.shape, grid.longitude)
    points = grid.latitude[rows], rising(grid.longitude[columns])
    assert columns_of_map(grid.longitude)[::stride].tolist() == columns.tolist()
    for east in (grid.longitude[columns] + 180) % 360 - 180:
        field = np.where(grid.longitude == east % 360, 1.0, 0) * np.ones((2, 1))
        if stride == 1:
            image = draw_map(Figure().subplots(), field, grid, "", 0, 1)
            west, end, *_ = image.get_extent()
            assert west + (image.get_array()[0].argmax() + 0.5) * (end - west) / 12 == pytest.approx(east)
        shown = ColumnDataSource({"spike": [as_bytes(field[np.ix_(rows, columns)], 1, 0)]})
        style = MapStyle("", "spike", Viridis256, 1.0, 1.0, "", 0)
        view = view_of(np.isfinite(field[np.ix_(rows, columns)]), *points)
        (on,) = map_panels(shown, {"spike": style}, *points, (), view)
        assert any(at == pytest.approx(east) for at in positions(on, shown.data["spike"][0][0].argmax(), columns.size))


def positions(on, column, columns):
    """The longitudes inside the range of a map at which it draws the middle of a column."""
    glyphs = [each.glyph for each in on.renderers if each.glyph.__class__.__name__ == "Image"]
    drawn = [glyph.x + (column + 0.5) * glyph.dw / columns for glyph in glyphs]
    return [at for at in drawn if on.x_range.start <= at <= on.x_range.end]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("west", "width"), [(-30, 80), (140, 90), (170, 20), (-180, 40), (100, 80)])
@pytest.mark.parametrize(("south", "north"), [(30, 70), (-90, -60), (0, 0)])
def test_a_map_of_a_region_shows_it_whole_and_little_else(stride, west, width, south, north):
    """A regional forecast was a patch on an empty map of the globe, cut in two at 180 degrees."""
    grid = Grid(np.linspace(90, -90, 37), np.arange(0, 360, 5.0))
    rows, columns = on_map(stride, grid.shape, grid.longitude)
    points = grid.latitude[rows], rising(grid.longitude[columns])
    east_of_west = (grid.longitude - west) % 360
    known = np.outer((grid.latitude >= south) & (grid.latitude <= north), east_of_west <= width)[np.ix_(rows, columns)]
    view = view_of(known, *points)
    assert view.east - view.west == pytest.approx(2 * (view.north - view.south))
    assert view.east - view.west <= max(width + 10, 2 * (north - south + 10))
    assert view.south >= -90
    assert view.north <= 90
    shown, style = ColumnDataSource({"x": [known.astype(np.uint8)[::-1]]}), MapStyle("", "x", Viridis256, 1.0, 1.0, "", 0)
    (on,) = map_panels(shown, {"x": style}, *points, (), view)
    for row, column in np.argwhere(known):
        longitude = grid.longitude[columns[column]]
        (at,) = positions(on, column, columns.size)
        assert (at - longitude) % 360 == pytest.approx(0)
        assert view.eastward((longitude + 180) % 360 - 180) == pytest.approx(at)
        assert view.south <= grid.latitude[rows[row]] <= view.north
    for ticks, low, high in zip(view.ticks, (view.west, view.south), (view.east, view.north), strict=True):
        assert 2 <= sum(low <= at <= high for at in ticks) <= 6
    assert all(
        label == f"{abs((at + 180) % 360 - 180)}°{'' if at % 180 == 0 else 'EW'[(at + 180) % 360 < 180]}"
        for at, label in view.ticks[0].items()
    )


def test_a_map_of_the_globe_has_greenwich_in_the_middle():
    """Also of values with gaps, and of none."""
    grid = Grid.regular("36x18")
    rows, columns = on_map(1, grid.shape, grid.longitude)
    gaps = np.ones(grid.shape, dtype=bool)
    gaps[:, :9] = gaps[5:] = False
    for known in (np.ones(grid.shape, dtype=bool), np.zeros(grid.shape, dtype=bool), gaps):
        assert view_of(known, grid.latitude[rows], rising(grid.longitude[columns])) == (-185, 175, -90, 90)


@pytest.mark.parametrize("longitude", [np.arange(-100.0, 171, 5), np.arange(170.0, 441, 5), np.arange(-30.0, 61, 5), np.array([5.0])])
def test_a_map_of_a_region_that_is_too_large_is_that_of_the_globe(longitude):
    """It began where the region begins, so that one of Africa was at the edge of an empty map."""
    latitude = np.arange(60.0, -61, -5)
    assert view_of(np.ones((latitude.size, longitude.size), dtype=bool), latitude, longitude) == (-182.5, 177.5, -90, 90)


def test_maps_show_truth_mean_spread_and_members():
    grid = Grid.regular("8x4")
    members, truth = np.random.default_rng(0).normal(0, 6, (2, 2, *grid.shape)), np.full((2, *grid.shape), 3.0)
    speeds = np.hypot(members[:, 0], members[:, 1])
    images = {axis.get_title(): axis.images[0] for axis in forecast_maps(members, truth, grid, "x", (), WIND).axes if axis.images}
    shown = {title: image.get_array() for title, image in images.items()}
    assert list(shown) == ["truth", "mean of the members", "spread of the members", "member 0", "member 1"]
    np.testing.assert_allclose(shown["truth"], np.sqrt(18))
    np.testing.assert_allclose(np.roll(shown["mean of the members"], 4, axis=1), speeds.mean(axis=0))
    from_greenwich = {title: np.roll(field, 4, axis=1) for title, field in shown.items()}
    np.testing.assert_allclose(from_greenwich["spread of the members"], np.abs(speeds[0] - speeds[1]) / np.sqrt(2))
    np.testing.assert_allclose(from_greenwich["member 1"], speeds[1])
    spread = images.pop("spread of the members")
    assert (spread.get_clim(), spread.get_cmap().name) == ((0, shown["spread of the members"].max()), "magma")
    for image in images.values():  # they share one colour bar
        assert (image.get_clim(), image.get_cmap().name) == ((0, pytest.approx(np.sqrt(18))), "viridis")
    assert "truth" not in {axis.get_title() for axis in forecast_maps(members, None, grid, "x", (), WIND).axes}
    alone = {axis.get_title(): axis.images[0] for axis in forecast_maps(members[:1], truth, grid, "x", (), WIND).axes if axis.images}
    assert list(alone) == ["truth", "mean of the members", "spread of the members", "member 0"]
    assert (alone["spread of the members"].get_array() == 0).all()
