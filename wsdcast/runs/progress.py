"""Notes on standard error, and progress with the time left: a bar on a terminal, a line of text in a notebook."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from wsdcast.runs.notebook import is_notebook, tracked, write_line

Item = TypeVar("Item")


def note(text: str) -> None:
    """Print one line on standard error, above the progress if there is any."""
    if is_notebook():
        write_line(text)
    else:
        print(text, file=sys.stderr)


NOTED = set[str]()
"""What :func:`note_once` has printed."""


def note_once(text: str, about: str = "") -> None:
    """Print a line as :func:`note` does, but only once per process; with ``about``, only the first line about that."""
    if (about or text) not in NOTED:
        NOTED.add(about or text)
        note(text)


def track(
    items: Iterable[Item], description: str, total: int, done: int = 0, detail: Callable[[Item], str] = lambda _: ""
) -> Iterator[Item]:
    """Yield ``items`` and show the progress. Nothing is shown if standard error is neither a terminal nor a notebook.

    ``total`` includes the number of items that were done before. ``detail`` makes text to show for the latest item.
    """
    if not sys.stderr.isatty():
        yield from tracked(items, description, total, done, detail) if is_notebook() else items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.3g}/s" if task.speed else "")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(description, total=total, completed=done)
        for item in items:
            yield item
            progress.update(task, advance=1, description=f"{description} {detail(item)}".strip())
