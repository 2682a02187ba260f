"""The targets of the Makefile, and what is checked before a commit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from broken_on_purpose import BREAKS
from conftest import TRAINS

ROOT = Path(__file__).parents[1]
# Stands in for python3: `-m venv` makes an environment whose programs write down how they are called.
PYTHON = """#!/bin/sh
mkdir -p .venv/bin
for program in pip wsdcast ruff mypy pytest mkdocs; do
  printf '#!/bin/sh\\necho "%s $*" >> called\\n' $program > .venv/bin/$program
  chmod +x .venv/bin/$program
done
"""
INSTALL = "pip install --quiet --constraint constraints.txt --editable "
DEMO, DOCS = ["wsdcast run planet"], ["mkdocs build --strict"]


@pytest.fixture
def checkout(tmp_path) -> Path:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
        os.utime(tmp_path / name, (1, 1))
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    return tmp_path


def commands_of(checkout: Path, target: str) -> list[str]:
    """What a target calls."""
    (checkout / "called").write_text("")
    subprocess.run(["make", "--silent", target, "PYTHON=./python"], cwd=checkout, check=True)
    return (checkout / "called").read_text().splitlines()


def test_the_demo_installs_the_package_alone_and_once(checkout):
    assert commands_of(checkout, "demo") == [f"{INSTALL}.", *DEMO]
    assert commands_of(checkout, "demo") == DEMO


def test_each_target_adds_what_it_needs(checkout):
    commands_of(checkout, "demo")
    first, *checks = commands_of(checkout, "test")
    assert first == f"{INSTALL}.[test]"
    assert [line.split()[0] for line in checks] == ["ruff", "ruff", "mypy", "pytest"]
    assert commands_of(checkout, "docs") == [f"{INSTALL}.[docs]", *DOCS]
    assert commands_of(checkout, "test") == checks
    assert [line.split()[0] for line in commands_of(checkout, "test-fast")] == ["pytest"]
    assert commands_of(checkout, "test-all")[:-1] == checks
    assert commands_of(checkout, "docs") == DOCS


def test_after_the_tests_the_demo_has_all_that_it_needs(checkout):
    commands_of(checkout, "test")
    assert commands_of(checkout, "demo") == DEMO


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt"])
def test_other_dependencies_are_installed_anew(checkout, changed):
    for target in ("demo", "test"):
        commands_of(checkout, target)
    later = (checkout / ".venv/has-test").stat().st_mtime + 10
    os.utime(checkout / changed, (later, later))
    assert commands_of(checkout, "test")[0] == f"{INSTALL}.[test]"
    assert commands_of(checkout, "demo")[0] == f"{INSTALL}."


@pytest.mark.slow
def test_mistakes_are_found_before_a_commit(tmp_path):
    """In another repository with the same settings and environment; nothing is downloaded."""
    for name in (".pre-commit-config.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "wsdcast").mkdir()
    module = tmp_path / "wsdcast/__init__.py"
    nowhere = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    environment = os.environ | nowhere | {"PRE_COMMIT_HOME": str(tmp_path / "cache")}
    environment = {name: value for name, value in environment.items() if not name.startswith("GIT_")}

    def failed(text: str) -> list[str]:
        module.write_text(text)
        subprocess.run(["git", "add", "wsdcast"], cwd=tmp_path, check=True)
        command = [sys.executable, "-m", "pre_commit", "run", "--all-files"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        results = [line for line in done.stdout.splitlines() if line.endswith(("Passed", "Failed"))]
        assert [line.split(".")[0] for line in results] == ["ruff check", "ruff format", "mypy"], done.stdout + done.stderr
        return [line.split(".")[0] for line in results if line.endswith("Failed")]

    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    assert failed('"""A module."""\n') == []
    assert failed('"""A module."""\n\nx: int = "one"\n') == ["mypy"]
    assert failed('"""A module."""\n\nx   =   1\n') == ["ruff format"]
    assert module.read_text() == '"""A module."""\n\nx = 1\n'
    assert failed('"""A module."""\n\nx = unknown\n') == ["ruff check", "mypy"]


def test_the_files_that_take_long_exist_and_are_named_once():
    assert sorted(TRAINS.split()) == sorted({name for name in TRAINS.split() if (ROOT / f"tests/test_{name}.py").exists()})


@pytest.mark.parametrize(("file", "before"), [(file, before) for file, before, _, _ in BREAKS])
def test_what_is_broken_on_purpose_is_still_there(file, before):
    assert (ROOT / "wsdcast" / file).read_text().count(before) == 1
