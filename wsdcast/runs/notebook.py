"""What a notebook shows of a stage: its progress in one line of text, and its summary as tables."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from html import escape
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from wsdcast.runs.artefact import Summary

Item = TypeVar("Item")

WIDTH = 120
"""Characters of the line of progress. A text of this width covers the one before it."""


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    return "ipykernel" in sys.modules


def write_line(text: str, end: str = "\n") -> None:
    """Write a text on standard error over the line of progress."""
    print(f"\r{text:{WIDTH}}", end=end, file=sys.stderr, flush=True)


def tracked(items: Iterable[Item], description: str, total: int, done: int, detail: Callable[[Item], str]) -> Iterator[Item]:
    """Yield ``items``, and write about once a second how many are done and how long the rest takes. The arguments are those of ``track``.

    Bars of rich would be widgets, which are drawn ten times a second by an optional package.
    """
    begun = written = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - written >= 1:
            written, left = now, (now - begun) / number * (total - done - number)
            write_line(f"{description} {done + number} of {total}, {left:.0f} s left  {detail(item)}"[:WIDTH], end="")
    if written > begun:
        write_line("", end="\r")


def html_of(summary: Summary) -> str:
    """Return the tables of a summary."""
    import pandas as pd

    written = [("written", f"{path}: {content}") for path, content in summary.written.items()]
    rows = [*summary.facts.items(), *written, *(("problem", problem) for problem in summary.problems)]
    cells = (f"<tr><th>{escape(str(name))}</th><td style='text-align: left'>{escape(str(value))}</td></tr>" for name, value in rows)
    scores = pd.DataFrame(summary.scores).to_html(index=False, float_format="{:.4g}".format) if summary.scores else ""
    return f"<table><caption>wsdcast {escape(summary.stage)}</caption>{''.join(cells)}</table>{scores}"
