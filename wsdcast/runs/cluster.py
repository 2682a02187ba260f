"""Where the work of dask is done: in a running cluster, in processes of this machine, or in threads of this process."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from wsdcast.runs.errors import UserError


@contextmanager
def dask_options(scheduler: str | None, workers: int | None, threads: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield keyword arguments of :func:`dask.compute` for a running cluster, a local cluster or threads.

    Args:
        scheduler: address of the scheduler of a running cluster.
        workers: number of processes of a local cluster.
        threads: number of threads if there is no cluster; default: one for each core.

    Raises:
        UserError: if no scheduler answers at the address.
    """
    if scheduler is None and workers is None:
        yield {"scheduler": "threads"} | ({} if threads is None else {"num_workers": threads})
        return
    from dask.distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=15)
        except (OSError, ValueError) as error:
            raise UserError(f"--scheduler {scheduler}: no dask scheduler answers there ({error})") from None
        with client:
            yield {"scheduler": client}
        return
    options = {"threads_per_worker": 1, "dashboard_address": None, "silence_logs": logging.CRITICAL}
    environment = dict(os.environ)
    try:
        with LocalCluster(n_workers=workers, **options) as cluster, Client(cluster) as client:
            yield {"scheduler": client}
    finally:
        # dask would leave OMP_NUM_THREADS=1 in the environment of all processes that are started later.
        os.environ.clear()
        os.environ.update(environment)
