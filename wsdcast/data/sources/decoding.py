"""Decodes datasets by the CF conventions."""

from __future__ import annotations

import re
from collections.abc import Sequence

import xarray as xr

from wsdcast.data.sources.naming import is_named
from wsdcast.runs.errors import first_line


def decoded(raw: xr.Dataset, needed: Sequence[str]) -> xr.Dataset:
    """Return a dataset with the CF conventions applied. Variables that cannot be decoded are left out.

    Raises:
        ValueError: if a channel that is needed cannot be decoded, or if the dataset fails although each variable alone can be decoded.
    """
    for array in raw.variables.values():
        if isinstance(units := array.attrs.get("units"), str) and " since " in units:
            # UDUNITS' +1:00, +1 and +100 are +01:00. After h or another abbreviation, xarray ignores a zone that has no leading zero.
            array.attrs["units"] = re.sub(r"( since (?=.*:).*\d ?[+-])(?=\d(:?\d\d)?$)", r"\g<1>0", " ".join(units.split()))
    try:
        return xr.decode_cf(raw, decode_timedelta=True)
    except Exception as error:  # wrong attributes cause errors of many types
        problem = error
    bad = []
    for name in raw.data_vars:
        try:
            xr.decode_cf(raw[[name]], decode_timedelta=True)
        except Exception as error:
            if is_named(str(name), needed):
                raise ValueError(f"{name}: {first_line(error)}") from None
            bad.append(name)
    if not bad:
        raise ValueError(first_line(problem))
    return xr.decode_cf(raw.drop_vars(bad), decode_timedelta=True)
