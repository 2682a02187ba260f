"""What the site has beside the pages of docs/: pages from the top of the checkout, API pages, and the files that pages link to.

On GitHub and in an editor the links of a page lead through the checkout. Here they are changed to lead to the same thing on the site.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
AT_THE_TOP = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)")
ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):(?=<code>)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the API pages to the navigation."""
    assert config.nav is not None
    config.nav.append({"API": [*_api_pages()]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/, and every file outside of docs/ that a page links to."""
    for source, page in AT_THE_TOP.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    for name, content in _api_pages().items():
        files.append(File.generated(config, name, content=content))
    linked = {target for page in files.documentation_pages() for target in _links(page).values()}
    for target in sorted(linked - {file.src_uri for file in files}):
        files.append(File.generated(config, target, abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to where their targets are on the site."""
    targets, place = _links(page.file), Path(page.file.src_uri).parent
    return LINK.sub(lambda link: os.path.relpath(targets[link[1]], place) if link[1] in targets else link[1], markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Take out the marks of reStructuredText's cross-references, which docstrings have."""
    return ROLE.sub("", html)


def _links(page: File) -> dict[str, str]:
    """For the links of a page to files of the checkout: the path of the target on the site."""
    source = Path(page.abs_src_path) if page.abs_src_path else None
    return dict(_targets(source)) if source else {}


def _targets(source: Path) -> Iterator[tuple[str, str]]:
    for link in LINK.findall(source.read_text(encoding="utf-8")):
        target = (source.parent / link).resolve()
        if target.is_file() and target.is_relative_to(ROOT):
            inside = target.relative_to(ROOT).as_posix()
            yield link, AT_THE_TOP.get(inside) or inside.removeprefix("docs/")


def _api_pages() -> dict[str, str]:
    """Markdown of each page: the functions of the package, then one page for each part, module by module."""
    pages = {"api/index.md": "# wsdcast\n\n::: wsdcast\n    options: {show_root_heading: false}\n"}
    for part in sorted(path.parent for path in (ROOT / "wsdcast").glob("*/__init__.py")):
        modules = sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in part.rglob("*.py"))
        text = "\n\n".join(f"::: {module.removesuffix('.__init__')}" for module in modules)
        pages[f"api/{part.name}.md"] = f"# wsdcast.{part.name}\n\n{text}\n"
    return pages
