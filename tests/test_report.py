"""The report: what is in it, and what it does in a real browser."""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from wsdcast.data.grid import Grid
from wsdcast.data.store.forecasts import QUANTILES
from wsdcast.data.store.zarr_store import SPEED, VARIABLES
from wsdcast.report.coastlines import coastlines
from wsdcast.report.page import write_report
from wsdcast.report.shown_fields import NONE, PLUME, as_bytes, choose, unit_of, units_of
from wsdcast.verification.metrics import BOTH, PROBABILITIES, THRESHOLDS, VECTOR
from wsdcast.verification.regions import REGIONS

LIMIT = 5_000_000
FACTS = {"recipe": "tiny", "hash": "0123456789abcdef", "model": "warm", "data": "planet", "grid": "16x8", "starts": "2", "members": "5"}
NAMES = ("wsdcast", "moments alone", "persistence", "climatology")


def some_scores(grid: Grid, starts: int, leads: int, names: tuple[str, ...] = NAMES, members: int = 5) -> xr.Dataset:
    """Any numbers in the shape of ``scores.nc``."""
    random = np.random.default_rng(1)
    time = np.datetime64("2020-01-01T06", "ns") + np.timedelta64(12, "h") * np.arange(starts)
    axes = {
        "forecast": list(names),
        "prediction_timedelta": np.timedelta64(6, "h").astype("timedelta64[ns]") * np.arange(1, leads + 1),
        "variable": [*VARIABLES, SPEED, BOTH, VECTOR],
        "region": list(REGIONS),
        "rank": np.arange(members + 1),
        "wavenumber": np.arange(grid.longitude.size // 2 + 1),
        "threshold": list(THRESHOLDS),
        "probability": PROBABILITIES,
        "of": ["area", "forecast", "observed"],
        "reference": list(names[1:]),
        "bound": ["low", "high"],
    }

    def values(*dims: str) -> xr.DataArray:
        return xr.DataArray(random.uniform(0.5, 1.5, [len(axes[name]) for name in dims]), {name: axes[name] for name in dims}, dims)

    by = ("forecast", "prediction_timedelta", "variable", "region")
    found = {name: values(*by) for name in ("crps_fair", "crps_standard", "rmse", "spread_skill")}
    found |= {"energy_score": values("forecast", "prediction_timedelta", "region"), "power_deviation": values(*by[:3])}
    found |= {"crps_fair_skill": values(*by, "reference"), "energy_score_skill": values(*by[:2], "region", "reference")}
    bounds = xr.DataArray([-0.1, 0.1], {"bound": axes["bound"]})
    found |= {f"{name}_interval": field + bounds for name, field in found.items() if name != "power_deviation"}
    found["rank_histogram"] = values(*by, "rank") / (members + 1)
    found["reliability"] = values(*by[:2], "region", "threshold", "probability", "of") / 20
    found["power_ratio"] = values(*by[:3], "wavenumber")
    return xr.Dataset(found).assign_coords(time=time)


def some_fields(grid: Grid, leads: int, members: int = 5) -> Callable[[int], tuple[Any, Any]]:
    """Any wind, another for each start."""

    def fields(start: int) -> tuple[Any, Any]:
        random = np.random.default_rng(start)
        wind = random.normal(0, 6, (members + 1, leads, 2, *grid.shape)).astype(np.float32)
        return wind[1:], wind[0]

    return fields


def written(path: Path, scores: xr.Dataset, grid: Grid, fields: Any, *, on_earth: bool = True, **changes: Any) -> str:
    text = {"title": "Forecast: tiny", "facts": FACTS, "recipe": "name: tiny\n"} | changes
    write_report(path, scores, grid, fields, text["title"], text["facts"], text["recipe"], on_earth=on_earth)
    return path.read_text()


def embedded(page: str) -> dict[str, Any]:
    """What is in the figures: of each model with a name its attributes."""
    (text,) = re.findall(r"const docs_json = '(.*)';", page)
    (document,) = json.loads(html.unescape(text.replace("\\\\", "\\"))).values()
    found: dict[str, Any] = {}

    def visit(value: Any) -> Any:
        if isinstance(value, list):
            return [visit(each) for each in value]
        if not isinstance(value, dict):
            return value
        if value.get("type") == "ndarray":
            order = {"little": "<", "big": ">"}[value["order"]]
            packed = base64.b64decode(value["array"]["data"])
            array = np.frombuffer(
                gzip.decompress(packed) if packed.startswith(b"\x1f\x8b") else packed, np.dtype(value["dtype"]).newbyteorder(order)
            )
            return array.reshape(value["shape"])
        if value.get("type") == "map":
            return {key: visit(each) for key, each in value["entries"]}
        inside = {key: visit(each) for key, each in value.items()}
        if "attributes" in inside:
            found.setdefault(inside["attributes"].get("name") or inside["name"], []).append(inside["attributes"])
        return inside

    visit(document)
    return found


@pytest.fixture(scope="module")
def grid() -> Grid:
    return Grid.regular("16x8")


@pytest.fixture(scope="module")
def page(grid, tmp_path_factory) -> str:
    return written(tmp_path_factory.mktemp("report") / "report.html", some_scores(grid, 2, 3), grid, some_fields(grid, 3))


def test_it_has_everything_and_asks_for_nothing(page):
    for words in (*FACTS, *FACTS.values(), *NAMES, "Forecast: tiny", "name: tiny", "tropics", "CRPS", "m/s"):
        assert words in page, words
    assert "default-src 'none'" in page  # whatever its scripts try
    assert not re.search(r'<[^>]* (src|href)="?(?!data:)|@import', page.split("<script")[0])
    assert len(page) < LIMIT


def test_tables_have_the_scores_and_their_intervals(page, grid):
    scores = some_scores(grid, 2, 3)
    both = scores.sel(variable=BOTH, region="globe")
    for name in NAMES:
        for lead in range(3):
            here = both.sel(forecast=name).isel(prediction_timedelta=lead)
            low, high = here["crps_fair_interval"].values
            assert f"<td>{here['crps_fair']:.3f} [{low:.3f}, {high:.3f}]</td>" in page
    europe = scores.sel(forecast="wsdcast", region="Europe", variable=SPEED, reference="climatology").isel(prediction_timedelta=-1)
    low, high = 100 * europe["crps_fair_skill_interval"].values
    assert f"<td>{europe['crps_fair']:.3f}\n{100 * europe['crps_fair_skill']:.0f} % [{low:.0f}, {high:.0f}]</td>" in page


def test_curves_are_the_scores(page, grid):
    curves = [each["data"] for each in embedded(page)["ColumnDataSource"] if {"x", "y", "low"} <= set(each["data"])]
    both = some_scores(grid, 2, 3).sel(variable=BOTH, region="globe")
    expected = [both[metric].sel(forecast=name) for metric in ("crps_fair", "rmse", "spread_skill") for name in NAMES]
    for curve, metric in zip(curves, expected, strict=True):
        np.testing.assert_array_equal(curve["y"], metric)
        np.testing.assert_array_equal(curve["x"], [0.25, 0.5, 0.75])
        np.testing.assert_allclose(curve["high"], metric + 0.1)
    low, high = both["rmse_interval"].sel(forecast="persistence").isel(prediction_timedelta=2).values
    assert f"18 h\nwsdcast: {expected[4].values[2]:.3f} m/s" in curves[4]["said"][2]
    assert f"persistence: {expected[6].values[2]:.3f} m/s [{low:.3f}, {high:.3f}]" in curves[4]["said"][2]


def test_maps_and_plumes_are_the_fields(page, grid):
    found = embedded(page)
    library, bytes_of = found["library"][0]["data"], {}
    units = [each["args"]["unit"] for each in found["CustomJSHover"][: len(library)]]  # of the first map, one for each field
    (plume,) = [each["args"] for each in found["CustomJS"] if "bytes" in each["args"]]
    fields, speed = some_fields(grid, 3), lambda wind: np.hypot(wind[..., 0, :, :], wind[..., 1, :, :])
    for start in range(2):
        members, truth = (speed(wind) for wind in fields(start))
        bytes_of = {"truth": truth, "mean": members.mean(axis=0), "spread": members.std(axis=0, ddof=1), "member2": members[1]}
        for name, expected in bytes_of.items():
            shown = np.stack(library[name])[3 * start : 3 * start + 3, ::-1]  # from the south
            unit = units[list(library).index(name)]
            np.testing.assert_allclose(shown * unit, expected, atol=0.51 * unit)
        series = plume["bytes"].reshape(2, 8, 16, len(PLUME), 3)[start] * plume["unit"]  # at every point of so small a grid
        expected = np.concatenate([truth[None], np.quantile(members, QUANTILES, axis=0)])
        np.testing.assert_allclose(series, expected.transpose(2, 3, 0, 1), atol=0.51 * plume["unit"])


@pytest.mark.parametrize(("name", "starts", "leads"), [("64x32", 12, 12), ("240x121", 2, 60)])
def test_it_stays_small(name, starts, leads, tmp_path):
    grid = Grid.regular(name)
    text = written(tmp_path / "report.html", some_scores(grid, starts, leads), grid, some_fields(grid, leads, members=2))
    assert 3_500_000 < len(text) < LIMIT
    assert ("To keep the page small, the maps show" in text) == (name == "240x121")


@pytest.mark.parametrize(
    ("name", "starts", "leads"), [("16x8", 1, 1), ("16x8", 500, 60), ("64x32", 12, 12), ("240x121", 12, 40), ("1440x721", 700, 1)]
)
def test_what_is_chosen_fits(name, starts, leads):
    grid = Grid.regular(name)
    chosen = choose(starts, leads, grid)
    shown = chosen.starts.size * chosen.leads.size
    assert 6 * shown * (chosen.rows.size * chosen.columns.size + 80) <= 1_900_000
    assert 6 * shown * chosen.plume_rows.size * chosen.plume_columns.size <= 450_000
    assert chosen.leads[-1] == leads - 1
    assert np.unique(np.diff(chosen.leads)).size <= 1
    assert chosen.starts[0] == 0
    assert np.unique(chosen.starts).size == chosen.starts.size
    # Rows as far from the one pole as from the other, to one row.
    assert abs(chosen.rows[0] - (grid.latitude.size - 1 - chosen.rows[-1])) <= 1
    if (name, starts) == ("64x32", 12):
        assert shown == 144
        assert chosen.rows.size == 32


def test_bytes_hold_speeds():
    speeds = np.array([0, 1.26, np.nan, 25.4, np.inf])
    unit = unit_of(speeds)
    assert unit == pytest.approx(0.1)
    np.testing.assert_array_equal(as_bytes(speeds, unit), [0, 13, NONE, 254, NONE])
    assert unit_of(np.array([np.nan])) == unit_of(np.zeros(3)) == 1
    maps = {"truth": np.full(2, np.nan), "mean": np.array([12.7, 3]), "spread": np.array([2.54, 1]), "member1": np.array([25.4, 2])}
    assert units_of(maps) == pytest.approx({"truth": 0.1, "mean": 0.1, "member1": 0.1, "spread": 0.01})


def test_stopped_members_and_missing_truth_are_not_shown(grid, tmp_path):
    def fields(start: int) -> tuple[Any, Any]:
        members, truth = some_fields(grid, 2)(start)
        members[0, 1] = np.nan  # stopped at the second lead time: it does not count at the first
        if start:
            members[:] = np.nan
        truth[1] = np.nan
        return members, truth

    library = embedded(written(tmp_path / "report.html", some_scores(grid, 2, 2), grid, fields))["library"][0]["data"]
    members, _ = some_fields(grid, 2)(0)
    for lead in range(2):
        expected = np.hypot(members[1:, lead, 0], members[1:, lead, 1]).mean(axis=0)
        assert np.corrcoef(library["mean"][lead][::-1].ravel(), expected.ravel())[0, 1] > 0.999
    for name, images in library.items():
        assert [bool((image == NONE).all()) for image in images] == [False, name == "truth", name != "truth", True], name
        assert all((image == NONE).all() or (image != NONE).all() for image in images)


def test_what_scores_lack_is_said(grid, tmp_path):
    scores = some_scores(grid, 1, 1, ("somebody's",))
    bare = scores[["crps_fair", "rmse", "spread_skill"]]
    bare["rank_histogram"] = scores["rank_histogram"] * np.nan
    bare["spread_skill"] = bare["spread_skill"] * np.nan
    page = written(tmp_path / "report.html", bare, grid, None)
    for lacking in ("rank histogram", "reliability", "spectra"):
        assert f"These scores have no {lacking}" in page
    assert "No maps" in page
    assert "nan" not in page.split("<script")[0]
    value = float(bare["crps_fair"].sel(variable=BOTH, region="globe").squeeze())
    assert f"<td>{value:.3f}</td>" in page


@pytest.mark.parametrize("members", [1, 2])
def test_one_start_one_lead_and_few_members(members, grid, tmp_path):
    page = written(tmp_path / "report.html", some_scores(grid, 1, 1, members=members), grid, some_fields(grid, 1, members))
    library = embedded(page)["library"][0]["data"]
    assert list(library) == (["truth", "mean"] if members == 1 else ["truth", "mean", "spread", "member1", "member2"])


def test_words_of_others_are_text(grid, tmp_path):
    bad = "</script><script>alert('1')</script>\"&"
    scores = some_scores(grid, 2, 1, (bad, f"{bad}2"))
    page = written(tmp_path / "report.html", scores, grid, some_fields(grid, 1), title=bad, facts={bad: bad}, recipe=bad)
    assert "<script>alert" not in page
    assert page.count(html.escape(bad)) >= 5


def test_coastlines():
    lines = coastlines()
    points = np.concatenate(lines)
    assert points[:, 0].min() == 0
    assert points[:, 0].max() == 360
    assert np.abs(points[:, 1]).max() < 90
    assert max(np.abs(np.diff(line, axis=0)).max() for line in lines) < 15  # none across the map
    capes = {"Agulhas": (20.0, -34.8), "Horn": (292.7, -55.6), "Vert": (342.5, 14.7), "Byron": (153.6, -28.6), "North Cape": (25.8, 71.1)}
    for name, cape in capes.items():
        assert np.hypot(*(points - cape).T).min() < 1.5, name
    # What ends at the one edge goes on at the other.
    ends = np.concatenate([line[[0, -1]] for line in lines])
    west, east = (np.sort(ends[ends[:, 0] == edge, 1]) for edge in (0, 360))
    np.testing.assert_allclose(west, east)
    assert west.size >= 4


# In a browser.

CHROMIUM = shutil.which("chromium")
WITHOUT_CHROMIUM = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


def in_chromium(test):
    """Mark a test that a browser takes part in."""
    return pytest.mark.slow(WITHOUT_CHROMIUM(test))


PHONE, SCREEN, A4 = {"width": 390, "height": 844}, {"width": 1200, "height": 900}, {"width": 703, "height": 1000}
MODEL = "Bokeh.documents[0].get_model_by_name('{}')"


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def report(grid, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("browser") / "report.html"
    bad = "others' <img src=x onerror=alert(1)>"
    written(path, some_scores(grid, 2, 3, (*NAMES, bad)), grid, some_fields(grid, 3), facts=FACTS | {"also": bad})
    return path


@pytest.fixture
def opened(browser, report):
    """A page on which nothing goes wrong and which asks for no other file."""
    tab = browser.new_page(viewport=SCREEN)
    wrong, asked = [], []
    tab.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    tab.goto(report.as_uri())
    tab.wait_for_function("window.Bokeh && Bokeh.documents.length == 1 && Bokeh.documents[0].is_idle")
    yield tab
    tab.wait_for_timeout(100)
    assert wrong == []
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [report.as_uri()]
    tab.close()


def image(tab, name: str) -> np.ndarray:
    """The bytes of a map as it is shown."""
    return np.array(tab.evaluate(f"Array.from({MODEL.format('maps')}.data['{name}'][0])"))


def point_at(tab, figure: int, x: float, y: float) -> tuple[float, float]:
    """Where on the screen a part of a figure is, by number of the figure."""
    on = tab.locator(".bk-Figure").nth(figure)
    on.scroll_into_view_if_needed()
    box = on.bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


@in_chromium
def test_slider_and_selector_move_the_maps(opened, report):
    library = embedded(report.read_text())["library"][0]["data"]
    maps = opened.locator(".bk-Figure").nth(3)
    for lead in (1, 2):
        for name, fields in library.items():
            np.testing.assert_array_equal(image(opened, name), fields[lead].ravel())
        before = maps.screenshot()
        opened.locator(".noUi-handle").press("ArrowRight")
        opened.wait_for_timeout(200)
        assert (maps.screenshot() != before) == (lead == 1)  # the second time there is no further lead time
    assert "2020-01-02 00 UTC" in opened.evaluate("Bokeh.documents[0].all_models.size > 0 && " + TITLES)
    before = maps.screenshot()
    opened.locator("select").select_option("2020-01-01 18 UTC")
    opened.wait_for_timeout(200)
    assert maps.screenshot() != before
    for name, fields in library.items():
        np.testing.assert_array_equal(image(opened, name), fields[5].ravel())
    assert "2020-01-02 12 UTC" in opened.evaluate(TITLES)


TITLES = "[...Bokeh.documents[0].all_models].map(model => model.type == 'Title' ? model.text : '').join('; ')"


@in_chromium
def test_plume_is_of_the_place_chosen(opened, grid):
    series = f"Object.fromEntries(Object.entries({MODEL.format('plume')}.data).map(([name, values]) => [name, Array.from(values)]))"
    opened.locator("select").select_option("2020-01-01 18 UTC")
    for figure in (3, 7):  # the truth, a member
        opened.mouse.click(*point_at(opened, figure, 0.3 + 0.05 * figure, 0.4))
        opened.wait_for_timeout(200)
        place = opened.evaluate(f"{MODEL.format('place')}.data")
        row, column = np.abs(grid.latitude - place["y"][0]).argmin(), np.abs(grid.longitude - place["x"][0]).argmin()
        assert (grid.latitude[row], grid.longitude[column]) == (place["y"][0], place["x"][0])
        assert 60 < place["x"][0] < 300
        assert 0 < place["y"][0] < 60
        shown = opened.evaluate(series)
        members, truth = some_fields(grid, 3)(1)
        np.testing.assert_allclose(shown["truth"], np.hypot(truth[:, 0], truth[:, 1])[:, row, column], atol=0.1)
        median = np.median(np.hypot(members[:, :, 0], members[:, :, 1]), axis=0)[:, row, column]
        np.testing.assert_allclose(shown["q50"], median, atol=0.1)
        assert f"{place['y'][0]:.6g}°N" in opened.evaluate(TITLES)


@in_chromium
def test_what_is_under_the_pointer_is_said(opened, grid):
    scores = some_scores(grid, 2, 3).sel(variable=BOTH, region="globe")

    def said(figure: int, x: float, y: float) -> str:
        opened.mouse.move(0, 0)
        across, down = point_at(opened, figure, x, y)
        opened.mouse.move(across - 3, down)
        opened.mouse.move(across, down)
        opened.wait_for_timeout(300)
        return "\n".join(opened.locator(".bk-tooltip-content").all_inner_texts())

    curve = said(0, 0.55, 0.4)
    here = scores.isel(prediction_timedelta=1)
    assert "12 h" in curve
    assert "<img src=x onerror" in curve  # the name as it is, not an image
    for number, name in enumerate(NAMES[:1]):
        value, (low, high) = here["crps_fair"].values[number], here["crps_fair_interval"].sel(forecast=name).values
        assert f"{name}: {value:.3f} m/s [{low:.3f}, {high:.3f}]" in curve
    members, truth = (np.hypot(wind[..., 1, 0, :, :], wind[..., 1, 1, :, :]) for wind in some_fields(grid, 3)(0))  # at 12 h
    for x, y in ((0.3, 0.25), (0.6, 0.25), (0.6, 0.55)):
        numbers = r"longitude:\s+(.+)°, (.+)°\s+truth:\s+(.+) m/s\s+mean:\s+(.+) m/s\s+spread"
        latitude, longitude, *speeds = map(float, re.search(numbers, said(3, x, y)).groups())
        assert latitude * (0.4 - y) > 0  # north is up
        at = np.abs(grid.latitude - latitude).argmin(), np.abs(grid.longitude - longitude).argmin()
        np.testing.assert_allclose(speeds, [truth[at], members.mean(axis=0)[at]], atol=0.15)
    assert re.search(r"median:\s+\d+\.\d m/s", said(9, 0.5, 0.5))
    assert re.search(r"u: \d\.\d\d", said(10, 0.5, 0.5))
    assert re.search(r"members / truth: \d\.\d\d", said(17, 0.5, 0.5))


@in_chromium
def test_it_fits_a_phone_and_paper(opened, tmp_path):
    ends = "[...document.querySelectorAll('.row > div, .controls, p, pre{}')].map(box => box.getBoundingClientRect().right)"
    for size, medium in ((SCREEN, "screen"), (PHONE, "screen"), (A4, "print")):
        opened.emulate_media(media=medium)
        opened.set_viewport_size(size)
        opened.wait_for_timeout(500)
        assert max(opened.evaluate(ends.format(", table" if medium == "print" else ""))) <= size["width"]  # on a screen tables scroll
        canvas = opened.locator(".bk-Figure").nth(3).bounding_box()
        assert size["width"] / 4 < canvas["width"] < size["width"]
        if medium == "screen":
            assert opened.evaluate("document.documentElement.scrollWidth") == size["width"]
    opened.emulate_media(media="null")  # as it is printed, not as told
    opened.set_viewport_size(SCREEN)
    opened.wait_for_timeout(300)
    opened.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    paper = (tmp_path / "report.pdf").read_bytes()
    assert re.search(rb"/MediaBox \[0 0 59[456]\S* 84[123]", paper)
    assert 2 <= len(re.findall(rb"/Type /Page\b", paper)) <= 8
