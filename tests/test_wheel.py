"""The wheel holds the whole package, and works in an environment without the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import TINY

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    from hatchling.builders.wheel import WheelBuilder

    (path,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"])
    return Path(path)


def test_the_wheel_has_all_modules_and_recipes(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = {
        f"wsdcast/{path.relative_to(ROOT / 'wsdcast')}" for path in ROOT.glob("wsdcast/**/*") if path.suffix in (".py", ".npz", ".typed")
    }
    recipes = {f"wsdcast/pipelines/{path.relative_to(ROOT / 'pipelines')}" for path in ROOT.glob("pipelines/**/*.yaml")}
    assert names == package | recipes
    assert "wsdcast/py.typed" in names


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_environment(wheel, tmp_path):
    """Installed outside of the checkout, without the extras, and run from an empty directory."""
    binaries, work = tmp_path / "venv/bin", tmp_path / "work"
    work.mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON") and name != "VIRTUAL_ENV"}

    def run(*command: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([str(binaries / command[0]), *command[1:]], cwd=work, env=clean, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done

    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    run("pip", "install", "--quiet", "--constraint", str(CONSTRAINTS), str(wheel))
    where = run("python", "-c", "import wsdcast; print(wsdcast.__file__)").stdout
    assert Path(where.strip()).is_relative_to(tmp_path / "venv")

    (work / "tiny.yaml").write_text(TINY)
    run("wsdcast", "run", "tiny.yaml")
    assert {path.name for path in (work / "runs/tiny").iterdir()} >= {
        "analysis.zarr",
        "generator",
        "forecast.zarr",
        "scores.nc",
        "report.html",
    }

    for command, recipes in ((["run"], "pipelines"), (["inpaint", "run"], "pipelines/inpaint")):
        message = run("wsdcast", *command, "nonsense", code=2).stderr
        assert f"one of the shipped: {', '.join(sorted(path.stem for path in (ROOT / recipes).glob('*.yaml')))}\n" in message
    shown = json.loads(run("wsdcast", "prepare", "--recipe", "planet", "-o", "data.days=30", "-o", "data.grid=16x8", "--json").stdout)
    assert shown["stage"] == "prepare"
    assert (work / "runs/planet/analysis.zarr").is_dir()
