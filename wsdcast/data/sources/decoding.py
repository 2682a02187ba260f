"""Decodes datasets by the CF conventions."""

from __future__ import annotations

import re
from collections.abc import Sequence

import xarray as xr

from wsdcast.data.sources.naming import is_named
from wsdcast.runs.errors import first_line

SINCE = re.compile(
    r"(?P<unit>\w+) since (?P<date>\d{8}|\d{4}(/\d\d?){2}|\d{1,4}(-\d\d?){2}|\d{1,4}(-\d\d?)?(?!-)|\d\d?-[a-z]{3}-\d{4})"
    r"([ T_](?P<hour>\d\d?)(?P<rest>(:\d\d?){0,2}(\.\d*)?))?"
    r" ?(Z|UTC|GMT|(?P<sign>[+-])(?P<hours>\d\d?)(:?(?P<minutes>\d\d))?)?",
    re.IGNORECASE,
)
"""Units of time that are read. UDUNITS' zones +1:00, +1 and +100 are +01:00."""


def decoded(raw: xr.Dataset, needed: Sequence[str]) -> xr.Dataset:
    """Return a dataset with the CF conventions applied. Variables that cannot be decoded are left out.

    Raises:
        ValueError: if a channel that is needed cannot be decoded, or if the dataset fails although each variable alone can be decoded.
    """
    try:
        return _decoded(raw)
    except Exception as error:  # wrong attributes cause errors of many types
        problem = error
    bad = []
    for name in raw.data_vars:
        try:
            _decoded(raw[[name]])
        except Exception as error:
            if is_named(str(name), needed):
                raise ValueError(f"{name}: {first_line(error)}") from None
            bad.append(name)
    if not bad:
        raise ValueError(first_line(problem))
    return _decoded(raw.drop_vars(bad))


def _decoded(raw: xr.Dataset) -> xr.Dataset:
    """Decode a dataset.

    xarray takes zones with names for UTC, may exchange day and month or take no notice of an hour without minutes, and after h or another
    abbreviation knows only zones such as +01:00 that follow minutes. So units of time are checked, and brought to this form.

    Raises:
        Exception: of any type, if the dataset cannot be decoded.
    """
    raw = raw.copy()
    for name, array in raw.variables.items():
        if isinstance(units := array.attrs.get("units"), str) and " since " in units:
            if (since := SINCE.fullmatch(" ".join(units.split()))) is None:
                raise ValueError(f"{name} has units '{units}'; expected a date such as 2020-01-31 06:00, and no zone or one such as +01:00")
            if since["hour"] or since["sign"]:
                zone = f" {since['sign']}{since['hours']:>02}:{since['minutes'] or '00'}" if since["sign"] else ""
                moment = f"{since['date']} {since['hour'] or 0}{since['rest'] or ':00'}{zone}"
                array.attrs = array.attrs | {"units": f"{since['unit']} since {moment}"}
    return xr.decode_cf(raw, decode_timedelta=True)
