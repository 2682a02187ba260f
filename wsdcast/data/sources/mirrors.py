"""Transfer from mirrors of open data: only the messages of some channels, checked before they count."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import HTTPStore, LocalStore

from wsdcast.data.sources.file_lock import FILE_LOCK
from wsdcast.data.sources.layout import fields_of
from wsdcast.data.sources.open_data_layouts import SYSTEMS, paths_of, ranges_of, roots_of
from wsdcast.data.sources.opening import REMOTE, open_dataset
from wsdcast.data.steps import time_text
from wsdcast.data.variables import words
from wsdcast.runs.errors import UserError, first_line

Store = HTTPStore | LocalStore
Mirror = tuple[str, Store]
"""Root and store."""
Answer = TypeVar("Answer")

ABSENT = (FileNotFoundError, PermissionDeniedError, UnauthenticatedError)
"""A bucket that cannot be listed says that access is denied instead of that a file is not there."""
SHORT = "its file is shorter than its index says"


def mirrors_of(system: str) -> list[Mirror]:
    """Return root and store of each mirror of a system.

    Raises:
        UserError: if there is no such system, or an address in the environment cannot be used.
    """
    if system not in SYSTEMS:
        raise UserError(f"'{system}': open data of analyses are {' and '.join(SYSTEMS)}")
    mirrors = list[Mirror]()
    for root in roots_of(system):
        try:
            mirrors.append((root, LocalStore.from_url(root) if root.startswith("file://") else HTTPStore.from_url(root, **REMOTE)))
        except (BaseError, ValueError, OSError) as error:
            raise UserError(f"{system}: mirror '{root}' cannot be used ({first_line(error)})") from None
    return mirrors


def ask(mirrors: list[Mirror], name: str, action: Callable[[Store], Answer]) -> Answer | str:
    """Return the answer of the first mirror that has one, or the reasons why none has.

    A mirror that cannot be reached is asked last from then on.

    Raises:
        UserError: if no mirror can be reached.
    """
    reasons, unreachable = list[str](), 0
    for mirror in list(mirrors):
        try:
            return action(mirror[1])
        except UserError:
            raise
        except ABSENT:
            reason = "not there"
        except ValueError as error:
            reason = str(error)
        except BaseError as error:
            text = str(error)
            status = re.search(r"status code: (\d+[^:\n]*)", text)
            if "Requested " in first_line(error) or (status and status[1].startswith("416")):
                reason = SHORT
            else:
                unreachable += 1
                mirrors[:] = [each for each in mirrors if each != mirror] + [mirror]
                reason = status[1] if status else "no connection" if "error sending" in text else first_line(error)
        reasons.append(f"{mirror[0]}: {reason}")
    if unreachable == len(reasons):
        raise UserError(f"{name} cannot be fetched from any mirror ({'; '.join(reasons)})")
    return "; ".join(reasons)


def located(system: str, names: Sequence[str], time: np.datetime64, store: Store) -> list[tuple[int, int]]:
    """Return where the messages of some channels are in the GRIB file of an analysis at one mirror: first byte and last byte (exclusive).

    Raises:
        ValueError: if the index lacks a channel or does not agree with the size of the file.
        BaseError, FileNotFoundError: if the mirror cannot be reached or lacks the analysis.
    """
    path, index = paths_of(system, time)
    ranges = ranges_of(system, bytes(obstore.get(store, index).bytes()), names)
    size = obstore.head(store, path)["size"]
    spans = [(begin, size if end is None else end) for begin, end in ranges]
    if any(not 0 <= begin < end <= size for begin, end in spans):
        raise ValueError(SHORT)
    return spans


def download(path: Path, system: str, names: Sequence[str], time: np.datetime64, store: Store) -> Path:
    """Fetch the messages of some channels of an analysis from one mirror, check them, and give the file its name in the cache.

    Raises:
        ValueError: if the messages are not whole or not those asked for.
        BaseError, FileNotFoundError: as :func:`located`.
        UserError: if the cache cannot be written to.
    """
    starts, ends = zip(*located(system, names, time, store), strict=True)
    # Without a distance only ranges that touch are joined: a gap is as large as a field, and another request costs less.
    messages = [bytes(part) for part in obstore.get_ranges(store, paths_of(system, time)[0], starts=starts, ends=ends, coalesce=0)]
    if not all(map(are_messages, messages)):
        raise ValueError("there are no whole GRIB messages where its index says")
    unfinished = path.with_suffix(f".{os.getpid()}.partial")
    try:
        unfinished.write_bytes(b"".join(messages))
        _require_fields(unfinished, names, time)
        unfinished.replace(path)
    except OSError as error:
        raise UserError(f"{unfinished}: {error.strerror}; WSDCAST_CACHE names another directory for the cache") from None
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return path


def are_messages(content: bytes) -> bool:
    """Return whether bytes are one or more whole messages of GRIB 2."""
    begin = 0
    while begin < len(content):
        end = begin + int.from_bytes(content[begin + 8 : begin + 16])
        whole = content[begin : begin + 4] == b"GRIB" and begin + 16 < end <= len(content) and content[end - 4 : end] == b"7777"
        if not whole:
            return False
        begin = end
    return begin > 0


def _require_fields(path: Path, names: Sequence[str], time: np.datetime64) -> None:
    """Check what a file decodes to.

    Raises:
        ValueError: if it is not the analysis of the channels at ``time``.
    """
    with FILE_LOCK:
        try:
            with open_dataset(str(path), names) as dataset:
                parts = [
                    (name, moment, int(field.lead_hours))
                    for (name,), field in fields_of(dataset, names).items()
                    for moment in field.array["time"].values
                ]
        except UserError as error:
            raise ValueError(f"its messages cannot be decoded ({error})") from None
    if sorted(parts) != [(name, time, 0) for name in sorted(names)]:
        found = [f"{words(name)} at {time_text(moment)}" + (f" from {lead} h before" if lead else "") for name, moment, lead in parts]
        raise ValueError(f"its index and its file disagree: in the file is {', '.join(found) or 'another variable'}")
