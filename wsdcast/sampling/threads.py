"""Batches side by side on the cores of a CPU, each computed by one thread.

When torch divides one batch among threads, numbers at the border between two threads are rounded differently: sums that reach over it
(GroupNorm with channels last), and the last few values of a thread's share, which are not computed as vectors (activations). Where the
border is depends on the number of threads and on the size of the batch. A batch that one thread
computes has no such borders, so its bits do not depend on the number of threads, and no core waits for another inside a layer.
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
    """``function`` of each item: on a CPU on as many threads at a time as torch may use, each item computed by one; on a GPU in turn.

    Items are computed in inference mode. The calling thread and all others keep their number of threads.
    """
    items, threads = list(items), torch.get_num_threads()
    if device.type != "cpu" or not items:
        with torch.inference_mode():
            return [function(item) for item in items]
    workers = min(threads, len(items))
    ready = Barrier(workers + 1)

    def begin() -> None:
        torch.get_num_threads()  # a thread takes over the number of the process when it first asks; later that would undo the next line
        torch.set_num_threads(1)
        ready.wait()

    def call(item: Item) -> Result:
        with torch.inference_mode():  # a new thread does not inherit it
            return function(item)

    with ThreadPoolExecutor(workers, initializer=begin) as pool:
        try:
            results = [pool.submit(call, item) for item in items]
            ready.wait()
            # torch sets the number for the calling thread and for threads that start to use torch later. All workers have theirs now.
            torch.set_num_threads(threads)
            return [result.result() for result in results]
        except BaseException:
            ready.abort()
            pool.shutdown(wait=False, cancel_futures=True)  # an error or Ctrl-C does not wait for all other items
            raise
