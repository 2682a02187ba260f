"""CF's attributes ``valid_range``, ``valid_min`` and ``valid_max``: values outside of them are missing. xarray does not read them."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from wsdcast.runs.progress import note_once


def with_invalid_missing(dataset: xr.Dataset, where: object) -> xr.Dataset:
    """Return a decoded dataset with NaN in place of the values outside of the valid range of their variable, lazily.

    The first time that such values are read, a note says so. ``where`` begins it.
    """
    for name, array in dataset.data_vars.items():
        if array.dtype.kind in "iuf" and np.isfinite(limits := limits_of(array.variable)).any():
            lazy = indexing.LazilyIndexedArray(_Bounded(array.variable, limits, f"{where}: values of {name}"))
            dataset[name] = xr.Variable(array.dims, lazy, array.attrs, array.encoding)
    return dataset


def limits_of(variable: xr.Variable) -> tuple[float, float]:
    """Return the lowest and the highest valid value of a decoded variable; minus and plus infinity where there is no limit.

    Limits of packed data are packed too if they have the type of packed data; else they are in the units of the variable (NetCDF users'
    guide, attribute conventions). Half a step of the packing is added, because unpacking rounds.
    """
    attributes, packing = variable.attrs, variable.encoding
    both = np.atleast_1d(attributes.get("valid_range", ()))
    lowest, highest = both if both.size == 2 else (attributes.get("valid_min"), attributes.get("valid_max"))
    limits = [_number(lowest), _number(highest)]
    stored = np.dtype(packing.get("dtype", variable.dtype))
    if str(packing.get("_Unsigned")).lower() == "true":
        limits = [limit % 2 ** (8 * stored.itemsize) if isinstance(limit, int) else limit for limit in limits]
    scale, offset = (float(packing.get(name, usual)) for name, usual in (("scale_factor", 1), ("add_offset", 0)))
    are_packed = stored.kind == "f" or not any(isinstance(limit, float) for limit in limits)
    values = [infinity if limit is None else float(limit) for limit, infinity in zip(limits, (-np.inf, np.inf), strict=True)]
    if are_packed:
        values = [scale * value + offset for value in values]
    half = abs(scale) / 2 if stored.kind in "iu" else 0.0
    return min(values) - half, max(values) + half  # a negative scale has exchanged them


def _number(value: Any) -> float | int | None:
    """Return an attribute as a number of its kind, or None if it is not one number."""
    array = np.asarray(value)
    return array.item() if array.size == 1 and array.dtype.kind in "iuf" and np.isfinite(array).all() else None


class _Bounded(BackendArray):
    """The values of a variable, read on demand as floats, with NaN in place of those outside of two limits."""

    def __init__(self, variable: xr.Variable, limits: tuple[float, float], what: str) -> None:
        self.variable, self.what = variable, what
        self.shape, self.dtype = variable.shape, np.result_type(variable.dtype, np.float32)
        with np.errstate(over="ignore"):
            self.limits = np.array(limits, dtype=self.dtype)  # rounded as the values are

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[np.floating]:
        values = self.variable[key].values.astype(self.dtype, copy=False)
        lowest, highest = self.limits
        outside = (values < lowest) | (values > highest)
        if not outside.any():
            return values
        note_once(f"{self.what} outside of its valid range (valid_range, valid_min, valid_max) count as missing")
        return np.where(outside, self.dtype.type(np.nan), values)
