"""Take pictures of a report in a browser.

    python examples/screenshots.py RUN/report.html OUT

Writes OUT/scores.png with the header and the curves, and OUT/report.png with forecast and truth and, under the pointer, the ensemble at one
place. Needs Debian's chromium in addition to the packages of the tests.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTH = 1100


def main(report: Path, out: Path) -> None:
    """Write both pictures."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 1000}, device_scale_factor=1.25)
        page.goto(report.resolve().as_uri())
        page.wait_for_function("window.Bokeh && Bokeh.documents.length == 1 && Bokeh.documents[0].is_idle")
        height = page.evaluate("document.documentElement.scrollHeight")
        page.set_viewport_size({"width": WIDTH, "height": height})  # all of the page is in view, so nothing scrolls
        page.wait_for_function("Bokeh.documents[0].is_idle")
        table, maps = page.locator("table").first.bounding_box(), page.locator("section").bounding_box()
        assert table is not None
        assert maps is not None
        page.screenshot(path=out / "scores.png", clip={"x": 0, "y": 0, "width": WIDTH, "height": table["y"]})
        plume = page.locator("section .bk-Figure").last.bounding_box()
        assert plume is not None
        page.mouse.move(plume["x"] + 0.9 * plume["width"] - 3, plume["y"] + 0.3 * plume["height"])
        page.mouse.move(plume["x"] + 0.9 * plume["width"], plume["y"] + 0.3 * plume["height"])
        page.wait_for_timeout(500)
        page.screenshot(path=out / "report.png", clip={"x": 0, "y": maps["y"], "width": WIDTH, "height": maps["height"]})
        browser.close()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
