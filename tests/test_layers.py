"""Imports go downward only, as the design has it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "wsdcast"

# What each part may import of the package, beside itself.
BASE = {"errors", "devices"}
NETWORKS = {"names", "experiment", "recipe", "artefact", "context", "models", "peak", "priors", "forecasting", "processes", "warmstart"}
ABOVE = BASE | NETWORKS | {"background", "unfinished", "progress", "data", "verification", "report"}
ALLOWED = {
    "errors": set(),
    "devices": set(),
    "progress": set(),
    "peak": set(),
    "background": set(),
    "unfinished": BASE,
    "times": set(),
    "nets": BASE,
    "warmstart": BASE,
    "data": BASE | {"unfinished", "progress"},
    "verification": BASE | {"data", "unfinished", "progress"},
    "report": BASE | {"data", "verification", "progress", "warmstart"},
    "images": BASE | {"progress", "artefact", "report", "verification"},
    "names": set(),
    "experiment": BASE,
    "recipe": BASE | {"experiment", "names", "times"},
    "artefact": BASE | {"experiment", "names"},
    "sharing": {"artefact", "experiment", "names"},
    "context": BASE | {"recipe", "data"},
    "models": BASE | {"experiment", "recipe", "data", "nets", "warmstart"},
    "processes": BASE | {"artefact", "unfinished"},
    "training": BASE | {"experiment", "processes", "progress", "warmstart"},
    "priors": BASE | {"names", "recipe", "artefact", "data", "context", "models", "warmstart"},
    "forecasting": BASE
    | {"progress", "background", "times", "names", "recipe", "artefact", "data", "context", "models", "priors", "warmstart"},
    "stages": ABOVE | {"times", "training"},
    "study": ABOVE | {"training", "stages", "sharing"},
    "pipeline": {"artefact", "recipe", "stages"},
    "bench": ABOVE | {"training"},
    "inpaint": ABOVE | {"nets", "training", "images", "sharing"},
    "cli": {"errors", "names", "times", "artefact", "stages", "study", "pipeline", "bench", "inpaint"},
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        found |= {name.split(".")[1] for name in names if name.startswith("wsdcast.")}
    return found


@pytest.mark.parametrize("part", ALLOWED)
def test_each_part_imports_only_those_below(part):
    files = [PACKAGE / f"{part}.py"] if (PACKAGE / f"{part}.py").exists() else sorted((PACKAGE / part).glob("*.py"))
    assert files
    for path in files:
        assert imports(path) - {part} <= ALLOWED[part], path


def test_every_part_is_listed():
    parts = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir() if not path.name.startswith("__")}
    assert parts == set(ALLOWED)


def test_no_stage_imports_another():
    for path in (PACKAGE / "stages").glob("*.py"):
        assert "stages" not in imports(path), path


def test_the_method_knows_nothing_of_weather():
    for path in (PACKAGE / "warmstart").glob("*.py"):
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert not names & {"latitude", "longitude", "Grid", "wind"}, path


def test_nothing_is_unpickled():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert "pickle" not in text, path
        # Where torch's own format has to be read, for tensors alone.
        calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"]
        safe = [call for call in calls if "weights_only=True" in map(ast.unparse, call.keywords)]
        assert text.count("torch.load") == len(safe), path
