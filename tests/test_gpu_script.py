"""Tests of ``examples/on_a_gpu.sh``, which runs where there is a GPU: its commands exist and take the options that it gives them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import typer

from wsdcast.cli import app

SCRIPT = Path(__file__).parents[1] / "examples/on_a_gpu.sh"

RECORD = """#!/usr/bin/env python3
import json, os, pathlib, sys
with open(os.environ["RECORDED"], "a") as file:
    print(json.dumps([os.environ.get("CUDA_VISIBLE_DEVICES"), *sys.argv]), file=file)
if sys.argv[1:2] == ["rollout"]:
    run = pathlib.Path(sys.argv[sys.argv.index("--run") + 1])
    for name in ("forecast.zarr", "moments_forecast.zarr", "scores.nc"):
        (run / name).mkdir(parents=True, exist_ok=True)
"""


def recorded(part: str, directory: Path) -> list[list[str]]:
    """Return the commands of one part: the GPUs that each may see, the program, and its arguments. None of them runs."""
    (directory / "bin").mkdir()
    for program in ("wsdcast", "nvidia-smi"):
        (directory / "bin" / program).write_text(RECORD)
        (directory / "bin" / program).chmod(0o755)
    environment = os.environ | {"PATH": f"{directory / 'bin'}:{os.environ['PATH']}", "RECORDED": str(directory / "recorded")}
    done = subprocess.run(["sh", str(SCRIPT), part, str(directory / "out")], capture_output=True, text=True, env=environment, cwd=directory)
    assert done.returncode == 0, done.stderr
    commands = [json.loads(line) for line in (directory / "recorded").read_text().splitlines()]
    return [[visible, Path(program).name, *arguments] for visible, program, *arguments in commands]


@pytest.mark.parametrize(("part", "count"), [("rollout", 5), ("train", 6), ("weather", 6), ("images", 2)])
def test_the_commands_of_each_part_can_be_read(part, count, tmp_path):
    commands = [arguments for _, program, *arguments in recorded(part, tmp_path) if program == "wsdcast"]
    assert len(commands) == count
    for arguments in commands:
        command = typer.main.get_command(app)
        while getattr(command, "commands", None):
            name, *arguments = arguments
            command = command.commands[name]
        with command.make_context(name, arguments):  # raises if an option is not known or not allowed
            pass


def test_a_training_moves_from_the_cpu_to_the_gpu_and_back(tmp_path):
    devices = [visible for visible, program, *arguments in recorded("train", tmp_path) if program == "wsdcast" and arguments[0] == "train"]
    assert devices == ["", "0", ""]
