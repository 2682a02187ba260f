"""The site that `make docs` builds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

import wsdcast

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """The links of a page, and the anchors in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src") and value:
                self.links.append(value)
            if name == "id" and value:
                self.anchors.add(value)


def build(checkout: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("site")
    done = build(ROOT, directory)
    assert done.returncode == 0, done.stderr
    return directory


def test_every_link_has_a_target(site):
    pages = {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"[a-z]+:", link):
                continue
            file, _, anchor = unquote(link).partition("#")
            target = (path.parent / file).resolve() if file else path
            assert target.is_file(), f"{path.relative_to(site)} links to {link}"
            if anchor and anchor != "__codelineno" and target in pages:
                assert anchor in pages[target].anchors, f"{path.relative_to(site)} links to {link}"


def test_pages_load_nothing_from_elsewhere(site):
    loads = re.compile(r'<(?:script|img|iframe)[^>]* src="https?:|<link[^>]*stylesheet[^>]* href="https?:')
    for path in site.rglob("*.html"):
        assert not loads.search(path.read_text()), path


def test_every_page_is_built(site):
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html").as_posix() for path in ROOT.glob("docs/**/*.md")}
    pages |= {"index.html", "changelog.html", "contributing.html", "api/index.html"}
    pages |= {f"api/{path.parent.name}.html" for path in ROOT.glob("wsdcast/*/__init__.py")}
    assert pages <= {path.relative_to(site).as_posix() for path in site.rglob("*.html")}


def test_functions_of_the_package_are_described(site):
    page = (site / "api/index.html").read_text()
    for name in wsdcast.__all__:
        assert f'id="wsdcast.{name}"' in page, name
    assert not re.search(r":[a-z]+:<code>", page)  # a mark of another language than Markdown


def test_linked_files_outside_of_docs_are_copied_unchanged(site):
    for name in ("examples/quick_start.py", "examples/new_solver.py"):
        assert (site / name).read_bytes() == (ROOT / name).read_bytes()
        assert f'href="{name}"' in (site / "index.html").read_text()


def test_dead_links_end_the_build(tmp_path):
    for path in (*ROOT.glob("*.md"), ROOT / "mkdocs.yml", ROOT / "constraints.txt"):
        shutil.copy(path, tmp_path / path.name)
    for name in ("docs", "examples", "pipelines", "tests", "wsdcast"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for page, link in {"README.md": "docs/nowhere.md", "docs/results/gfs.md": "../study.md#nothing"}.items():
        with (tmp_path / page).open("a") as file:
            file.write(f"\n[dead]({link})\n")
    (tmp_path / "docs/not_in_the_navigation.md").write_text("# A page\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode == 1
    for words in ("nowhere.md", "#nothing", "not_in_the_navigation.md", "Aborted with 3 warnings"):
        assert words in done.stdout + done.stderr
