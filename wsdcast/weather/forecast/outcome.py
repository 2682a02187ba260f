"""What the summary of a rollout says of its members: which of them were stopped, and which values were clipped."""

from __future__ import annotations

from collections.abc import Collection

from wsdcast.data.steps import time_text
from wsdcast.data.store.forecasts import Forecasts
from wsdcast.data.variables import DEFAULT, physical_range, variable

MEMBERS_NAMED = 5
"""The largest number of stopped members that the summary names."""


def stopped(store: Forecasts, artefact: str) -> dict[str, str]:
    """A line for the summary that names the members that left the physical range, and when they did. Empty if there are none."""
    written = store.all_written()
    members = [
        f"member {member} of {time_text(time)} at {hours} h{f' by {name}' * (name not in DEFAULT)}"
        for time, start in zip(store.times, written, strict=True)
        for member, (hours, name) in enumerate(zip(start.stopped, start.by, strict=True))
        if hours
    ]
    names = dict.fromkeys(name for start in written for name in start.by if name)
    if not members:
        return {}
    named = "; ".join(members[:MEMBERS_NAMED]) + (f"; and {len(members) - MEMBERS_NAMED} more" if len(members) > MEMBERS_NAMED else "")
    number = f"{len(members)} of {store.times.size * store.members} members, with {_beyond(names)}"
    return {f"stopped: {artefact}": f"{number}: {named}; more data or more training may help"}


def _beyond(names: Collection[str]) -> str:
    """In words which variables left their physical ranges."""
    if set(names) <= set(DEFAULT):
        return f"winds beyond {physical_range(DEFAULT[0])[1]:g} m/s"
    ranges = {name: physical_range(name) for name in names}
    return ", ".join(f"{name} outside {low:.6g} to {high:.6g} {variable(name).units}" for name, (low, high) in ranges.items())


def clipped(store: Forecasts, artefact: str) -> dict[str, str]:
    """A line for the summary with the share of negative values by variable that were set to zero. Empty if there are none."""
    shares = ", ".join(f"{name} {100 * share:.2g} %" for name, share in store.clipped().items())
    return {f"negative values set to zero: {artefact}": shares} if shares else {}
