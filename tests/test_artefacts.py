"""Artefacts are whole or not there, and what is not an artefact is kept."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from commands import refused

import wsdcast
from wsdcast.runs.artefact import is_of, make_stamp
from wsdcast.runs.complete import complete, partial_of, writing_netcdf
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import ANALYSIS, FORECAST, GENERATOR
from wsdcast.runs.resources import new_mapped
from wsdcast.runs.unfinished import CLAIM, claim, claim_of, mark, marked, marks_of
from wsdcast.weather.recipe import Recipe


def test_a_run_directory_that_is_a_file_is_named(directory):
    (directory / "afile").write_text("mine")
    assert "afile: is a file, not a directory" in refused("prepare", "--run", "afile")


def test_a_foreign_directory_with_the_name_of_an_artefact_is_kept(directory):
    (directory / "runs/planet/analysis.zarr").mkdir(parents=True)
    (directory / "runs/planet/analysis.zarr/precious.txt").write_text("keep me")
    assert "not written by wsdcast; move it away" in refused("prepare")
    assert (directory / "runs/planet/analysis.zarr/precious.txt").read_text() == "keep me"


@pytest.mark.parametrize("name", ["study.nc", "scores.csv", "report.html", "forecast.gif", "a.wsd"])
def test_a_directory_in_the_place_of_a_file_is_kept(directory, name):
    (directory / name).mkdir()
    (directory / name / "precious.txt").write_text("keep me")
    refusal = pytest.raises(UserError, match=f"{name}: is a directory, where a file is to be written; move it away$")
    with refusal, complete(directory / name) as partial:
        partial.write_text("new")
    assert {path.name for path in directory.rglob("*")} == {name, "precious.txt"}


def test_a_link_to_a_disk_that_is_not_mounted_is_named_before_anything_is_made(directory):
    (directory / "runs/planet").mkdir(parents=True)
    (directory / "runs/planet/analysis.zarr").symlink_to("/nowhere/analysis.zarr")
    assert "analysis.zarr: links to /nowhere/analysis.zarr, which is not there" in refused("prepare")
    assert [path.name for path in (directory / "runs/planet").iterdir()] == ["analysis.zarr"]


@pytest.mark.parametrize("stamp", ["[]", '{"recipe": 5, "hash": "", "inputs": "", "id": ""}', pytest.param("[" * 100_000, id="deep")])
def test_a_stamp_of_the_wrong_type_is_refused(directory, stamp):
    (directory / "run/generator").mkdir(parents=True)
    (directory / "run/generator/stamp.json").write_text(stamp)
    assert "run/generator: in the place of an artefact, but not written by wsdcast" in refused("rollout", "--run", "run")


def test_a_run_directory_below_a_file_is_refused(directory):
    (directory / "file").write_text("")
    assert "Not a directory" in refused("prepare", "--run", "file/run")


def write_half(path: Path, error: BaseException) -> None:
    with complete(path) as partial:
        partial.mkdir()
        (partial / "half").write_text("")
        raise error


def test_an_interrupted_artefact_is_never_taken_for_a_complete_one(directory):
    """After an interruption the final name does not exist, and the next run starts from the beginning."""
    path = directory / "thing.zarr"
    with pytest.raises(KeyboardInterrupt):
        write_half(path, KeyboardInterrupt())
    assert not list(directory.iterdir())
    leftover = directory / ".thing.partial.zarr"  # as after kill -9
    leftover.mkdir()
    (leftover / "half").write_text("")
    with complete(path) as partial:
        assert not partial.exists()
        partial.mkdir()
        (partial / "whole").write_text("")
    assert [item.name for item in path.iterdir()] == ["whole"]
    with pytest.raises(OSError, match="broken"):
        write_half(path, OSError("broken"))
    assert [item.name for item in path.iterdir()] == ["whole"]  # the old one stays


@pytest.mark.parametrize("name", ["moments", "forecast.zarr", "scores.nc"])
def test_a_link_is_replaced_and_what_it_leads_to_stays(directory, name):
    """A variant of a study that is trained anew must not change a network that it shared by a link."""
    shared, path = directory / "shared", directory / name
    file = Path() if path.suffix == ".nc" else Path("content")
    for place, text in ((shared, "old"), (path, "new")):
        with complete(place) as partial:
            (partial / file).parent.mkdir(exist_ok=True)
            (partial / file).write_text(text)
        if place == shared:
            path.symlink_to(shared)
    assert not path.is_symlink()
    assert [(place / file).read_text() for place in (shared, path)] == ["old", "new"]
    assert {item.name for item in directory.iterdir()} == {"shared", name}


def test_the_old_artefact_is_restored_after_a_kill_between_the_two_renamings(directory):
    """The old directory has its name again when the artefact is next written."""
    (directory / ".thing.old.zarr").mkdir()
    (directory / ".thing.old.zarr/whole").write_text("")
    with pytest.raises(OSError, match="broken"):
        write_half(directory / "thing.zarr", OSError("broken"))
    assert [item.name for item in (directory / "thing.zarr").iterdir()] == ["whole"]


@pytest.mark.parametrize(
    ("name", "section", "earlier"),
    [
        (ANALYSIS, "data", {"end": "2020-01-03T23:59:59"}),
        (ANALYSIS, "data", {"end": "2020-01-03T23:59:59.999999"}),
        (FORECAST, "rollout", {"start": "2020-01-03"}),
        (FORECAST, "rollout", {"start": "2020-01-03 00:00"}),
    ],
)
def test_an_artefact_stays_current_whose_times_an_earlier_version_stored_in_another_spelling(directory, name, section, earlier):
    recipe = Recipe(name="x", data={"end": "2020-01-03"}, rollout={"start": "2020-01-03T00"})
    stamp = make_stamp(recipe, directory, name) | {"hash": "of the earlier spelling"}
    stamp["recipe"][section] |= earlier
    assert is_of(stamp, recipe, directory, name)


def test_a_stamp_names_the_version_and_an_artefact_of_another_version_stays_current(directory):
    recipe = Recipe(name="x")
    stamp = make_stamp(recipe, directory, FORECAST)
    assert stamp.pop("version") == wsdcast.__version__
    assert is_of(stamp, recipe, directory, FORECAST)
    assert is_of(stamp | {"version": "9"}, recipe, directory, FORECAST)
    assert "version" not in claim_of(make_stamp(recipe, directory, FORECAST))


def test_an_artefact_with_a_recipe_that_this_version_does_not_know_is_of_another_recipe(directory):
    recipe = Recipe(name="x")
    stamp = make_stamp(recipe, directory, FORECAST) | {"hash": "of another version"}
    stamp["recipe"]["rollout"] |= {"of_another_version": 1}
    assert not is_of(stamp, recipe, directory, FORECAST)


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can grow beyond 1000 bytes, which is the same error as that of a full disk, but for its number.

    It is no fixture, because pytest would end without a word if its own output goes to a file: it reports a test before its fixtures end.
    """
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_a_netcdf_file_that_the_disk_has_no_room_for_is_named(tmp_path):
    """The library raises a RuntimeError without a reason, which would be a traceback."""
    path = tmp_path / "fields.nc"
    fields = xr.Dataset({"u": ("x", np.zeros(1000))})
    said = r"fields.nc: cannot be written \(.*; .* are free on the disk\)"
    with full_disk(), pytest.raises(OSError, match=said), complete(path) as partial, writing_netcdf(path):
        fields.to_netcdf(partial, engine="netcdf4")
    assert not path.exists()
    assert not partial.exists()


def test_an_artefact_that_the_disk_has_no_room_for_is_named(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with full_disk(), pytest.raises(OSError, match="File too large") as raised, complete(path) as partial:
        partial.write_bytes(bytes(2000))
    assert raised.value.filename == str(path)
    assert path.read_text() == "old"


def test_an_error_that_is_not_the_disks_keeps_its_own_file(tmp_path):
    with pytest.raises(FileNotFoundError) as raised, complete(tmp_path / "table.csv"):
        (tmp_path / "source").read_bytes()
    assert raised.value.filename == str(tmp_path / "source")


def test_the_disk_reserves_all_bytes_of_a_mapped_file(tmp_path):
    """If it did not and filled up before they are written, the process would end by a signal."""
    array = new_mapped(tmp_path / "a.npy", np.float32, (1000, 250))
    assert array.shape == (1000, 250)
    assert array.dtype == np.float32
    assert not array.any()
    assert (tmp_path / "a.npy").stat().st_blocks * 512 >= 1_000_000


def test_an_unfinished_artefact_goes_on_if_its_claim_agrees_in_what_it_says(tmp_path):
    """Claims of older versions say less. The message names the lists of a claim that differs."""
    partial, older = tmp_path / ".forecast.partial.zarr", {"hash": "a", "inputs": "b"}
    claim(partial, older, overwrite=False)
    partial.mkdir()
    for times in (["2020-01-01T00"], ["2020-01-01T00"]):
        claim(partial, older | {"initial times": times}, overwrite=False)
        assert partial.exists()
    for other in ({"initial times": ["2020-01-02T00"]}, {"hash": "c"}):
        with pytest.raises(UserError, match=r"of another recipe or other settings \(its own initial times: 2020-01-01T00\); finish it"):
            claim(partial, older | other, overwrite=False)
        assert partial.exists()
    claim(partial, older | {"initial times": ["2020-01-02T00"]}, overwrite=True)
    assert not partial.exists()


@pytest.mark.parametrize("text", [b"", b'{"hash": ', b"[]", b"null", b"NaN", b'"hash"', b'{"hash": [null]}', b'{"hash": {}}', b"\xff\xfe"])
def test_an_unfinished_artefact_whose_claim_is_damaged_is_not_taken_for_ones_own(tmp_path, text):
    """Older versions left claims that were cut short on a full disk. Nobody knows what the content is made from."""
    partial = tmp_path / ".generator.partial"
    claim(partial, {"hash": "a"}, overwrite=False)
    partial.mkdir()
    (marks_of(partial) / CLAIM).write_bytes(text)
    with pytest.raises(UserError, match="unfinished and of another recipe"):
        claim(partial, {"hash": "a"}, overwrite=False)
    assert partial.exists()
    claim(partial, {"hash": "a"}, overwrite=True)
    assert not partial.exists()


def test_marks_without_a_claim_go_with_the_content_that_they_are_of(tmp_path):
    """A run that was killed while it discarded an artefact left some of them. Its parts would count as written."""
    partial = tmp_path / ".forecast.partial.zarr"
    partial.mkdir()
    marks_of(partial).mkdir()
    mark(partial, "0", "inf")
    claim(partial, {"hash": "a"}, overwrite=False)
    assert not partial.exists()
    assert marked(partial, "0") is None


def test_marks_of_a_finished_artefact_do_not_count_for_the_next_one(tmp_path):
    """A run was killed after its artefact got its name and before its marks were removed. Then the artefact was deleted."""
    partial = tmp_path / ".forecast.partial.zarr"
    claim(partial, {"hash": "a"}, overwrite=False)
    for content in ({"hash": "a"}, {"hash": "b"}):
        mark(partial, "0", "complete")
        claim(partial, content, overwrite=False)
        assert marked(partial, "0") is None


def test_an_unfinished_artefact_goes_on_unless_a_section_changed_that_it_depends_on(tmp_path):
    recipe, partial = Recipe(name="x"), partial_of(tmp_path / GENERATOR)
    for other in (recipe, recipe.changed(rollout__members=7)):
        claim(partial, claim_of(make_stamp(other, tmp_path, GENERATOR)), overwrite=False)
        partial.mkdir(exist_ok=True)
    with pytest.raises(UserError, match="is unfinished and of another recipe"):
        claim(partial, claim_of(make_stamp(recipe.changed(generator__steps=7), tmp_path, GENERATOR)), overwrite=False)


def test_an_artefact_is_new_after_a_kill_before_the_old_one_was_removed(tmp_path):
    for name in (".thing.old.zarr/old", "thing.zarr/new"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("")
    with pytest.raises(OSError, match="broken"):
        write_half(tmp_path / "thing.zarr", OSError("broken"))
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == ["thing.zarr", "thing.zarr/new"]


def test_a_directory_that_cannot_be_written_to_is_reported_by_the_name_of_the_file(tmp_path, monkeypatch):
    """The name was that of a hidden lock. The test's user may be root, who can write everywhere."""
    made = Path.mkdir

    def refused(path, *arguments, **options):
        if path.name.endswith(".lock"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        made(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(PermissionError) as error, complete(tmp_path / "c.png"):
        pass
    assert error.value.filename == str(tmp_path / "c.png")
