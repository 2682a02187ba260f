"""The report in a real browser: its controls, its tooltips, and its size on a screen, a phone and paper."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from report_pages import CHROMIUM, FACTS, GRID, NAMES, column_at, embedded, in_chromium, random_fields, random_scores, written

from wsdcast.verification.metrics import BOTH

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
def report(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("browser") / "report.html"
    bad = "others' <img src=x onerror=alert(1)>"
    written(path, random_scores(GRID, 2, 3, (*NAMES, bad)), GRID, random_fields(GRID, 3), facts=FACTS | {"also": bad})
    return path


@pytest.fixture
def opened(browser, report):
    """Return the opened page. At the end check that there were no errors, and that it loaded no other file."""
    tab = browser.new_page(viewport=SCREEN)
    errors, requested = [], []
    tab.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("request", lambda request: requested.append(request.url))
    tab.on("dialog", lambda dialog: (errors.append(dialog.message), dialog.dismiss()))
    tab.goto(report.as_uri())
    tab.wait_for_function("window.Bokeh && Bokeh.documents.length == 1 && Bokeh.documents[0].is_idle")
    yield tab
    tab.wait_for_timeout(100)
    assert errors == []
    assert [url for url in requested if not url.startswith(("data:", "blob:"))] == [report.as_uri()]
    tab.close()


def image(tab, name: str) -> np.ndarray:
    """Return the bytes of a map as the page shows it."""
    return np.array(tab.evaluate(f"Array.from({MODEL.format('maps')}.data['{name}'][0])"))


def point_at(tab, figure: int, x: float, y: float) -> tuple[float, float]:
    """Return the position on the screen of a point of a figure, which is given in shares of its width and height."""
    located = tab.locator(".bk-Figure").nth(figure)
    located.scroll_into_view_if_needed()
    box = located.bounding_box()
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
def test_the_plume_is_that_of_the_clicked_place(opened):
    series = f"Object.fromEntries(Object.entries({MODEL.format('plume')}.data).map(([name, values]) => [name, Array.from(values)]))"
    opened.locator("select").select_option("2020-01-01 18 UTC")
    for figure in (3, 7):  # the truth, a member
        opened.mouse.click(*point_at(opened, figure, 0.3 + 0.05 * figure, 0.4))
        opened.wait_for_timeout(200)
        place = opened.evaluate(f"{MODEL.format('place')}.data")
        row, column = np.abs(GRID.latitude - place["y"][0]).argmin(), column_at(place["x"][0])
        assert (GRID.latitude[row], (GRID.longitude[column] + 180) % 360 - 180) == (place["y"][0], place["x"][0])
        assert -120 < place["x"][0] < 120
        assert 0 < place["y"][0] < 60
        shown = opened.evaluate(series)
        members, truth = random_fields(GRID, 3)(1)
        np.testing.assert_allclose(shown["truth"], np.hypot(truth[:, 0], truth[:, 1])[:, row, column], atol=0.1)
        median = np.median(np.hypot(members[:, :, 0], members[:, :, 1]), axis=0)[:, row, column]
        np.testing.assert_allclose(shown["q50"], median, atol=0.1)
        assert f"{place['y'][0]:.6g}°N" in opened.evaluate(TITLES)


@in_chromium
def test_tooltips_show_the_values_under_the_pointer(opened):
    scores = random_scores(GRID, 2, 3).sel(variable=BOTH, region="globe")

    def tooltip(figure: int, x: float, y: float) -> str:
        opened.mouse.move(0, 0)
        across, down = point_at(opened, figure, x, y)
        opened.mouse.move(across - 3, down)
        opened.mouse.move(across, down)
        opened.wait_for_timeout(300)
        return "\n".join(opened.locator(".bk-tooltip-content").all_inner_texts())

    curve = tooltip(0, 0.55, 0.4)
    at_12_hours = scores.isel(prediction_timedelta=1)
    assert "12 h" in curve
    assert "<img src=x onerror" in curve  # the name is shown as text, not as an image
    for number, name in enumerate(NAMES[:1]):
        value, (low, high) = at_12_hours["crps_fair"].values[number], at_12_hours["crps_fair_interval"].sel(forecast=name).values
        assert f"{name}: {value:.3f} m/s [{low:.3f}, {high:.3f}]" in curve
    members, truth = (np.hypot(wind[..., 1, 0, :, :], wind[..., 1, 1, :, :]) for wind in random_fields(GRID, 3)(0))  # at 12 h
    for x, y in ((0.3, 0.25), (0.6, 0.25), (0.6, 0.55)):
        numbers = r"longitude:\s+(.+)°, (.+)°\s+truth:\s+(.+) m/s\s+mean:\s+(.+) m/s\s+spread"
        latitude, longitude, *speeds = map(float, re.search(numbers, tooltip(3, x, y)).groups())
        assert latitude * (0.4 - y) > 0  # north is up
        at = np.abs(GRID.latitude - latitude).argmin(), column_at(longitude)
        np.testing.assert_allclose(speeds, [truth[at], members.mean(axis=0)[at]], atol=0.15)
    assert re.search(r"median:\s+\d+\.\d m/s", tooltip(9, 0.5, 0.5))
    assert re.search(r"u: \d\.\d\d", tooltip(10, 0.5, 0.5))
    assert re.search(r"members / truth: \d\.\d\d", tooltip(17, 0.5, 0.5))


@in_chromium
def test_the_page_fits_a_screen_a_phone_and_paper(opened, tmp_path):
    ends = "[...document.querySelectorAll('.row > div, .controls, p, pre{}')].map(box => box.getBoundingClientRect().right)"
    for size, medium in ((SCREEN, "screen"), (PHONE, "screen"), (A4, "print")):
        opened.emulate_media(media=medium)
        opened.set_viewport_size(size)
        opened.wait_for_timeout(500)
        assert max(opened.evaluate(ends.format(", table" if medium == "print" else ""))) <= size["width"]  # tables scroll on a screen
        canvas = opened.locator(".bk-Figure").nth(3).bounding_box()
        assert size["width"] / 4 < canvas["width"] < size["width"]
        if medium == "screen":
            assert opened.evaluate("document.documentElement.scrollWidth") == size["width"]
    opened.emulate_media(media="null")  # the medium is no longer emulated, so the page is printed as paper
    opened.set_viewport_size(SCREEN)
    opened.wait_for_timeout(300)
    opened.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    paper = (tmp_path / "report.pdf").read_bytes()
    assert re.search(rb"/MediaBox \[0 0 59[456]\S* 84[123]", paper)
    assert 2 <= len(re.findall(rb"/Type /Page\b", paper)) <= 8
