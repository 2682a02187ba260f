"""Times as numpy has them: the step of all records and forecasts, rounding, and text."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsdcast.runs import times

STEP = np.timedelta64(times.STEP // timedelta(hours=1), "h")
"""6 h."""


def to_the_second(times: NDArray[Any]) -> NDArray[Any]:
    """Round times or lead times to the second. Files that store fractions of days or hours are slightly off."""
    kind = times.dtype.kind  # M for times, m for lead times
    return (times.astype(f"{kind}8[ns]") + np.timedelta64(500, "ms")).astype(f"{kind}8[s]").astype(f"{kind}8[ns]")


def time_text(time: np.datetime64 | NDArray[np.datetime64]) -> str:
    """Return a time as text, ``2020-01-31T06``, with minutes and seconds if they are not 0."""
    return str(time.astype("datetime64[s]")).removesuffix(":00").removesuffix(":00")


def time_in_words(time: np.datetime64 | NDArray[np.datetime64]) -> str:
    """Return a time as text for readers, ``2020-01-31 06 UTC``, with minutes and seconds if they are not 0."""
    return f"{time_text(time).replace('T', ' ')} UTC"
