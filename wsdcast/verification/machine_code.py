"""Machine code for loops over points, made by numba."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numba

# With OpenMP, numba changes torch's number of threads. That changes the last bits of whatever the same process trains or forecasts later.
# Numba's own threads ("workqueue") do not, but they serve only one caller at a time, hence the lock.
numba.config.THREADING_LAYER = "workqueue"  # type: ignore[attr-defined]
NUMBA_LOCK = threading.Lock()


def machine_code(parallel: bool = False) -> Callable[[Any], Any]:
    """Decorate a function that numba compiles at its first call. The machine code is kept on disk where a directory can be written to.

    Args:
        parallel: the function has loops over ``numba.prange``; it is called under :data:`NUMBA_LOCK`.
    """

    def decorate(function: Any) -> Any:
        try:
            return numba.njit(parallel=parallel, cache=True, nogil=True)(function)
        except RuntimeError:  # a package that is read-only, and a user without a home directory, as in containers
            return numba.njit(parallel=parallel, nogil=True)(function)

    return decorate
