"""Tests of ``examples/on_a_gpu.sh``, which runs where there is a GPU: its commands exist and take the options that it gives them."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
from pathlib import Path

import pytest
import typer
from conftest import TINY

from wsdcast.cli import app
from wsdcast.runs import devices

SCRIPT = Path(__file__).parents[1] / "examples/on_a_gpu.sh"

RECORD = """#!/bin/sh
[ "$TORCHINDUCTOR_CACHE_DIR" = "$PWD/out/kernels" ] || exit 9  # they outlive the machine
[ "$1" = -c ] && exit  # Python looks whether all packages are there
{ printf '%s' "${CUDA_VISIBLE_DEVICES-all}"; printf '\\t%s' "$0" "$@"; echo; } >> "$RECORDED"
exit $CODE
"""
PARTS = {"rollout": 3, "train": 1, "members": 10, "move": 4, "others": 3, "weather": 6, "images": 2}
"""The number of commands of each part."""


def recorded(directory: Path, *parts: str, code: int = 0) -> list[list[str]]:
    """Return the commands of some parts: the GPUs that each may see, and its arguments. None of them runs; each ends with ``code``."""
    (directory / "bin").mkdir(parents=True, exist_ok=True)
    for program in ("wsdcast", "python3", "nvidia-smi"):
        (directory / "bin" / program).write_text(RECORD)
        (directory / "bin" / program).chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name not in ("CUDA_VISIBLE_DEVICES", "TORCHINDUCTOR_CACHE_DIR")}
    environment |= {"PATH": f"{directory / 'bin'}:{os.environ['PATH']}", "RECORDED": str(directory / "recorded"), "CODE": str(code)}
    done = subprocess.run(["sh", str(SCRIPT), "out", *parts], capture_output=True, text=True, env=environment, cwd=directory)
    assert done.returncode == 0, done.stderr
    commands = [line.split("\t") for line in (directory / "recorded").read_text().splitlines()]
    assert done.stdout.count("SECONDS_EACH must be longer") == 3 * ("move" in (parts or PARTS))  # these trainings print nothing
    assert done.stdout.count(f"ended with {code}") == (len(commands) - 1 if code else 0)
    return [[visible, *arguments] for visible, program, *arguments in commands if Path(program).name == "wsdcast"]


@pytest.mark.parametrize(("part", "count"), PARTS.items())
def test_the_commands_of_each_part_can_be_read(part, count, tmp_path):
    commands = [arguments for _, *arguments in recorded(tmp_path, part)]
    assert len(commands) == count
    for arguments in commands:
        command = typer.main.get_command(app)
        while getattr(command, "commands", None):
            name, *arguments = arguments
            command = command.commands[name]
        with command.make_context(name, arguments):  # raises if an option is not known or not allowed
            pass


def test_a_command_that_fails_does_not_keep_the_next_ones_from_running(tmp_path):
    parts = [part for part in PARTS if part != "move"]  # its trainings are stopped, so how they end says nothing
    commands = recorded(tmp_path / "well", *parts)
    assert len(commands) == sum(PARTS[part] for part in parts)
    assert recorded(tmp_path / "badly", *parts, code=3) == commands


def test_an_unknown_part_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(AssertionError, match=r"no part sped; the parts are: rollout train"):
        recorded(tmp_path, "rollout", "sped")
    assert not (tmp_path / "recorded").exists()


def test_all_parts_run_if_none_is_named(tmp_path):
    assert recorded(tmp_path / "all") == recorded(tmp_path / "named", *PARTS)


def test_a_training_moves_from_the_cpu_to_the_gpu_and_back(tmp_path):
    assert [visible for visible, stage, *_ in recorded(tmp_path, "move") if stage == "train"] == ["", "0", ""]


def test_the_same_members_are_made_on_the_gpu_and_on_the_cpu(tmp_path):
    commands = [command for command in recorded(tmp_path, "members") if command[1] == "rollout"]
    assert [(visible, "--deterministic" in arguments) for visible, *arguments in commands] == [
        ("0", False), ("0", True), ("0", True), ("", False)
    ]  # fmt: skip


def test_the_steps_of_the_study_of_images_are_those_that_are_asked_for(tmp_path, monkeypatch):
    """A hundred thousand became 30,000, because the script changed the recipe's text, and then changed a part of what it had written."""
    monkeypatch.setenv("STEPS", "100000")
    (_, *prepare), _ = recorded(tmp_path, "images")
    assert prepare[-6:] == ["-o", "moments.steps=100000", "-o", "generator.steps=100000", "-o", "classifier.steps=3000"]


def test_a_second_try_has_the_networks_of_a_study_that_its_limit_stopped_before(tmp_path, monkeypatch):
    """They were copied into the copy of the first try, or to where their link to the record led nowhere. Paths have spaces.

    The copy has no forecasts: those of the first try, which are not deterministic, would have stayed.
    """
    for name in ("GFS", "RUN"):
        (tmp_path / f"my {name}").mkdir()
        monkeypatch.setenv(name, str(tmp_path / f"my {name}"))
    (tmp_path / "my GFS/analysis.zarr").mkdir()
    trained, copied = tmp_path / "out/gfs/study/warm-0", tmp_path / "out/gfs/study/exact"
    trained.mkdir(parents=True)
    (trained / "analysis.zarr").symlink_to("../../analysis.zarr")
    for number in (1, 2):
        (trained / "network").write_text(str(number))
        commands = recorded(tmp_path, "weather", "precision")
        assert sum("out/gfs/study/exact" in command for command in commands) == 2 * number  # it is rolled out and scored
        assert {path.name for path in copied.iterdir()} == {"analysis.zarr", "network"}
        assert (copied / "network").read_text() == str(number)
        assert (copied / "analysis.zarr").is_dir()
        (trained / "forecast.zarr").mkdir(exist_ok=True)
    assert (tmp_path / "recorded").read_text().endswith(f"eight_bits.py\t{tmp_path}/my RUN\n")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # warnings of the compiler about its own code
def test_an_evaluation_is_timed_in_each_way_and_a_way_that_fails_keeps_no_other_from_running(tmp_path, monkeypatch, capsys):
    (tmp_path / "tiny.yaml").write_text(TINY)
    compiled = devices.compiled

    def fails_without_options(network, options):
        if not options:
            raise RuntimeError("no kernel")
        compiled(network, options)

    monkeypatch.setattr(devices, "compiled", fails_without_options)
    main = runpy.run_path(str(SCRIPT.with_name("evaluation_on_a_gpu.py")))["main"]
    main(str(tmp_path / "tiny.yaml"), "2")
    eager, failed, fast, *profile = capsys.readouterr().out.splitlines()
    assert failed == "compiled: RuntimeError: no kernel"
    assert all(
        re.fullmatch(rf"{way}: \d+\.\d ms, the first time \d+\.\d s", line)
        for way, line in {"eager": eager, "compiled as for a rollout": fast}.items()
    )
    assert "CPU total" in "\n".join(profile)
