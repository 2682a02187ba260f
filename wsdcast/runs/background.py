"""Background threads: they make the next input and write finished output while the networks compute."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")


WAITING = 2
"""Largest number of pending calls."""


@contextmanager
def in_background() -> Iterator[Callable[..., None]]:
    """Yield a function ``later(function, *arguments)``. One background thread makes the calls that it is given, in order.

    At most :data:`WAITING` calls are pending, which bounds the memory that they hold. If that many are pending, ``later`` waits. If a call
    fails, the calls after it are not made, and its error is raised by the next ``later`` or at the end of the block.
    """
    failed: list[BaseException] = []
    calls: deque[Future[None]] = deque()

    def call(function: Callable[..., None], *arguments: Any) -> None:
        if failed:
            return
        try:
            function(*arguments)
        except BaseException as error:
            failed.append(error)
            raise

    with ThreadPoolExecutor(1) as thread:

        def later(function: Callable[..., None], *arguments: Any) -> None:
            while len(calls) >= WAITING or (calls and calls[0].done()):
                calls.popleft().result()
            calls.append(thread.submit(call, function, *arguments))

        yield later
        for unfinished in calls:
            unfinished.result()


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the same items. A thread makes each one while the caller uses the one before it."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        upcoming = thread.submit(next, items, end)
        while (item := upcoming.result()) is not end:
            upcoming = thread.submit(next, items, end)
            yield item  # type: ignore[misc]
