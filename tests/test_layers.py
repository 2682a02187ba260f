"""Packages import only from packages below them, and no module lies at the top of the package."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from broken_on_purpose import BREAKS

PACKAGE = Path(__file__).parents[1] / "wsdcast"

# From the lowest layer up: the packages that each package may import.
ALLOWED: dict[str, set[str]] = {"runs": set()}
ALLOWED["nets"] = ALLOWED["warmstart"] = ALLOWED["data"] = {"runs"}
ALLOWED["sampling"] = ALLOWED["training"] = {"runs", "nets", "warmstart"}
ALLOWED["verification"] = {"runs", "data"}
ALLOWED["report"] = {"runs", "data", "warmstart", "verification"}
ALLOWED["output"] = {"runs", "data", "verification", "report"}
MODELS = {"runs", "nets", "warmstart", "data", "sampling", "training", "verification", "report"}
ALLOWED["weather"] = MODELS | {"output"}
ALLOWED["images"] = MODELS - {"data"}
ALLOWED["study"] = MODELS | {"weather", "images"}
ALLOWED["bench"] = MODELS | {"weather"}
ALLOWED["cli"] = {"runs", "weather", "images", "study", "bench", "output"}


def imports(path: Path) -> set[str]:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"wsdcast.{alias.name}" for alias in node.names] if node.module == "wsdcast" else [node.module]
        imported |= {name.split(".")[1] for name in names if name.startswith("wsdcast.")}
    return imported - {"__version__"}


@pytest.mark.parametrize("part", ALLOWED)
def test_each_part_imports_only_those_below(part):
    files = sorted((PACKAGE / part).rglob("*.py"))
    assert files
    for path in files:
        assert imports(path) - {part} <= ALLOWED[part], path


def test_every_part_is_listed_and_no_module_is_loose():
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(ALLOWED)
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_no_file_is_long():
    lengths = {path.relative_to(PACKAGE): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert not {path: length for path, length in lengths.items() if length > 300}


def test_what_is_broken_on_purpose_is_in_the_code():
    """A text that changed would be broken nowhere, without a word."""
    for path, text, _, tests in BREAKS:
        assert (PACKAGE / path).read_text().count(text) == 1, (path, text)
        assert all((Path(__file__).parent / f"test_{name}.py").exists() for name in tests.split()), tests
