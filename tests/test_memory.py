"""Tests that work that does not fit in memory is refused before it starts, and that sizes have readable units."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from wsdcast.runs import resources
from wsdcast.runs.errors import UserError
from wsdcast.runs.resources import free_memory, in_bytes, require_memory, require_space, size_of


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1, "1 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (4_260, "4.3 kB"),
        (426_000, "426 kB"),
        (999_600, "1 MB"),
        (21.4e9, "21 GB"),
        (4.24e12, "4.2 TB"),
        (3e16, "30000 TB"),
    ],
)
def test_sizes_in_units_that_tell(size, text):
    assert in_bytes(size) == text


def test_the_size_of_a_directory_is_that_of_the_files_which_are_there_alone(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/one").write_bytes(bytes(100))
    (tmp_path / "a/b/two").write_bytes(bytes(20))
    (tmp_path / "elsewhere").write_bytes(bytes(3))
    (tmp_path / "a/linked").hardlink_to(tmp_path / "elsewhere")
    assert [size_of(tmp_path / name) for name in ("a", "a/b", "nowhere")] == [120, 20, 0]


def test_only_work_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(resources, "free_memory", lambda: 21_000_000_000)
    require_memory(21e9, "the planet")
    with pytest.raises(UserError, match=r"the planet at 8x4 needs 4\.2 TB of memory, but only 21 GB are free"):
        require_memory(4.2e12, "the planet at 8x4")


def test_only_files_for_which_the_disk_has_no_room_are_refused(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda path: asked.append(path) or SimpleNamespace(free=1000))
    require_space(tmp_path / "not/yet", 1000)
    with pytest.raises(UserError, match=r"not/yet: needs 1 kB on disk, but only 1 kB are free"):
        require_space(tmp_path / "not/yet", 1001)
    assert asked == [tmp_path] * 2


def test_no_more_is_free_than_the_system_has(monkeypatch):
    monkeypatch.setattr(resources.psutil, "virtual_memory", lambda: SimpleNamespace(available=5000))
    assert free_memory() <= 5000


def group(directory: Path, limit: str, used: int, files: int, version: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    for name, content in zip(names, (limit, used), strict=True):
        (directory / name).write_text(f"{content}\n")
    statistics = {"anon": 7, "inactive_file": files} | ({"total_inactive_file": files + 10} if version == 1 else {})
    (directory / "memory.stat").write_text("".join(f"{name} {value}\n" for name, value in statistics.items()))


def test_limits_of_control_groups(tmp_path):
    """The limits of a job's group and its parents count, minus the memory used there. Cached files do not count as used."""
    root, membership = tmp_path / "cgroup", tmp_path / "membership"
    membership.write_text("0::/slurm/job:1\n")
    group(tmp_path, "10", 5, 0, version=2)  # outside the file system of groups
    group(root, "max", 0, 0, version=2)
    group(root / "slurm", "1000", 900, 300, version=2)
    group(root / "slurm/job:1", "max", 500, 0, version=2)
    assert list(resources._free_in_groups(root, membership)) == [400]
    group(root / "slurm/job:1", "600", 500, 50, version=2)
    assert list(resources._free_in_groups(root, membership)) == [150, 400]
    group(root / "slurm/job:1", "600", 700, 50, version=2)  # more than a limit that was lowered
    assert list(resources._free_in_groups(root, membership)) == [0, 400]


def test_limits_of_control_groups_of_version_1(tmp_path):
    root, membership = tmp_path / "cgroup", tmp_path / "membership"
    membership.write_text("5:cpu:/docker\n4:memory:/docker\n0::/\n")
    group(root, "1000", 999, 0, version=1)  # not a group of the controller memory
    group(root / "memory/docker", "1000", 700, 100, version=1)
    assert list(resources._free_in_groups(root, membership)) == [410]


def test_a_container_that_does_not_see_its_own_path(tmp_path):
    """Inside a container the group's files are at the root, but the path in the membership file is the outer one."""
    root, membership = tmp_path / "cgroup", tmp_path / "membership"
    membership.write_text("0::/../outside\n")
    group(root, "2000", 500, 0, version=2)
    assert list(resources._free_in_groups(root, membership)) == [1500]
    (root / "memory.stat").write_text("anon 7\n")  # a system that does not say how much of the memory it can reclaim
    assert list(resources._free_in_groups(root, membership)) == []
    assert list(resources._free_in_groups(root, tmp_path / "none")) == []
