"""The report: its tables, curves, maps and plumes show the scores and fields, and it stays small."""

from __future__ import annotations

import html
import re
from typing import Any

import numpy as np
import pytest
from report_pages import FACTS, GRID, NAMES, embedded, from_greenwich, random_fields, random_scores, written

from wsdcast.data.grid import Grid
from wsdcast.data.store.forecasts import QUANTILES
from wsdcast.data.variables import DEFAULT, SPEED
from wsdcast.report.coastlines import coastlines
from wsdcast.report.interactive_maps import Maps, interactive_maps
from wsdcast.report.maps import columns_of_map, rising
from wsdcast.report.page import _maps
from wsdcast.report.panels import Row
from wsdcast.report.shell import write_plain_page
from wsdcast.report.shown_fields import NONE, PLUME, as_bytes, byte_unit, byte_units, choose
from wsdcast.report.subjects import WIND, subjects_of
from wsdcast.verification.metrics import BOTH

LIMIT = 5_000_000


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    return written(tmp_path_factory.mktemp("report") / "report.html", random_scores(GRID, 2, 3), GRID, random_fields(GRID, 3))


def test_the_page_is_complete_and_loads_nothing(page):
    for words in (*FACTS, *FACTS.values(), *NAMES, "Forecast: tiny", "name: tiny", "tropics", "CRPS", "m/s"):
        assert words in page, words
    assert "initial times; bands and brackets hold 95 % of bootstrap samples" in page
    assert "default-src 'none'" in page  # so its scripts cannot load anything either
    assert not re.search(r'<[^>]* (src|href)="?(?!data:)|@import', page.split("<script")[0])
    assert len(page) < LIMIT


def test_a_plain_page_may_load_nothing_and_run_no_script(tmp_path):
    write_plain_page(tmp_path / "page.html", "plain <b>", ["<p>part</p>"], "name: <x>")
    page = (tmp_path / "page.html").read_text()
    (policy,) = re.findall(r'<meta http-equiv=Content-Security-Policy content="(.*?)">', page)
    assert dict(rule.split(" ", 1) for rule in policy.split("; ")) == {
        "default-src": "'none'",
        "style-src": "'unsafe-inline'",
        "img-src": "data:",
    }
    assert page.index(policy) < page.index("<style>")  # a policy holds for what follows it
    assert "<title>wsdcast: plain &lt;b&gt;</title>" in page


def test_tables_show_the_scores_and_their_intervals(page):
    scores = random_scores(GRID, 2, 3)
    both = scores.sel(variable=BOTH, region="globe")
    for name in NAMES:
        for lead in range(3):
            row = both.sel(forecast=name).isel(prediction_timedelta=lead)
            low, high = row["crps_fair_interval"].values
            assert f"<td>{row['crps_fair']:.3f} [{low:.3f}, {high:.3f}]</td>" in page
    europe = scores.sel(forecast="wsdcast", region="Europe", variable=SPEED, reference="climatology").isel(prediction_timedelta=-1)
    low, high = 100 * europe["crps_fair_skill_interval"].values
    assert f"<td>{europe['crps_fair']:.3f}\n{100 * europe['crps_fair_skill']:.0f} % [{low:.0f}, {high:.0f}]</td>" in page


def test_curves_show_the_scores(page):
    curves = [each["data"] for each in embedded(page)["ColumnDataSource"] if {"x", "y", "low"} <= set(each["data"])]
    both = random_scores(GRID, 2, 3).sel(variable=BOTH, region="globe")
    expected = [both[metric].sel(forecast=name) for metric in ("crps_fair", "rmse", "spread_skill") for name in NAMES]
    for curve, metric in zip(curves, expected, strict=True):
        np.testing.assert_array_equal(curve["y"], metric)
        np.testing.assert_array_equal(curve["x"], [0.25, 0.5, 0.75])
        np.testing.assert_allclose(curve["high"], metric + 0.1)
    low, high = both["rmse_interval"].sel(forecast="persistence").isel(prediction_timedelta=2).values
    assert f"18 h\nwsdcast: {expected[4].values[2]:.3f} m/s" in curves[4]["said"][2]
    assert f"persistence: {expected[6].values[2]:.3f} m/s [{low:.3f}, {high:.3f}]" in curves[4]["said"][2]


def test_maps_and_plumes_show_the_fields(page):
    models = embedded(page)
    library = models["library"][0]["data"]
    units = [each["args"]["unit"] for each in models["CustomJSHover"][: len(library)]]  # those of the first map; it has one for each field
    (plume,) = [each["args"] for each in models["CustomJS"] if "bytes" in each["args"]]
    fields, speed = random_fields(GRID, 3), lambda wind: np.hypot(wind[..., 0, :, :], wind[..., 1, :, :])
    for start in range(2):
        members, truth = (speed(wind) for wind in fields(start))
        panels = {"truth": truth, "mean": members.mean(axis=0), "spread": members.std(axis=0, ddof=1), "member2": members[1]}
        for name, expected in panels.items():
            shown = from_greenwich(np.stack(library[name])[3 * start : 3 * start + 3, ::-1])  # from the south
            unit = units[list(library).index(name)]
            np.testing.assert_allclose(shown * unit, expected, atol=0.51 * unit)
        series = (
            np.roll(plume["bytes"].reshape(2, 8, 16, len(PLUME), 3)[start], 8, axis=1) * plume["unit"]
        )  # the grid is so small that every point is kept
        expected = np.concatenate([truth[None], np.quantile(members, QUANTILES, axis=0)])
        np.testing.assert_allclose(series, expected.transpose(2, 3, 0, 1), atol=0.51 * plume["unit"])


@pytest.mark.parametrize(("name", "starts", "leads"), [("64x32", 12, 12), ("240x121", 2, 60)])
def test_the_page_stays_small_on_large_grids(name, starts, leads, tmp_path):
    grid = Grid.regular(name)
    text = written(tmp_path / "report.html", random_scores(grid, starts, leads), grid, random_fields(grid, leads, members=2))
    assert 3_500_000 < len(text) < LIMIT
    assert ("To keep the page small, the maps show" in text) == (name == "240x121")


@pytest.mark.parametrize(
    ("name", "starts", "leads"), [("16x8", 1, 1), ("16x8", 500, 60), ("64x32", 12, 12), ("240x121", 12, 40), ("1440x721", 700, 1)]
)
def test_the_chosen_fields_fit_into_their_bytes(name, starts, leads):
    grid = Grid.regular(name)
    chosen = choose(starts, leads, grid, 1)
    shown = chosen.starts.size * chosen.leads.size
    assert 6 * shown * (chosen.rows.size * chosen.columns.size + 80) <= 1_900_000
    assert 6 * shown * chosen.plume_rows.size * chosen.plume_columns.size <= 450_000
    assert chosen.leads[-1] == leads - 1
    assert np.unique(np.diff(chosen.leads)).size <= 1
    assert chosen.starts[0] == 0
    assert np.unique(chosen.starts).size == chosen.starts.size
    # The first and the last row are equally far from their pole, within one row.
    assert abs(chosen.rows[0] - (grid.latitude.size - 1 - chosen.rows[-1])) <= 1
    if (name, starts) == ("64x32", 12):
        assert shown == 144
        assert chosen.rows.size == 32


def test_speeds_are_stored_in_bytes_with_their_unit():
    speeds = np.array([0, 1.26, np.nan, 25.4, np.inf])
    unit = byte_unit(speeds)
    assert unit == pytest.approx(0.1)
    np.testing.assert_array_equal(as_bytes(speeds, unit, 0.0), [0, 13, NONE, 254, NONE])
    assert byte_unit(np.array([np.nan])) == byte_unit(np.zeros(3)) == 1
    maps = {"truth": np.full(2, np.nan), "mean": np.array([12.7, 3]), "spread": np.array([2.54, 1]), "member1": np.array([25.4, 2])}
    assert byte_units(maps, 0.0) == pytest.approx({"truth": 0.1, "mean": 0.1, "member1": 0.1, "spread": 0.01})


def test_stopped_members_and_missing_truth_are_not_shown(tmp_path):
    def fields(start: int) -> tuple[Any, Any]:
        members, truth = random_fields(GRID, 2)(start)
        members[0, 1] = np.nan  # it is stopped at the second lead time, and left out at the first too
        if start:
            members[:] = np.nan
        truth[1] = np.nan
        return members, truth

    library = embedded(written(tmp_path / "report.html", random_scores(GRID, 2, 2), GRID, fields))["library"][0]["data"]
    members, _ = random_fields(GRID, 2)(0)
    for lead in range(2):
        expected = np.hypot(members[1:, lead, 0], members[1:, lead, 1]).mean(axis=0)
        assert np.corrcoef(from_greenwich(library["mean"][lead][::-1]).ravel(), expected.ravel())[0, 1] > 0.999
    for name, images in library.items():
        assert [bool((image == NONE).all()) for image in images] == [False, name == "truth", name != "truth", True], name
        assert all((image == NONE).all() or (image != NONE).all() for image in images)


def test_the_page_says_what_the_scores_lack(tmp_path):
    scores = random_scores(GRID, 1, 1, ("somebody's",))
    bare = scores[["crps_fair", "rmse", "spread_skill"]]
    bare["crps_fair_interval"] = scores["crps_fair_interval"] * np.nan
    bare["rank_histogram"] = scores["rank_histogram"] * np.nan
    bare["spread_skill"] = bare["spread_skill"] * np.nan
    page = written(tmp_path / "report.html", bare, GRID, None)
    for lacking in ("rank histogram", "reliability", "spectra"):
        assert f"These scores have no {lacking}" in page
    assert "No maps" in page
    assert "bands and brackets" not in page  # as for one initial time
    assert "nan" not in page.split("<script")[0]
    value = float(bare["crps_fair"].sel(variable=BOTH, region="globe").squeeze())
    assert f"<td>{value:.3f}</td>" in page


@pytest.mark.parametrize("members", [1, 2])
def test_few_members_have_fewer_maps(members, tmp_path):
    page = written(tmp_path / "report.html", random_scores(GRID, 1, 1, members=members), GRID, random_fields(GRID, 1, members))
    library = embedded(page)["library"][0]["data"]
    assert list(library) == (["truth", "mean"] if members == 1 else ["truth", "mean", "spread", "member1", "member2"])


@pytest.mark.parametrize(("members", "bands"), [(1, set()), (2, {"q10", "q25"})])
def test_a_page_speaks_of_bands_only_with_several_members(members, bands, tmp_path):
    page = written(tmp_path / "report.html", random_scores(GRID, 1, 3, members=members), GRID, random_fields(GRID, 3, members))
    assert {area["y1"]["field"] for area in embedded(page)["VArea"]} - {"low"} == bands
    for words in ("dark band", "half of the members", "80 % of the members", "median of the members"):
        assert (words in page) == bool(bands), words
    assert ("the only member" in page) == (not bands)


def test_one_lead_time_has_bands_as_wide_lines(tmp_path):
    """Bokeh does not draw an area with one point on either side."""
    page = written(tmp_path / "report.html", random_scores(GRID, 1, 1), GRID, random_fields(GRID, 1))
    bands = {(segment["y0"]["field"], segment["y1"]["field"]) for segment in embedded(page)["Segment"]}
    assert bands == {("q10", "q90"), ("q25", "q75")}


def test_names_from_outside_are_escaped(tmp_path):
    bad = "</script><script>alert('1')</script>\"&"
    scores = random_scores(GRID, 2, 1, (bad, f"{bad}2"))
    page = written(tmp_path / "report.html", scores, GRID, random_fields(GRID, 1), title=bad, facts={bad: bad}, recipe=bad)
    assert "<script>alert" not in page
    assert page.count(html.escape(bad)) >= 5


def test_coastlines_pass_known_capes_and_continue_across_the_edge():
    lines = coastlines()
    points = np.concatenate(lines)
    assert points[:, 0].min() == -180
    assert points[:, 0].max() == 180
    assert np.abs(points[:, 1]).max() < 90
    assert max(np.abs(np.diff(line, axis=0)).max() for line in lines) < 15  # no line crosses the map
    capes = {"Agulhas": (20.0, -34.8), "Horn": (-67.3, -55.6), "Vert": (-17.5, 14.7), "Byron": (153.6, -28.6), "North Cape": (25.8, 71.1)}
    for name, cape in capes.items():
        assert np.hypot(*(points - cape).T).min() < 1.5, name
    # A line that ends at one edge of the map continues at the other edge.
    ends = np.concatenate([line[[0, -1]] for line in lines])
    west, east = (np.sort(ends[np.abs(ends[:, 0] - edge) < 0.011, 1]) for edge in (-180, 180))
    np.testing.assert_allclose(west, east, atol=0.011)  # the rounding of the file
    assert west.size >= 4


def test_maps_of_a_region_show_the_truth_of_that_region_alone():
    """The colour scale was that of the whole globe's truth, and the place was marked beside the map."""
    truth = np.random.default_rng(0).normal(0, 5, (3, 2, *GRID.shape))
    inside = np.zeros(GRID.shape, dtype=bool)
    inside[1:3, np.abs(GRID.longitude - 180) < 60] = True
    members = np.where(inside, truth, np.nan)[None].repeat(3, axis=0)
    truth[..., ~inside] = 1000.0
    (maps,) = interactive_maps(random_scores(GRID, 2, 3), GRID, lambda _: (members, truth), False, [WIND], DEFAULT)
    on = maps.maps.figures[0]
    shown, place = (next(each.data_source.data for each in on.renderers if name in each.data_source.data) for name in ("truth", "point"))
    assert ((shown["truth"][0] == NONE) == ~inside[::-1][:, columns_of_map(GRID.longitude)]).all()
    assert on.x_range.start < place["x"][0] < on.x_range.end
    (bar,) = (each for each in on.below if hasattr(each, "color_mapper"))
    assert bar.color_mapper.high < 50


@pytest.mark.parametrize(
    ("name", "words"), [("geopotential@500", "Geopotential at 500 hPa, shown as height (gpm)"), ("2m_temperature", "2 m air temperature")]
)
def test_maps_are_named_as_the_selector_and_the_scores_are(name, words):
    """The selector had a geopotential, and its maps a geopotential height."""
    (of,) = subjects_of([name])
    parts = _maps(Maps([], Row([], {}), Row([], {}), ""), of)
    assert f"<p class=note>{words}. Choose a place" in "".join(part for part in parts if isinstance(part, str))
    assert words.lower().startswith(of.label.lower())


@pytest.mark.parametrize(("west", "width"), [(350, 50), (170, 50), (0, 360), (20, 340)])
def test_points_of_a_region_are_chosen_in_its_bounds(west, width):
    """They were chosen on the globe, so that few were in the region, and coarse."""
    grid = Grid.regular("360x181")
    inside = np.zeros(grid.shape, dtype=bool)
    inside[20:60] = (grid.longitude - west) % 360 < width
    inside[20, west] = inside[40, (west + 7) % 360] = False  # masked
    chosen, on_globe = choose(10, 20, grid, 1, inside), choose(10, 20, grid, 1)
    for rows, columns in ((chosen.rows, chosen.columns), (chosen.plume_rows, chosen.plume_columns)):
        stride, degrees = np.diff(rows)[0], rising(grid.longitude[columns])
        assert set(np.diff(rows)) == set(np.diff(degrees)) == {stride}
        assert rows[0] >= 20
        assert rows[-1] < 60
        assert ((grid.longitude[columns] - west) % 360 < width).all()
        assert rows.size == pytest.approx(40 / stride, abs=1)
        assert columns.size == pytest.approx(width / stride, abs=1)
        assert (grid.longitude[columns[0]] == west) or (width == 360 and degrees[0] == -180)
    assert np.diff(chosen.plume_rows)[0] < np.diff(on_globe.plume_rows)[0]
    if width == 50:
        assert chosen.rows.size * chosen.columns.size == 40 * 50
        assert chosen.plume_rows.size * chosen.plume_columns.size > 0.25 * on_globe.plume_rows.size * on_globe.plume_columns.size
