"""Memory that threads have freed goes back to the system, as preparing a long record needs."""

from __future__ import annotations

import threading

import numpy as np
from own_memory import needs_linux, own_memory

from wsdcast.runs.resources import return_freed_memory


@needs_linux
def test_memory_that_a_thread_has_freed_goes_back_to_the_system():
    pins = []

    def work() -> None:
        blocks = [np.ones(8000) for _ in range(2000)]  # 128 MB in blocks that are too small to be taken from the system one by one
        pins.append(np.ones(8000))  # what lies below a block in use is not given back by itself
        blocks.clear()

    before = own_memory()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return_freed_memory()
    assert own_memory() - before < 10e6
    assert pins[0].sum() == 8000
