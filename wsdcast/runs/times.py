"""Times and durations in the form in which recipes and options give them."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import xarray as xr

STEP = timedelta(hours=6)
LONGEST = timedelta(days=36_500)
"""The longest forecast: times in nanoseconds end in 2262."""

TimeLike = Union[str, date, np.datetime64, NDArray[np.datetime64], "xr.DataArray"]
"""A time in UTC as an argument: its text, a datetime or a date, or an element of the coordinate of a data set, as it is or its value."""


def text_of(time: Any) -> Any:
    """The text of a time that is given as one of ``TimeLike``, or as a number such as 20200131; anything else as it is."""
    if getattr(time, "ndim", None) == 0:
        time = np.asarray(time)[()]
    return str(time) if isinstance(time, date | np.datetime64 | int | np.integer) else time


def in_utc(time: datetime) -> datetime:
    """Convert a time to UTC and drop its time zone. A time without a zone counts as UTC.

    Raises:
        ValueError: if the time is out of the range of nanosecond times.
    """
    if not 1700 < time.year < 2200:
        raise ValueError(f"{time} is out of the range of nanosecond times")
    return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time


def duration(text: str, step: timedelta = STEP) -> timedelta:
    """Parse a duration such as ``12h``, ``10d`` or ``2.5d``.

    Raises:
        ValueError: if the text has another form, or the duration is zero, longer than :data:`LONGEST` or not a multiple of ``step``.
    """
    match = re.fullmatch(r"(\d{1,8}(?:\.\d+)?)(h|d)", text.strip())
    length = timedelta(hours=float(match[1]) * {"h": 1, "d": 24}[match[2]]) if match else timedelta()
    if not length or length % step:
        raise ValueError(f"'{text}': expected a positive multiple of {step / timedelta(hours=1):g} h, such as 12h or 10d")
    if length > LONGEST:
        raise ValueError(f"'{text}': expected at most {LONGEST.days} d")
    return length


def times_between(text: str) -> list[datetime]:
    """Parse ``FIRST/LAST/INTERVAL``, such as ``2020-01-01/2020-12-31/12h``, or a single time. LAST as a date includes all of that day.

    Raises:
        ValueError: if the text has another form, or LAST is before FIRST.
    """
    first, last, interval = parts if len(parts := text.split("/")) == 3 else (text, text, "6h")
    try:
        ends = datetime.fromisoformat(first), datetime.fromisoformat(last)
    except ValueError:
        raise ValueError(f"'{text}': expected latest, a time such as 2020-01-31T06, or FIRST/LAST/INTERVAL") from None
    begin, end, step = in_utc(ends[0]), in_utc(ends[1]), duration(interval)
    if "/" in text and len(last) == len("2020-12-31"):
        end += timedelta(hours=23)
    if end < begin:
        raise ValueError(f"'{text}': the last time is before the first")
    return [begin + number * step for number in range((end - begin) // step + 1)]


def in_one_spelling(start: Any) -> Any:
    """Check ``rollout.start``, and return a single time in one spelling: the artefacts of a recipe are those of its text.

    Raises:
        ValueError: if it is a text of another form than ``latest``, a time or ``FIRST/LAST/INTERVAL``.
    """
    start = text_of(start)
    if isinstance(start, str) and start != "latest":
        first = times_between(start)[0].isoformat()
        return start if "/" in start else first.removesuffix(":00").removesuffix(":00")
    return start


def all_or_lead_times(keep: Any) -> Any:
    """Check that ``rollout.keep`` is one of its words or a list of numbers, and return it.

    Raises:
        ValueError: if it is not.
    """
    keep = np.asarray(keep).tolist() if hasattr(keep, "dtype") else keep  # an array or a coordinate
    several = isinstance(keep, list | tuple)
    if several and all(isinstance(lead, int | float) or str(lead).isdigit() for lead in keep):
        return keep
    if keep not in ("all", "statistics", "scores"):
        given = ",".join(map(str, keep)) if several else keep
        raise ValueError(f"expected all, statistics, or lead times in hours such as 24,72, not {given!r}")
    return keep
