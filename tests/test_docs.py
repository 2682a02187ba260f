"""The commands and links in the documentation work. Commands run unchanged on shipped recipes that are cut down to seconds."""

from __future__ import annotations

import io
import re
import runpy
import shlex
import zipfile
from pathlib import Path

import pytest
import yaml
from conftest import SHARED
from image_files import made_images
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

import wsdcast
from wsdcast.cli import app
from wsdcast.images.recipe import ImageRecipe
from wsdcast.runs import recipes as experiment
from wsdcast.runs.recipes import load
from wsdcast.weather import recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def commands_of(page: str) -> list[str]:
    """Return the commands in the code blocks of a page that are marked as shell."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    return re.findall(r"^(wsdcast .*?)\s*(?:#.*)?$", "\n".join(blocks), re.MULTILINE)


COMMANDS = commands_of("README.md")
SMALL = {"widths": [8, 8], "steps": 3, "batch": 4}
KEPT = (("generator", "objective"), ("rollout", "nfe"))
"""Keys of the shipped recipes that their smaller versions have too, by section."""


@pytest.fixture
def small_recipes(tmp_path, monkeypatch) -> Path:
    """Return a directory with smaller versions of the shipped recipes. Real wind, if there is any, is in its working directory."""
    shipped = experiment._shipped_directory()
    (tmp_path / "recipes").mkdir()
    for path in shipped.glob("*.yaml"):
        content = yaml.safe_load(path.read_text())
        content["data"] |= {"days": 30} | ({"grid": "16x8"} if path.stem == "planet" else {})
        kept = {section: {key: content.get(section, {})[key]} for section, key in KEPT if key in content.get(section, {})}
        content["moments"], content["generator"] = SMALL, SMALL | kept.get("generator", {})
        content["few_steps"], content["rollout"] = {"steps": 3, "batch": 4}, {"starts": 2, "days": 0.5} | kept.get("rollout", {})
        content["study"] = {"starts": 2, "rollout_starts": 1, "members": 2, "nfe": [1, 2], "rollout_nfe": [1], "leads": [6, 12]}
        (tmp_path / "recipes" / path.name).write_text(yaml.safe_dump(content))
    (tmp_path / "recipes/inpaint").mkdir()
    for path in (shipped / "inpaint").glob("*.yaml"):
        content = yaml.safe_load(path.read_text())
        content["data"] |= {"count": 100, "size": 16}
        content["moments"], content["generator"], content["classifier"] = SMALL, SMALL, {"steps": 3, "batch": 4}
        content["sample"] = {"contexts": 4, "samples": 2, "nfe": 4}
        content["study"] = {"visible_nfe": [2], "visible_contexts": 2, "contexts": 4, "solvers": ["midpoint"], "warmths": [1]}
        (tmp_path / "recipes/inpaint" / path.name).write_text(yaml.safe_dump(content))
    monkeypatch.setattr(experiment, "_shipped_directory", lambda: tmp_path / "recipes")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    if SHARED.is_dir():
        (tmp_path / "shared").symlink_to(SHARED.parent)
        (tmp_path / "work/wind").symlink_to(SHARED / "wind")
    return tmp_path


def test_readme_has_the_commands_that_matter():
    assert [line.split()[1] for line in COMMANDS[:4]] == ["prepare", "train", "rollout", "score"]
    assert "make demo" in README
    assert "make test" in README


@pytest.mark.slow
def test_readme_commands_run_in_order(small_recipes):
    for line in COMMANDS:
        arguments = shlex.split(line)[1:]
        if ("runs/mine" in line or "wind/*.nc" in line) and not SHARED.is_dir():
            continue  # real wind is not part of the repository
        if "--recipe era5" in line:
            continue  # needs the network; test_sources.py reads the same store from a local server
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, f"{line}: {result.stderr}"
    for artefact in ("forecast.zarr", "past_errors_forecast.zarr", "forecast.gif", "scores.nc", "report.html"):
        assert (Path("runs/planet") / artefact).exists()


@pytest.mark.slow
def test_commands_of_the_page_on_images_run_in_order(small_recipes):
    with zipfile.ZipFile("photographs.zip", "w") as archive:
        for number, image in enumerate(made_images(20, seed=0, size=40)[0]):
            content = io.BytesIO()
            Image.fromarray(image).save(content, "png")
            archive.writestr(f"holidays/{number}.png", content.getvalue())
    for line in commands_of("docs/inpaint.md"):
        result = CliRunner().invoke(app, shlex.split(line)[1:], catch_exceptions=False)
        assert result.exit_code == 0, f"{line}: {result.stderr}"
    for artefact in ("made/report.html", "made/study.html", "made/same_noise.png", "photographs/images/images.npy"):
        assert (Path("runs") / artefact).exists()


@pytest.mark.slow
def test_commands_of_the_pages_on_forecasts_run_in_order(small_recipes):
    Path("places.csv").write_text("name,latitude,longitude\nZurich,47.4,8.5\n")
    commands = [*commands_of("docs/today.md"), *commands_of("docs/products.md")]
    for line in ("wsdcast run planet -o rollout.days=1", *commands):
        result = CliRunner().invoke(app, shlex.split(line)[1:], catch_exceptions=False)
        assert result.exit_code == 0, f"{line}: {result.stderr}"
    for file in ("runs/today/forecast.html", "runs/today/places-Zurich.png", "page.html", "forecast.grib2"):
        assert Path(file).exists()
    assert len(list(Path().glob("strong-wind-*.nc"))) == 2  # one file for each initial time


@pytest.mark.slow
def test_readme_python_runs(small_recipes, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {"wsdcast": wsdcast})
    assert "crps_fair: wsdcast" in capsys.readouterr().out


@pytest.mark.slow
def test_python_of_the_method_page_runs(small_recipes):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/method.md").read_text(), re.DOTALL)
    wsdcast.prepare("planet", "runs/mine")
    exec(compile(code, "method.md", "exec"), {})
    assert Path("runs/mine/forecast.zarr").exists()


PAGES_OF_DOCS = [*sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("*.md"))]


@pytest.mark.parametrize("page", PAGES_OF_DOCS, ids=lambda path: path.name)
def test_links_and_named_tests_exist(page):
    text = page.read_text()
    for link in re.findall(r"\]\((?!https:)([^)#]+)\)", text):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("*.py"))
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in tests, f"{page.name} names {name}"


def commands_in(page: Path) -> list[str]:
    """Return what follows ``wsdcast`` in the commands of a page's blocks, also under srun, torchrun and cron."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    text = "\n".join(block for language, block in blocks if language in ("", "sh")).replace("\\\n", "")
    lines = re.findall(r"^(?:srun |torchrun .* -- |.*/bin/)?wsdcast (.*)$", re.sub(r"\$\(.*?\)", "DATE", text), re.MULTILINE)
    return [line.partition(" >")[0] for line in lines]


@pytest.mark.parametrize("page", PAGES_OF_DOCS, ids=lambda path: path.name)
def test_commands_in_blocks_have_the_options_that_they_show(page):
    for line in commands_in(page):
        command, arguments = get_command(app), shlex.split(line, comments=True)
        while hasattr(command, "commands"):
            command = command.commands[arguments.pop(0)]
        command.make_context("wsdcast", arguments)


def test_the_commands_in_blocks_are_found(tmp_path):
    """A page may have no command, so the test above would pass if none were found."""
    lines = [
        "wsdcast train --run a",
        "srun wsdcast score \\\n  --run a",
        "torchrun -m -- wsdcast train",
        "1 2 * * * cd a && b/bin/wsdcast train >> log",
    ]
    (tmp_path / "a.md").write_text("```sh\n" + "\n".join(lines) + "\n```\n```python\nwsdcast x\n```\nwsdcast y\n")
    assert commands_in(tmp_path / "a.md") == ["train --run a", "score   --run a", "train", "train"]
    assert len(commands_in(ROOT / "README.md")) > 10
    assert sum(len(commands_in(page)) for page in PAGES_OF_DOCS) > 60


def test_names_are_in_the_files_where_contributing_says():
    places = re.findall(r"`(\w+)`\s+in\s+\[[^\]]+\]\(([^)]+)\)", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(places) > 20
    for name, path in places:
        assert re.search(rf"\b{name}\b", (ROOT / path).read_text()), f"{name} is not in {path}"


def test_defaults_shown_in_help_are_those_of_the_recipe():
    """The help of ``--members`` says 50, and the recipe has 50."""
    planet = recipe.load_recipe("planet")
    text = " ".join(CliRunner().invoke(app, ["rollout", "--help"], env={"COLUMNS": "200"}).stdout.split())
    settings = planet.rollout
    for value in (settings.members, settings.nfe, settings.starts, f"{settings.days:g}d", settings.seed):
        assert f"the recipe's: {value}" in text
    prepare = " ".join(CliRunner().invoke(app, ["prepare", "--help"], env={"COLUMNS": "200"}).stdout.split())
    assert f"the recipe's: {planet.data.grid}" in prepare
    assert f"the recipe's: {planet.data.source}" in prepare


def test_defaults_shown_in_help_are_those_of_the_recipe_of_images():
    made = load("made", ImageRecipe).dump()
    for command, names in (
        ("prepare", {"data": ["source"]}),
        ("train", {"generator": ["prior"]}),
        ("sample", {"sample": ["contexts", "samples", "nfe", "solver", "grid_in_time", "warmth", "seed", "protocol"]}),
        ("study", {"study": ["seeds", "priors", "ablations", "nfe", "solvers", "visible", "warmths", "contexts", "samples"]}),
    ):
        options = {option.name: option for option in get_command(app).commands["inpaint"].commands[command].params}
        for section, keys in names.items():
            for key in keys:
                value = made[section][key]
                items = value if isinstance(value, list) else [value]
                words = ",".join(f"{item:g}" if isinstance(item, float) else str(item) for item in items)
                assert options[key].show_default.replace(", ", ",") == f"the recipe's: {words}", (command, key)
    visible = {option.name: option for option in get_command(app).commands["inpaint"].commands["sample"].params}["visible"]
    assert visible.show_default == f"the recipe's: {made['task']['visible_test']:g}"


def test_the_shown_recipe_shows_every_key_and_marks_those_that_differ_from_the_default():
    text = (experiment._shipped_directory() / "planet.yaml").read_text()
    shown = yaml.safe_load(text)
    full = recipe.load_recipe("planet").dump()
    assert {section: set(value) for section, value in shown.items() if isinstance(value, dict)} == {
        section: set(value) for section, value in full.items() if isinstance(value, dict)
    }
    default = recipe.Recipe(name="planet").dump()
    of_planet = {(section, key) for section in shown if isinstance(shown[section], dict) for key in shown[section]}
    differ = [(section, key) for section, key in sorted(of_planet) if full[section][key] != default[section][key]]
    lines = [line for line in text.splitlines() if "# default" in line]
    assert len(lines) == len(differ)
    for section, key in differ:
        value = re.escape(str(default[section][key]).replace("'", ""))
        assert any(re.match(rf"  {key}: .*# default {value}(;|$)", line) for line in lines), key


@pytest.mark.parametrize("path", sorted(experiment._shipped_directory().rglob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_name_no_source_outside_the_working_directory(path):
    """A wheel holds the recipes but no data."""
    data = yaml.safe_load(path.read_text())["data"]
    assert not any(str(data.get(key, "")).startswith(("/", "..", "~")) for key in ("source", "test"))


FLOW = {
    "generator__objective": "flow",
    "generator__steps": 2000,
    "few_steps__steps": 1000,
    "rollout__nfe": 10,
    "study__nfe": [2, 4, 6, 10, 20],
    "study__rollout_nfe": [4, 20],
}
"""The planet's recipe without the distilled network, with which the studies of the flow were made."""
GFS_FLOW = FLOW | {"generator__steps": 1600, "study__nfe": [2, 4, 10, 20]}
SOLVERS = FLOW | {
    "study__priors": ["warm", "standard"],
    "study__ablations": [],
    "study__rollout_nfe": [],
    "study__nfe": [2, 4, 6, 10],
    "study__solvers": ["midpoint", "euler", "ab2", "dpm2", "dpm3"],
    "study__grids_in_time": ["uniform", "log-snr"],
}


PAGES = [("planet-study", "planet", FLOW), ("gfs", "gfs", GFS_FLOW), ("solvers", "planet", SOLVERS)]


@pytest.mark.parametrize(("page", "name", "changes"), PAGES)
def test_results_carry_the_hash_of_the_recipe_as_it_is(page, name, changes):
    """If the recipe has another hash now, its results must be computed again."""
    digest = recipe.load_recipe(name).changed(**changes).digest()
    assert f"Recipe {name}, hash {digest}" in (ROOT / f"docs/results/{page}.md").read_text()


def test_the_page_where_the_warm_start_pays_has_the_hashes_of_its_script_and_of_the_two_studies():
    script = runpy.run_path(str(ROOT / "examples/where_the_warm_start_pays.py"))
    recipes = [script["recipe_of"](stirring) for stirring in script["STIRRINGS"]]
    recipes += [recipe.load_recipe("gfs").changed(**GFS_FLOW), recipe.load_recipe("planet").changed(**FLOW)]
    rows = re.findall(r"^\| (?:planet|gfs).* (\w{16}) \|$", (ROOT / "docs/results/where.md").read_text(), re.MULTILINE)
    assert list(dict.fromkeys(rows)) == [one.digest() for one in recipes]


def test_results_on_images_carry_the_hash_of_the_recipe_as_it_is():
    part = {"data__source": "train_18k.npz", "data__test": "test_5k.npz"}
    digest = experiment.load("cifar10-small", ImageRecipe).changed(**part).digest()
    assert f"recipe hash {digest}" in (ROOT / "docs/results/cifar10.md").read_text()
