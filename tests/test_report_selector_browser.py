"""The report of several variables in a real browser: the selector changes maps, plume and scores to the chosen variable."""

from __future__ import annotations

import re

import numpy as np
import pytest
from report_pages import CHROMIUM, GRID, column_at, in_chromium, random_scores, written

from wsdcast.data.variables import DEFAULT, variable

NAMES = (*DEFAULT, "2m_temperature", "geopotential@500")
SCALES = {"2m_temperature": (280, 8), "geopotential@500": (55_000, 900)}
SUBJECTS = {0: "10 m wind speed", 1: "2 m air temperature", 2: "geopotential at 500 hPa"}


def fields(start: int) -> tuple[np.ndarray, np.ndarray]:
    """Random members and truth of every channel, each with its mean and standard deviation."""
    random = np.random.default_rng(start)
    values = np.stack([random.normal(*SCALES.get(name, (0, 6)), (6, 3, *GRID.shape)) for name in NAMES], axis=2).astype(np.float32)
    return values[1:], values[0]


def shown(subject: int, start: int, lead: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth and members of a subject, as maps show them: m/s, degrees Celsius, gpm."""
    members, truth = fields(start)
    if not subject:
        return np.hypot(truth[lead, 0], truth[lead, 1]), np.hypot(members[:, lead, 0], members[:, lead, 1])
    scale, shift = {1: (1, 273.15), 2: (9.80665, 0)}[subject]
    return (truth[lead, 1 + subject] - shift) / scale, (members[:, lead, 1 + subject] - shift) / scale


@pytest.fixture(scope="module")
def scores():
    found = random_scores(GRID, 2, 3, further=NAMES[2:])
    units = ["m s-1" if "wind" in name or name in ("both", "vector") else variable(name).units for name in found["variable"].values]
    return found.assign_coords(units=("variable", units))


@pytest.fixture
def opened(tmp_path, scores):
    from playwright.sync_api import sync_playwright

    path, errors = tmp_path / "report.html", []
    written(path, scores, GRID, fields)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = chromium.new_page(viewport={"width": 1200, "height": 900})
        tab.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.set_default_timeout(120_000)  # a busy machine needs a minute
        tab.goto(path.as_uri())
        tab.wait_for_function("window.Bokeh && Bokeh.documents.length == 1 && Bokeh.documents[0].is_idle")
        yield tab
        assert errors == []
        chromium.close()


def tooltip_of_a_map(tab, subject: int) -> str:
    """What a tooltip says in the middle of the western half of the first map of a subject."""
    located = tab.locator(f"#subject{subject} .bk-Figure").nth(3)
    located.scroll_into_view_if_needed()
    box = located.bounding_box()
    assert box["height"] > 100
    tab.mouse.move(0, 0)
    for offset in (3, 0):
        tab.mouse.move(box["x"] + 0.4 * box["width"] - offset, box["y"] + 0.3 * box["height"])
    tab.wait_for_timeout(300)
    return "\n".join(tab.locator(".bk-tooltip-content").all_inner_texts())


@in_chromium
def test_the_selector_changes_maps_and_scores_to_the_variable(opened, scores):
    selector = opened.get_by_label("Variable")
    assert selector.locator("option").all_inner_texts() == list(SUBJECTS.values())
    at = {"region": "globe", "forecast": "wsdcast"}
    for subject in (0, 2, 1, 0):
        selector.select_option(label=SUBJECTS[subject])
        opened.wait_for_timeout(200)
        heights = [opened.locator(f"#subject{number}").bounding_box()["height"] for number in SUBJECTS]
        assert [height > 500 for height in heights] == [number == subject for number in SUBJECTS]
        units = {0: "m/s", 1: "°C", 2: "gpm"}[subject]
        # The map under the pointer: its values are those of the variable, to the rounding of the page.
        numbers = rf"longitude:\s+(.+)°, (.+)°\s+truth:\s+(.+) {re.escape(units)}\s+mean:\s+(.+) {re.escape(units)}\s+spread"
        latitude, longitude, *values = map(float, re.search(numbers, tooltip_of_a_map(opened, subject)).groups())
        row, column = np.abs(GRID.latitude - latitude).argmin(), column_at(longitude)
        truth, members = shown(subject, 0, 1)
        span = {0: 30, 1: 80, 2: 900}[subject]
        np.testing.assert_allclose(values, [truth[row, column], members.mean(axis=0)[row, column]], atol=span / 200)
        # The table of scores: the first cells are CRPS at 6 h.
        name = {0: "both", 1: "2m_temperature", 2: "geopotential@500"}[subject]
        crps = float(scores["crps_fair"].sel(variable=name, **at)[0])
        text = opened.locator(f"#subject{subject} table").first.inner_text()
        assert f"{crps:.3f}" in text if not subject else f"{crps:.4g}" in text
        assert {0: "m/s", 1: "K", 2: "m2 s-2"}[subject] in text


@in_chromium
def test_variables_have_one_initial_time_lead_time_and_place(opened):
    opened.get_by_label("Variable").select_option(label=SUBJECTS[1])
    opened.wait_for_timeout(200)
    opened.locator("#subject1 select").select_option("2020-01-01 18 UTC")
    opened.locator("#subject1 .noUi-handle").press("ArrowRight")
    opened.wait_for_timeout(300)
    for subject, units in ((1, "°C"), (0, "m/s"), (2, "gpm")):
        opened.get_by_label("Variable").select_option(label=SUBJECTS[subject])
        opened.wait_for_timeout(200)
        text = tooltip_of_a_map(opened, subject)
        latitude, longitude, value = map(float, re.search(rf"longitude:\s+(.+)°, (.+)°\s+truth:\s+(.+) {units}", text).groups())
        row, column = np.abs(GRID.latitude - latitude).argmin(), column_at(longitude)
        assert value == pytest.approx(shown(subject, 1, 2)[0][row, column], abs={0: 0.15, 1: 0.4, 2: 5}[subject])
    opened.mouse.down()  # a click where the pointer is
    opened.mouse.up()
    opened.wait_for_timeout(300)
    models = "[...Bokeh.documents[0].all_models].filter(model => model.name == 'plume')"
    plumes = opened.evaluate(
        f"{models}.sort((one, other) => one.id.slice(1) - other.id.slice(1)).map(model => Array.from(model.data.truth))"
    )
    for subject, plume in enumerate(plumes):
        truth = [shown(subject, 1, lead)[0][row, column] for lead in range(3)]
        np.testing.assert_allclose(plume, truth, atol={0: 0.15, 1: 0.4, 2: 5}[subject])
