"""Threads beside the main one: what comes next is made, and what is done is written, while the networks compute."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")


WAITING = 2
"""Calls that wait at most."""


@contextmanager
def in_background() -> Iterator[Callable[..., None]]:
    """A way to have functions called, in order, by one thread: ``later(function, *arguments)``.

    At most :data:`WAITING` calls wait, so that what they hold in memory stays bounded; then ``later`` waits too. A call that fails raises
    its error at the next ``later`` or at the end of the block, and no call after it is made.
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
    """The same items, each made by a thread while the one before is in use."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item  # type: ignore[misc]
