"""Progress bars with rate and time left, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import TypeVar

Item = TypeVar("Item")


def note(text: str) -> None:
    """One line on standard error, above the progress bar if there is one."""
    print(text, file=sys.stderr)


@cache
def note_once(text: str) -> None:
    """The same, once in a process."""
    note(text)


def track(
    items: Iterable[Item], description: str, total: int, done: int = 0, detail: Callable[[Item], str] = lambda _: ""
) -> Iterator[Item]:
    """Pass ``items`` on and show how far they are; silent when standard error is not a terminal.

    Args:
        items: what there is to do.
        description: of all of it.
        total: how many items there are, with those done before.
        done: how many were done before.
        detail: what to show of the last item.
    """
    if not sys.stderr.isatty():
        yield from items
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
