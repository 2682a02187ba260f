"""Printing the summary of a stage or a benchmark, as tables or as JSON."""

from __future__ import annotations

import os
import re
from dataclasses import asdict
from json import dumps
from math import isfinite
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from wsdcast.runs.names import PAST_ERRORS

if TYPE_CHECKING:
    from wsdcast.bench.measure import Benchmark
    from wsdcast.runs.summary import Summary


WRAPPED = {PAST_ERRORS: "past\nerrors", "persistence": "persis-\ntence"} | dict.fromkeys(
    ("climatology", "probabilistic climatology"), "clima-\ntology"
)
"""Column headings with line breaks, so that the table fits in 80 columns."""
NOT_SHOWN = "climatological mean"
"""A forecast without a column, for the same reason. The report and the files have its scores."""


def show(summary: Summary, json: bool) -> None:
    """Print a summary to standard output, as tables or as one JSON object. If torchrun started several processes, only the first prints."""
    if int(os.environ.get("RANK", 0)):
        return
    if json:
        print(dumps(_strict(asdict(summary)), indent=2, default=str), flush=True)
        return
    console = Console()
    table = Table(title=f"wsdcast {summary.stage}", title_justify="left", show_header=False, box=None, padding=(0, 1))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in summary.facts.items():
        table.add_row(name, Text(str(value)))
    for path, content in summary.written.items():
        table.add_row("written", Text(f"{path}: {content}"))
    if summary.stage == "check":
        table.add_row("problems", Text("none found" if not summary.problems else f"{len(summary.problems)}, listed below"))
    console.print(table)
    for number, problem in enumerate(summary.problems, start=1):
        console.print(Text(f" {number}. {problem}"))
    if summary.scores:
        console.print(TABLES[summary.stage](summary))


def _strict(value: Any) -> Any:
    """Replace numbers that are not finite by None, because JSON cannot represent them."""
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def show_benchmark(benchmark: Benchmark, json: bool) -> None:
    """Print a benchmark to standard output, as a table or as one JSON object."""
    if json:
        print(dumps(asdict(benchmark), indent=2))
        return
    table = Table(title=f"wsdcast bench {benchmark.name}", title_justify="left", show_header=False, box=None, padding=(0, 1))
    table.add_column(style="bold", max_width=34)
    table.add_column(overflow="fold")
    table.add_row("limit", benchmark.limit)
    table.add_row("time / limit's time", f"{benchmark.ratio_to_limit:.2f}")
    for name, ratio in benchmark.peers.items():
        table.add_row(f"{name} / limit's time", f"{ratio:.1f}")
    for name, value in benchmark.figures.items():
        table.add_row(name, f"{value:.3g}" if isinstance(value, float) else str(value))
    table.add_row("on", Text(benchmark.machine))
    Console().print(table)


def _of(summary: Summary) -> str:
    """Return what the CRPS of a table is of, in words: nothing but the unit if only the 10 m wind was scored."""
    return f"of {summary.facts['scores below']}" if "scores below" in summary.facts else "in m/s"


def _digits(summary: Summary) -> str:
    """Return the format of scores: those of variables other than wind have other sizes."""
    return ".3f" if summary.facts.get("scores below", "m s-1").endswith("m s-1") else ".4g"


ROLLED_CRPS = re.compile(r"crps_(\d+)h_rolled")
"""The key of the CRPS of forecasts of several steps, with the lead time in hours."""


def _settings(summary: Summary) -> Table:
    """The table of a study: the best setting of each prior and number of evaluations, and that without a generator. The page has all."""
    leads = [int(found[1]) for row in summary.scores for name in row if (found := ROLLED_CRPS.fullmatch(name))]
    last = f"; last: CRPS at {max(leads)} h" if leads else ""
    title = f"6 h: fair CRPS {_of(summary)}, its gain, spread/skill, mean deviation of the spectrum{last}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("prior", no_wrap=True)
    for name in ("nfe", "CRPS", "gain %", "s/s", "spectrum", *(["last"] if leads else [])):
        table.add_column(name, justify="right", no_wrap=True)
    several = len({(row["solver"], row["grid"], row["warmth"]) for row in summary.scores if row["nfe"]}) > 1
    if several:
        table.add_column("by")  # rich wraps it between words
    for row in summary.scores:
        if row["nfe"] and not row["best"]:
            continue
        rolled = {int(found[1]): value for name, value in row.items() if (found := ROLLED_CRPS.fullmatch(name))}
        # Some member diverged by the last lead time if there are only earlier ones.
        of_last = "" if not rolled else f"{rolled[max(leads)]:.3f}" if max(leads) in rolled else "diverged"
        gain = f"{100 * row['crps_gain_6h']:.1f}" if "crps_gain_6h" in row else ""
        digits = {"crps_6h": 4, "spread_skill_6h": 2, "power_deviation_6h": 3}
        crps, *others = (f"{row[name]:.{decimals}f}" if name in row else "" for name, decimals in digits.items())
        cells = [row["prior"], str(row["nfe"] or ""), crps or "diverged", gain, *others, *([of_last] if leads else [])]
        if several and row["nfe"]:
            warmth = f" {row['warmth']:g}" if row["warmth"] != 1 else ""
            cells.append(f"{row['solver']} {row['grid']}{warmth}")
        table.add_row(*cells)
    return table


METRIC_LABELS = {"crps_fair": "fair CRPS", "rmse": "RMSE", "energy_score": "energy"}


def _differences(summary: Summary) -> Table:
    """The table of a comparison: one row per lead time and score."""
    table = Table(
        title=summary.facts.get("scores below", "u and v over the globe, m/s"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for name in ("lead", "score", "first", "second", "difference, 95 %", "p", "initial\ntimes"):
        table.add_column(name, justify="right", no_wrap=not name.startswith("difference"))  # where 80 columns are too few, it wraps
    for row in summary.scores:
        low, high = row["interval"]
        digits = _digits(summary)
        between = f" [{low:+{digits}}, {high:+{digits}}]" if isfinite(low) and isfinite(high) else ""
        cells = [f"{row[name]:{digits}}" for name in ("first", "second")]
        cells += [f"{row['difference']:+{digits}}{between}", _number(row["p"], ".3f"), str(row["starts"])]
        table.add_row(f"{row['lead_hours']} h", METRIC_LABELS[row["metric"]], *cells)
    return table


def _number(value: float, form: str) -> str:
    """A number as text; ``-`` if it is not known, such as the spread of one member."""
    return f"{value:{form}}" if isfinite(value) else "-"


def _scores(summary: Summary) -> Table:
    """The table of scores: one row per lead time, narrow enough for 80 columns."""
    names = [key.removeprefix("crps_fair: ") for key in summary.scores[0] if key.startswith("crps_fair: ")]
    names = [name for name in names if name != NOT_SHOWN]
    deviations = [name for name in names if f"power_deviation: {name}" in summary.scores[0]]
    title = f"fair CRPS {_of(summary)}, with baselines; spread/skill{'; largest deviation of spectrum' * bool(deviations)}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("lead", justify="right", no_wrap=True)
    for name in names:
        table.add_column(WRAPPED.get(name, name), justify="right", style="bold" if name == names[0] else None)
    table.add_column("spread/\nskill", justify="right")
    for name in deviations:
        table.add_column("spectrum" if name == names[0] else "moments'\nspectrum", justify="right")
    for row in summary.scores:
        cells = [
            f"{row['lead_hours']} h",
            *(f"{row[f'crps_fair: {name}']:{_digits(summary)}}" for name in names),
            _number(row["spread_skill"], ".2f"),
        ]
        table.add_row(*cells, *(_number(row[f"power_deviation: {name}"], ".0%").replace("%", " %") for name in deviations))
    return table


def _station_scores(summary: Summary) -> Table:
    """The table of scores at stations: one row per lead time, of all stations together."""
    table = Table(title="10 m wind speed at all stations, m/s", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("lead", "pairs", "fair CRPS", "bias", "RMSE", "spread/skill"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in summary.scores:
        scores = [f"{row['crps_fair']:.3f}", f"{row['bias']:+.3f}", f"{row['rmse']:.3f}", _number(row["spread_skill"], ".2f")]
        table.add_row(f"{row['lead_hours']} h", str(row["pairs"]), *scores)
    return table


IMAGE_SCORES = {
    "fid": ("FID", 2),
    "classifier_distance": ("clas-\nsifier\ndistance", 3),
    "crps": ("CRPS", 4),
    "crps_standard": ("CRPS\nof one", 4),
    "psnr": ("PSNR", 1),
    "spread_skill": ("spread/\nskill", 2),
    "diversity": ("diver-\nsity", 3),
    "consistency": ("visible\nerror", 3),
    "power_deviation": ("spec-\ntrum", 2),
}
"""Heading and number of decimals of each score of images."""


def _image_scores(summary: Summary) -> Table:
    """The table of scores of images: one row per ensemble, or for a study the best setting of each prior and number of evaluations."""
    title = "Units: the images' range, 0 to 1; PSNR in dB; hidden pixels. The classifier distance is not FID."
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    rows = [row for row in summary.scores if row.get("kind", "curve") == "curve" and row.get("best", True)]
    table.add_column("", no_wrap=True)
    columns = summary.scores[0]
    if "nfe" in columns:
        table.add_column("nfe", justify="right", no_wrap=True)
    # A study has one more column, so two scores are left out to fit in 80 columns.
    names = [name for name in IMAGE_SCORES if name in columns and not ("nfe" in columns and name in ("diversity", "consistency"))]
    for name in names:
        table.add_column(IMAGE_SCORES[name][0], justify="right", no_wrap=True)
    for row in rows:
        numbers = [_number(row[name], f".{IMAGE_SCORES[name][1]}f") for name in names]
        table.add_row(*([row["prior"], str(row["nfe"] or "")] if "nfe" in row else [row["scored"]]), *numbers)
    return table


TABLES = {
    "score": _scores,
    "score stations": _station_scores,
    "compare": _differences,
    "study nfe": _settings,
    "inpaint score": _image_scores,
    "inpaint study": _image_scores,
}
"""The function that makes the table of scores of each stage that has scores."""
