"""Each input in the shape of a public bug report gives the right value or one true line (:mod:`tests.odd_inputs`)."""

from __future__ import annotations

from pathlib import Path

import pytest
from odd_inputs import MUST_PRINT, cases, output_of, unmet

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"


@pytest.mark.slow
@pytest.mark.skipif(not CASES.is_dir(), reason="the inputs are not part of the repository; expected in ../shared/cases")
@pytest.mark.parametrize("number", MUST_PRINT)
def test_case(number: str) -> None:
    (case,) = [path for path in cases(CASES) if path.name.startswith(number)]
    output = output_of(case)
    assert not unmet(case, output), output
