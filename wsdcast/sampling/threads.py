"""Batches in parallel on the cores of a CPU, each computed by one thread.

If torch divides a batch among threads, some numbers are rounded differently at the border between two threads: sums that cross the border
(GroupNorm with channels last), and the last few values of a thread's share, which are computed without vector instructions (activations).
The position of the border depends on the number of threads and on the batch size. A batch that one thread computes has no such borders.
Its bits therefore do not depend on the number of threads, and no core waits for another inside a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(function: Callable[[Item], Result], items: Iterable[Item], device: torch.device) -> list[Result]:
    """Return ``function(item)`` of each item, computed in inference mode.

    On a CPU items run in parallel, on as many threads as torch may use, and one thread computes each item. On a GPU they run one after
    another. The number of threads that torch uses elsewhere does not change.
    """
    items, threads = list(items), torch.get_num_threads()
    if device.type != "cpu" or not items:
        with torch.inference_mode():
            return [function(item) for item in items]
    workers = min(threads, len(items))
    ready = Barrier(workers + 1)

    def begin() -> None:
        torch.get_num_threads()  # at its first call a thread adopts the process's number; a later first call would undo the next line
        torch.set_num_threads(1)
        ready.wait()

    def call(item: Item) -> Result:
        with torch.inference_mode():  # a new thread does not inherit this mode
            return function(item)

    with ThreadPoolExecutor(workers, initializer=begin) as pool:
        try:
            results = [pool.submit(call, item) for item in items]
            ready.wait()
        except BaseException:
            # Only while workers may still wait: a worker on its way out of a barrier that is aborted fails, and takes from the queue what
            # tells the others to end.
            ready.abort()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        # The workers' setting also became the number for threads that use torch later. Restore it, now that all workers have theirs.
        torch.set_num_threads(threads)
        try:
            return [result.result() for result in results]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # after an error or Ctrl-C, do not wait for the other items
            raise
