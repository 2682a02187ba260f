"""The commands: their help, their exit codes, and what they print."""

from __future__ import annotations

import errno
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from commands import invoke, refused
from typer.testing import CliRunner

import wsdcast
from wsdcast.bench.measure import Benchmark
from wsdcast.cli import app
from wsdcast.cli.command import in_days, in_hours
from wsdcast.cli.show import show
from wsdcast.runs.artefact import read_stamp
from wsdcast.runs.complete import complete
from wsdcast.runs.summary import Summary

INPAINT = [["inpaint", *stage] for stage in ([], ["prepare"], ["train"], ["sample"], ["score"], ["study"], ["run"])]


@pytest.mark.parametrize("command", [[], ["prepare"], ["train"], ["rollout"], ["score"], ["plot"], ["run"], *INPAINT], ids=" ".join)
def test_help_fits_eighty_columns(command):
    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "…" not in result.stdout  # nothing is cut off


def test_the_help_of_forecast_says_which_keys_it_takes():
    """A model file fixes the others."""
    result = CliRunner().invoke(app, ["forecast", "--help"], env={"COLUMNS": "200"})
    assert "Change a key of the recipe's section rollout, such as rollout.solver=ab2; repeatable." in result.stdout


def test_the_module_runs_and_prints_the_version():
    result = CliRunner().invoke(app, ["--version"])
    assert result.stdout == f"wsdcast {wsdcast.__version__}\n"
    done = subprocess.run([sys.executable, "-m", "wsdcast", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == result.stdout


def test_python_completes_the_functions_of_the_package():
    assert {*wsdcast.__all__, "__version__"} <= set(dir(wsdcast))
    assert all(callable(getattr(wsdcast, name)) for name in wsdcast.__all__)


def test_the_shell_completes_commands():
    """As bash asks for it once ``wsdcast --install-completion`` was run."""
    environment = os.environ | {"_WSDCAST_COMPLETE": "complete_bash", "COMP_WORDS": "wsdcast ro", "COMP_CWORD": "1"}
    done = subprocess.run([Path(sys.executable).with_name("wsdcast")], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["rollout"]


def test_help_does_not_load_torch():
    script = "import sys; from wsdcast.cli import app; import wsdcast; sys.exit('torch' in sys.modules or 'xarray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_an_unknown_option_ends_with_exit_code_2():
    assert CliRunner().invoke(app, ["rollout", "--memebrs", "3"]).exit_code == 2


@pytest.mark.parametrize("processes", ["", "1"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_with_one_line_and_without_temporary_files(directory, monkeypatch, number, processes):
    """Also under a launcher that starts one process."""
    if processes:
        monkeypatch.setenv("WORLD_SIZE", processes)

    def sends_itself_a_signal(*arguments, **more):
        with TemporaryDirectory(dir=directory), complete(directory / "x.nc") as partial:
            partial.write_text("unfinished")
            os.kill(os.getpid(), number)
            time.sleep(10)

    monkeypatch.setattr("wsdcast.weather.stages.prepare.prepare", sends_itself_a_signal)
    before = signal.getsignal(signal.SIGTERM)
    of_tests = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets its background jobs ignore SIGINT
    code, line = invoke("prepare")
    signal.signal(signal.SIGINT, of_tests)
    assert code == 128 + number
    assert line == "wsdcast: interrupted; what is finished is kept\n"
    assert not list(directory.iterdir())
    assert signal.getsignal(signal.SIGTERM) == before == signal.SIG_DFL


def test_sigterm_is_left_to_the_handler_of_another_program_and_ends_one_of_several_processes_at_once(monkeypatch):
    def handler_of(*_: object, **__: object) -> Summary:
        handlers.append(signal.getsignal(signal.SIGTERM))
        return Summary("prepare")

    handlers: list[object] = []
    monkeypatch.setattr("wsdcast.weather.stages.prepare.prepare", handler_of)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    invoke("prepare")
    signal.signal(signal.SIGTERM, before)
    monkeypatch.setenv("WORLD_SIZE", "2")
    invoke("prepare")
    assert handlers == [signal.SIG_IGN, signal.SIG_DFL]


def test_a_command_runs_in_any_thread(directory):
    """As in a program with windows. Only the main thread may set handlers of signals."""
    with ThreadPoolExecutor(1) as pool:
        code, line = pool.submit(invoke, "score").result()
    assert code == 2
    assert "runs/planet/analysis.zarr is not there; run `wsdcast prepare` first" in line


@pytest.mark.parametrize("allocate", [lambda: np.zeros(2**59), lambda: torch.empty(2**58)])
def test_memory_that_is_full_is_one_line(allocate, monkeypatch):
    monkeypatch.setattr("wsdcast.weather.stages.prepare.prepare", lambda *_, **__: allocate())
    code, line = invoke("prepare")
    assert (code, line.count("\n")) == (2, 1)
    assert line.startswith("wsdcast: memory is full")


def test_a_path_that_the_locale_cannot_encode_is_one_line(directory, monkeypatch):
    """As with LC_ALL=C, PYTHONUTF8=0 and PYTHONCOERCECLOCALE=0, where the NetCDF library encodes paths in ASCII."""
    monkeypatch.setattr("xarray.open_dataset", lambda path: str(path).encode("ascii"))
    monkeypatch.setattr("wsdcast.weather.stages.prepare.prepare", lambda *_, **__: read_stamp(Path("rün.nc")))
    (directory / "rün.nc").touch()
    advice = "use ASCII letters only, or a locale of UTF-8 (PYTHONUTF8=1)"
    assert refused("prepare") == f"wsdcast: 'r\\xfcn.nc': ascii cannot encode it; {advice}\n"


def test_of_a_long_text_that_the_locale_cannot_encode_only_a_part_is_shown(monkeypatch):
    monkeypatch.setattr("wsdcast.weather.stages.prepare.prepare", lambda *_, **__: ("x" * 10_000 + "\u2013").encode("latin-1"))
    assert refused("prepare").startswith("wsdcast: '\\u2013': latin-1 cannot encode it; use ASCII")


def test_debug_raises_also_what_torch_raises_without_memory(monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("wsdcast.weather.stages.train.train", full)
    assert invoke("train")[0] == 2
    assert isinstance(CliRunner().invoke(app, ["train", "--debug"]).exception, RuntimeError)


def test_lengths_are_in_days_or_hours():
    assert (in_days("36h"), in_days("10d"), in_hours("1d", "--window"), in_hours("9h", "--step", 3)) == (1.5, 10, 24, 9)


@pytest.mark.parametrize("length", ["9" * 9 + "d", "9" * 400 + "h"])
def test_a_length_beyond_all_times_is_refused(length):
    assert invoke("rollout", "--lead", length)[0] == 2
    assert "expected a positive multiple of 6 h" in invoke("rollout", "--lead", length)[1]


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize("arguments", [["score", "a", "b"], ["bench", "train"]])
def test_a_command_whose_reader_is_gone_ends_quietly(arguments, options, monkeypatch, capsys):
    """As behind `| head`: exit code 1, as with click and rich, and nothing left in the buffer, which Python would write at its end."""
    monkeypatch.setattr("wsdcast.weather.stages.score.score_pair", lambda *_: Summary("compare", {"a": "b"}))
    monkeypatch.setattr("wsdcast.bench.train.bench_train", lambda _: Benchmark("train", "nothing", 1.0, {}))
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        with pytest.raises(SystemExit) as ended:
            app([*arguments, *options])
    assert (ended.value.code, capsys.readouterr().err) == (1, "")


@pytest.mark.parametrize(
    ("error", "words"), [(BrokenPipeError(errno.EPIPE, "Broken pipe"), "the disk: Broken pipe"), (OSError("not a\nfile"), "not a file")]
)
def test_errors_of_files_and_of_pipes_of_other_programs_are_named(error, words, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("wsdcast.weather.stages.train.train", broken)
    assert invoke("train") == (2, f"wsdcast: {words}\n")


def test_a_gpu_without_enough_memory_is_one_line(monkeypatch):
    def full(*arguments, **more):
        raise sys.modules["torch"].OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB.")

    monkeypatch.setattr("wsdcast.weather.stages.prepare.prepare", full)
    result = CliRunner().invoke(app, ["prepare"])
    assert (result.exit_code, result.stderr) == (2, "wsdcast: CUDA out of memory. Tried to allocate 2.00 GiB.\n")


def written_to(terminal: int) -> str:
    """Return what was written to a terminal whose other end is closed, and close it. A single read may return the first write alone."""
    parts = []
    with suppress(OSError), os.fdopen(terminal, "rb", buffering=0) as file:  # Linux ends with an error
        while part := file.read(65536):
            parts.append(part)
    return b"".join(parts).decode()


def test_progress_is_shown_only_on_a_terminal():
    script = "from wsdcast.runs.progress import track; print(sum(track(range(5), 'adding up', 5)))"
    silent = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (silent.stdout, silent.stderr) == ("10\n", "")
    terminal, other_end = pty.openpty()
    shown = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=other_end, text=True, check=True)
    os.close(other_end)
    picture = written_to(terminal)
    assert shown.stdout == "10\n"
    assert "adding up" in picture
    assert "5/5" in picture


def test_json_has_null_for_values_that_are_not_finite(capsys):
    show(Summary("score", facts={"a": float("nan")}, scores=[{"b": [1.5, float("inf")], "c": np.float64("nan")}]), json=True)
    printed = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert printed["facts"] == {"a": None}
    assert printed["scores"] == [{"b": [1.5, None], "c": None}]


@pytest.mark.parametrize(("of_user", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
@pytest.mark.parametrize("entry", ["import wsdcast", "import wsdcast.images", "from wsdcast.cli import app"])
def test_waiting_threads_sleep_unless_the_user_sets_another_policy(entry, of_user, expected):
    printed, _ = policy_of_threads(f"{entry}; import os, sys; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)", of_user)
    assert printed == f"{expected} False\n"


@pytest.mark.parametrize(("of_user", "passive"), [(None, True), ("ACTIVE", False)])
def test_torch_begins_with_that_policy(of_user, passive):
    """If torch uses GNU's OpenMP library, that library prints the policy that it understood."""
    _, about_threads = policy_of_threads("import wsdcast, torch", of_user)
    for turns in re.findall(r"GOMP_SPINCOUNT = '(\w+)'", about_threads):
        assert (turns == "0") == passive


def policy_of_threads(code: str, of_user: str | None) -> tuple[str, str]:
    """Return what Python prints to its two outputs when it runs the code, with the policy that the user has set."""
    environment = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    environment |= {"OMP_DISPLAY_ENV": "VERBOSE"} | ({"OMP_WAIT_POLICY": of_user} if of_user else {})
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    return done.stdout, done.stderr


def test_tables_have_a_dash_for_what_is_not_known(capsys):
    """One member has no spread, one initial time no interval, and a part of the globe no spectrum."""
    nan = float("nan")
    of_metric = {"lead_hours": 6, "starts": 1, "difference": 0.25, "interval": [nan, nan], "p": nan}
    show(Summary("score", scores=[{"lead_hours": 6, "crps_fair: a": 1.5, "power_deviation: a": nan, "spread_skill": nan}]), json=False)
    show(Summary("compare", scores=[of_metric | {"metric": "rmse", "first": 1.5, "second": 1.25}]), json=False)
    of_stations = {"lead_hours": 6, "pairs": 9, "crps_fair": 1.5, "bias": -0.5, "rmse": 2, "spread_skill": nan}
    show(Summary("score stations", scores=[of_stations]), json=False)
    of_part = {"lead_hours": 6, "crps_fair: a": 1.5, "spread_skill": 1.0}
    show(Summary("score", scores=[of_part]), json=False)
    printed = capsys.readouterr().out
    assert printed.count("deviation") == 1
    rows = [line.split() for line in printed.splitlines() if line.strip().startswith("6 h")]
    assert [row[2:] for row in rows] == [
        ["1.500", "-", "-"],
        ["RMSE", "1.500", "1.250", "+0.250", "-", "1"],
        ["9", "1.500", "-0.500", "2.000", "-"],
        ["1.500", "1.00"],
    ]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_result_leaves_the_process_at_once(as_json, monkeypatch):
    """Into a pipe or a file, the JSON of all stages came when the last had ended, and none if that was killed."""
    file = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(file, encoding="utf-8"))
    show(Summary("prepare"), as_json)
    assert b"prepare" in file.getvalue()


@pytest.mark.parametrize(("of", "size"), [("100 m wind, m s-1", 1), ("2 m air temperature, K", 0.01), ("mean sea level pressure, Pa", 100)])
def test_a_comparison_fits_in_80_columns_whole(of, size, capsys, monkeypatch):
    """Of other variables than the 10 m wind every number was cut off."""
    monkeypatch.setenv("COLUMNS", "80")
    row = {"lead_hours": 120, "metric": "crps_fair", "first": 3.34567 * size, "second": 3.40567 * size, "difference": -0.06307 * size}
    show(
        Summary(
            "compare", facts={"scores below": of}, scores=[row | {"interval": [-0.07225 * size, 0.05052 * size], "p": 0.031, "starts": 730}]
        ),
        False,
    )
    printed = capsys.readouterr().out
    digits = ".3f" if of.endswith("m s-1") else ".4g"
    for value in (row["first"], row["second"]):
        assert f"{value:{digits}}" in printed.split()
    for value in (row["difference"], -0.07225 * size, 0.05052 * size):
        assert f"{value:+{digits}}" in printed
    assert "\N{HORIZONTAL ELLIPSIS}" not in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_a_study_shows_the_crps_of_one_lead_time_in_each_row(capsys):
    """A setting without a score there, because a member diverged, had that of an earlier lead time."""
    row = {"nfe": 1, "best": True, "solver": "euler", "grid": "uniform", "warmth": 1.0, "crps_6h": 0.55}
    row |= {"crps_gain_6h": 0.031, "spread_skill_6h": 0.97, "power_deviation_6h": 0.015, "crps_72h_rolled": 3.2}
    rows = [row | {"prior": "warm", "crps_120h_rolled": 3.7}, row | {"prior": "end-to-end moments", "solver": "midpoint", "nfe": 4}]
    show(Summary("study nfe", scores=[*rows, {"prior": "moments, past errors", "nfe": 0, "crps_6h": 0.54}]), json=False)
    printed = capsys.readouterr().out
    assert "last: CRPS at 120 h" in printed.replace("\n", " ")
    assert re.search(r"warm +1 +0\.5500 .* 3\.700", printed)
    assert re.search(r"end-to-end moments +4 +0\.5500 .* diverged", printed)
    assert "3.200" not in printed
    assert "\N{HORIZONTAL ELLIPSIS}" not in printed
