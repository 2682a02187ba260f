"""Two commands at the same time: which of them is refused, and what it leaves to the other."""

from __future__ import annotations

import pytest

from wsdcast.runs import locks
from wsdcast.runs.complete import complete
from wsdcast.runs.errors import UserError
from wsdcast.runs.locks import alone


def test_of_two_that_write_one_file_the_second_is_refused_and_harms_nothing(tmp_path):
    """Both had one temporary file: the second removed that of the first, which ended in a traceback, or wrote on in that of the second."""
    path = tmp_path / "products.nc"
    path.write_text("old")
    with complete(path) as partial, complete(path.with_suffix(".zarr")) as other:
        partial.write_text("new")
        for _ in range(2):
            with pytest.raises(UserError, match=r"^another wsdcast command writes .*products\.nc; wait for it"), complete(path):
                raise AssertionError
        other.mkdir()
    assert path.read_text() == "new"
    assert {entry.name for entry in tmp_path.iterdir()} == {"products.nc", "products.zarr"}
    with complete(path) as partial:
        partial.write_text("newer")
    assert path.read_text() == "newer"


def test_a_refusal_leaves_the_lock_to_whoever_holds_it(tmp_path):
    """It removed the run directory if that was empty still, and with it the lock, so that a third command could begin."""
    with alone(tmp_path / "run"):
        for _ in range(2):
            with pytest.raises(UserError, match="another wsdcast command is at work in"), alone(tmp_path / "run"):
                raise AssertionError
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(locks.fcntl is None, reason="needs the locks of Unix")
@pytest.mark.parametrize("made_again", [False, True])
def test_the_lock_of_a_directory_that_was_removed_meanwhile_is_none(made_again, tmp_path, monkeypatch):
    """Between opening and locking, the process that had the lock could remove the directory. A third one then began beside the second."""
    flock = locks.fcntl.flock

    def removed_before(*arguments):
        (tmp_path / "run").rename(tmp_path / "removed")
        if made_again:
            (tmp_path / "run").mkdir()
        flock(*arguments)

    monkeypatch.setattr(locks.fcntl, "flock", removed_before)
    with pytest.raises(UserError, match="another wsdcast command is at work in"), alone(tmp_path / "run"):
        raise AssertionError
