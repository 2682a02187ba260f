"""scoringrules, imported without numba: with it, it compiles all its functions, for five seconds in each process."""

from __future__ import annotations

import sys

import pytest

with pytest.MonkeyPatch.context() as patched:
    patched.setitem(sys.modules, "numba", None)
    import scoringrules

__all__ = ["scoringrules"]
