"""The page of a forecast in a real browser: its controls with pointer and keyboard, and its size on a screen and a phone."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import test_forecast_page_regions as regions
import test_forecast_page_variables as several
from forecast_pages import GRID, LEADS, START, speeds_of, wind_of, written
from report_pages import CHROMIUM, column_at, embedded, from_greenwich, in_chromium

import wsdcast
from wsdcast.data.store.forecasts import QUANTILES
from wsdcast.report import shown_products
from wsdcast.report.forecast_page import write_forecast_page

SCREEN, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 812}
MODEL = "Bokeh.documents[0].get_model_by_name('{}')"
TITLES = "[...Bokeh.documents[0].all_models].map(model => model.type == 'Title' ? model.text : '').join('; ')"
SPEED = speeds_of(wind_of())
OPTIONS = {10.8: "10.8 m/s (Beaufort 6)", 17.2: "17.2 m/s (Beaufort 8)", 24.5: "24.5 m/s (Beaufort 10)"}


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("browser") / "forecast.html"
    written(path)
    return path


@pytest.fixture(params=[SCREEN, PHONE], ids=["screen", "phone"])
def opened(browser, path, request):
    """Return the opened page. At the end check that there were no errors, and that it loaded no other file."""
    tab = browser.new_page(viewport=request.param)
    errors, requested = [], []
    tab.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("request", lambda request: requested.append(request.url))
    tab.on("dialog", lambda dialog: (errors.append(dialog.message), dialog.dismiss()))
    tab.goto(path.as_uri())
    tab.wait_for_function("window.Bokeh && Bokeh.documents.length == 1 && Bokeh.documents[0].is_idle")
    yield tab
    tab.wait_for_timeout(100)
    assert errors == []
    assert [url for url in requested if not url.startswith(("data:", "blob:"))] == [path.as_uri()]
    tab.close()


def image(tab, name: str) -> np.ndarray:
    """Return the bytes of a map that the page shows, from north to south and from 0 eastward."""
    shown = np.array(tab.evaluate(f"Array.from({MODEL.format('maps')}.data['{name}'][0])"))
    return from_greenwich(shown.reshape(GRID.shape)[::-1])


def chosen(tab) -> tuple[int, int]:
    """Return row and column of the chosen place."""
    place = tab.evaluate(f"{MODEL.format('place')}.data")
    row, column = np.abs(GRID.latitude - place["y"][0]).argmin(), column_at(place["x"][0])
    assert (GRID.latitude[row], (GRID.longitude[column] + 180) % 360 - 180) == (place["y"][0], place["x"][0])
    return int(row), int(column)


def check_plume(tab, unit: float) -> None:
    """Check that the plume is that of the chosen place."""
    row, column = chosen(tab)
    for share, values in zip(QUANTILES, np.quantile(SPEED[..., row, column], QUANTILES, axis=0), strict=True):
        shown = tab.evaluate(f"Array.from({MODEL.format('plume')}.data['q{100 * share:.0f}'])")
        np.testing.assert_allclose(shown, values, atol=0.501 * unit)


def unit_of_plume(path: Path) -> float:
    return next(each["args"]["unit"] for each in embedded(path.read_text())["CustomJS"] if "plume" in each["args"])


@in_chromium
def test_slider_and_selector_show_other_maps(opened, path):
    maps, handle = opened.locator(".bk-Figure").first, opened.locator(".noUi-handle")
    initial = image(opened, "initial")
    for key, lead, threshold in (("", 2, 10.8), ("ArrowRight", 3, 10.8), ("ArrowRight", 4, 17.2), ("ArrowLeft", 3, 24.5)):
        before = maps.screenshot()
        if key:
            handle.press(key)
            opened.locator("select").select_option(label=OPTIONS[threshold])
            opened.wait_for_timeout(200)
            assert maps.screenshot() != before
        np.testing.assert_allclose(image(opened, "probability"), 100 * (SPEED[:, lead] > threshold).mean(axis=0), atol=0.5)
        np.testing.assert_allclose(image(opened, "median") * unit_of_plume(path), np.median(SPEED[:, lead], axis=0), atol=0.06)
        assert f"probability above {threshold}" in opened.evaluate(TITLES)
        np.testing.assert_array_equal(image(opened, "initial"), initial)
        valid = str(START + LEADS[lead])[:13].replace("T", " ")
        assert opened.get_by_text(f"{6 * (lead + 1)} h, valid {valid} UTC").is_visible()


@in_chromium
def test_a_click_on_any_map_shows_the_plume_there(opened, path):
    for number, (x, y, east, north) in enumerate(((0.3, 0.25, -110, 50), (0.6, 0.5, 0, 0), (0.85, 0.25, 120, 50), (0.4, 0.6, -80, -25))):
        figure = opened.locator(".bk-Figure").nth(number)
        figure.scroll_into_view_if_needed()
        box = figure.bounding_box()
        opened.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
        opened.wait_for_timeout(200)
        row, column = chosen(opened)
        assert abs(GRID.latitude[row] - north) < 40
        assert abs((GRID.longitude[column] - east + 180) % 360 - 180) < 40
        check_plume(opened, unit_of_plume(path))
        letter = "N" if GRID.latitude[row] > 0 else "S"
        assert f"{abs(GRID.latitude[row]):g}°{letter}" in opened.evaluate(TITLES)


@in_chromium
def test_a_place_can_be_typed(opened, path):
    typed = opened.get_by_label("Place: latitude, longitude")
    for text, row, column in (("52.5, 13.4", 1, 1), ("-33.9;-58", 5, 13), ("somewhere", 5, 13), (" 0.1 359.5 ", 3, 0), ("99, 0", 3, 0)):
        typed.fill(text)
        typed.press("Enter")
        opened.wait_for_timeout(200)
        assert chosen(opened) == (row, column)
        check_plume(opened, unit_of_plume(path))
        is_place = text not in ("somewhere", "99, 0")
        assert typed.input_value() == (f"{GRID.latitude[row]:g}, {(GRID.longitude[column] + 180) % 360 - 180:g}" if is_place else text)
        assert opened.get_by_text(f"Expected a latitude and a longitude, such as 52.5, 13.4, not '{text}'.").count() == (not is_place)


@in_chromium
@pytest.mark.parametrize("viewport", [SCREEN, PHONE], ids=["screen", "phone"])
def test_a_place_outside_the_region_is_said_to_be_outside(browser, tmp_path, viewport):
    latitude, longitude = regions.REGIONS["across 180 degrees"]
    speeds = regions.stored(tmp_path / "f.zarr", latitude, longitude)
    wsdcast.forecast_page(tmp_path / "f.zarr", tmp_path / "p.html")
    tab, errors = browser.new_page(viewport=viewport), []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto((tmp_path / "p.html").as_uri())
    tab.wait_for_function("window.Bokeh && Bokeh.documents.length == 1 && Bokeh.documents[0].is_idle")
    typed, said = tab.get_by_label("Place: latitude, longitude"), tab.get_by_text("lies outside the forecast")
    row, column = 2, 4
    # Cells end half a step beyond the points at the edge, and 205 E is 155 W.
    for text, at in (
        ("60, 180", None),
        ("22, -154", (4, 8)),
        ("43, 170", None),
        ("42, 163", (0, 0)),
        ("30, 10", None),
        ("30, 180", (2, 3)),
    ):
        typed.fill(text)
        typed.press("Enter")
        tab.wait_for_timeout(200)
        row, column = at or (row, column)
        assert said.all_inner_texts() == (
            []
            if at
            else [
                f"Place: latitude, longitude. {text} lies outside the forecast, which covers latitudes 20 to 40 and longitudes 165 to 205."
            ]
        )
        shown = tab.evaluate(f"Array.from({MODEL.format('plume')}.data.q50)")
        np.testing.assert_allclose(shown, np.median(speeds[..., row, column], axis=0), atol=0.06)
        assert tab.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    tab.close()
    assert errors == []


@in_chromium
def test_all_controls_can_be_reached_by_keyboard_and_nothing_is_wider_than_the_screen(opened):
    width = opened.viewport_size["width"]
    assert opened.evaluate("document.documentElement.scrollWidth") == width
    ends = "[...document.querySelectorAll('.row > div, .controls, p, pre, dd, h1')].map(box => box.getBoundingClientRect().right)"
    assert max(opened.evaluate(ends)) <= width
    reached = set()
    for _ in range(12):
        opened.keyboard.press("Tab")
        reached.add(
            opened.evaluate(
                "(() => { let at = document.activeElement; while (at.shadowRoot) at = at.shadowRoot.activeElement; return at.className })()"
            )
        )
    assert {name for text in reached for name in text.split()} >= {"bk-input", "noUi-handle"}
    opened.evaluate("window.scrollTo(0, document.body.scrollHeight / 2)")
    controls = opened.locator(".controls").bounding_box()
    assert 0 <= controls["y"] < opened.viewport_size["height"] / 4  # they stay in view beside the maps


@in_chromium
def test_the_pointer_shows_values(opened):
    box = opened.locator(".bk-Figure").first.bounding_box()
    opened.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.4 * box["height"])
    opened.mouse.move(box["x"] + 0.5 * box["width"] + 3, box["y"] + 0.4 * box["height"])
    opened.wait_for_timeout(300)
    (text,) = opened.locator(".bk-tooltip-content").all_inner_texts()
    for part in ("probability:", " %", "median:", "spread:", "initial analysis:", "m/s"):
        assert part in text


@in_chromium
def test_variables_have_their_own_maps_and_plumes_of_one_lead_time_and_place(browser, tmp_path):
    channels, errors = several.fields(), []
    write_forecast_page(tmp_path / "p.html", several.forecast_of(channels), facts={})
    tab = browser.new_page(viewport=SCREEN)
    tab.set_default_timeout(120_000)  # a busy machine needs a minute
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto((tmp_path / "p.html").as_uri())
    tab.wait_for_function("window.Bokeh && Bokeh.documents.length == 1 && Bokeh.documents[0].is_idle")
    subjects = several.shown(channels)
    for subject, (values, units, _) in enumerate(subjects):
        tab.get_by_label("Variable").select_option(value=str(subject))
        tab.wait_for_timeout(300)
        if not subject:
            tab.locator(f"#subject{subject} .noUi-handle").press("ArrowRight")  # the lead time after the middle one
            tab.wait_for_timeout(300)
        figure = tab.locator(f"#subject{subject} .bk-Figure").first
        figure.scroll_into_view_if_needed()
        box = figure.bounding_box()
        x, y = box["x"] + (0.3 + 0.1 * subject) * box["width"], box["y"] + 0.3 * box["height"]
        tab.mouse.move(0, 0)
        tab.mouse.move(x - 3, y)
        tab.mouse.move(x, y)
        tab.wait_for_timeout(500)
        (text,) = tab.locator(".bk-tooltip-content").all_inner_texts()
        found = re.search(rf"longitude:\s+(.+)°, (.+)°.*median:\s+(.+) {units}\s", text, re.DOTALL).groups()
        latitude, longitude, median = map(float, found)
        row, column = np.abs(GRID.latitude - latitude).argmin(), column_at(longitude)
        tolerances = [float(each.max() - each.min()) / 254 + 0.06 for each, _, _ in subjects]
        assert median == pytest.approx(np.median(values[:, 3, row, column]), abs=tolerances[subject])
        tab.mouse.click(x, y)
        tab.wait_for_timeout(300)
        for plume, (each, _, _), tolerance in zip(
            of_each_variable(tab, "plume", "Array.from(model.data.q50)"), subjects, tolerances, strict=True
        ):
            np.testing.assert_allclose(plume, np.median(each[:, :, row, column], axis=0), atol=tolerance)
    tab.close()
    assert errors == []


def of_each_variable(tab, name: str, code: str) -> list:
    """Return what code says of each model with a name, variable by variable."""
    models = f"[...Bokeh.documents[0].all_models].filter(model => model.name == '{name}')"
    return tab.evaluate(f"{models}.sort((one, other) => one.id.slice(1) - other.id.slice(1)).map(model => {code})")


@in_chromium
def test_a_place_carries_over_to_variables_at_other_points(browser, tmp_path, monkeypatch):
    """Each shows its nearest point, and the variable for which the place was chosen keeps it."""
    monkeypatch.setattr(shown_products, "LIBRARY_BYTES", 4000)  # not enough for all points of the wind with its probabilities
    monkeypatch.setattr(shown_products, "zlib", SimpleNamespace(compress=lambda data, level: data))
    write_forecast_page(tmp_path / "p.html", several.forecast_of(several.fields()), facts={})
    tab = browser.new_page(viewport=SCREEN)
    tab.set_default_timeout(120_000)
    tab.goto((tmp_path / "p.html").as_uri())
    tab.wait_for_function("window.Bokeh && Bokeh.documents.length == 1 && Bokeh.documents[0].is_idle")
    for subject, text in ((0, "-10, 20"), (2, "-33.9, -58"), (1, "11, 31"), (0, "11, 31")):
        tab.get_by_label("Variable").select_option(value=str(subject))
        typed = tab.locator(f"#subject{subject}").get_by_label("Place: latitude, longitude")
        typed.fill(text)
        typed.press("Enter")
        tab.wait_for_timeout(300)
        asked = np.array([float(number) for number in text.split(",")])
        places = of_each_variable(tab, "place", "[model.data.y[0], model.data.x[0]]")
        for number, (place, said) in enumerate(zip(places, of_each_variable(tab, "at", "model.value"), strict=True)):
            spacing = 22.5 * (1 if number else 2)
            assert np.abs(asked - place).max() <= spacing / 2
            assert said == f"{place[0]:g}, {place[1]:g}"
        assert places[0] != places[1] == places[2] == places[3]
    tab.close()
