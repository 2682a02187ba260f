"""Progress of a stage in a notebook, in one line of text."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

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
