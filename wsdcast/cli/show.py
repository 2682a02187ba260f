"""Summaries of stages as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from wsdcast.artefact import Summary


def show(summary: Summary, json: bool) -> None:
    """Print a summary to standard output, as tables or as one JSON object."""
    if json:
        print(summary.as_json())
        return
    console = Console()
    table = Table(title=f"wsdcast {summary.stage}", title_justify="left", show_header=False, box=None, padding=(0, 1))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for what, value in summary.facts.items():
        table.add_row(what, str(value))
    for path, content in summary.written.items():
        table.add_row("written", f"{path}: {content}")
    console.print(table)
    if summary.scores:
        console.print(_scores(summary))


def _scores(summary: Summary) -> Table:
    """One row per lead time; narrow enough for 80 columns."""
    names = [key.removeprefix("crps_fair: ") for key in summary.scores[0] if key.startswith("crps_fair: ")]
    table = Table(title="fair CRPS (m/s) beside baselines; spread/skill; largest spectrum deviation", title_justify="left")
    table.add_column("lead", justify="right")
    for name in names:
        table.add_column(name, justify="right", style="bold" if name == "wsdcast" else None)
    deviations = [name for name in names if f"power_deviation: {name}" in summary.scores[0]]
    table.add_column("spread/ skill", justify="right")
    for name in deviations:
        table.add_column(f"spectrum, {name}", justify="right")
    for row in summary.scores:
        cells = [f"{row['lead_hours']} h", *(f"{row[f'crps_fair: {name}']:.3f}" for name in names), f"{row['spread_skill']:.2f}"]
        table.add_row(*cells, *(f"{100 * row[f'power_deviation: {name}']:.0f} %" for name in deviations))
    return table
