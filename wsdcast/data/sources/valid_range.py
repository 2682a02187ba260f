"""CF's attributes ``valid_range``, ``valid_min`` and ``valid_max``: values outside of them are missing. xarray does not read them."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from wsdcast.runs.progress import note_once

RANGE = "its valid range (valid_range, valid_min, valid_max)"


def with_invalid_missing(dataset: xr.Dataset, where: object) -> xr.Dataset:
    """Return a decoded dataset with NaN in place of the values outside of the valid range of their variable, lazily.

    A range outside of which more than half of the values are cannot be meant and is not used. It is often left over from other packing.
    The first time that values outside of a range are read, a note says so, once per name of a variable. ``where`` begins it.
    """
    for name, array in dataset.data_vars.items():
        if array.dtype.kind in "iuf" and np.isfinite(limits := limits_of(array.variable)).any():
            lazy = indexing.LazilyIndexedArray(_Bounded(array.variable, limits, str(name), where))
            dataset[name] = xr.Variable(array.dims, lazy, array.attrs, array.encoding)
    return dataset


def limits_of(variable: xr.Variable) -> tuple[float, float]:
    """Return the lowest and the highest valid value of a decoded variable; minus and plus infinity where there is no limit.

    Limits are packed if they have the type of the packed data; else they are in the units of the variable. The latter holds for all limits
    in Zarr that are integers, because JSON does not state their type. Integer limits of data that are floats are left over from packed data
    and are ignored. Half a step of the packing is added, because unpacking rounds.
    """
    attributes, packing = variable.attrs, variable.encoding
    both = np.atleast_1d(attributes.get("valid_range", ()))
    lowest, highest = both if both.size == 2 else (attributes.get("valid_min"), attributes.get("valid_max"))
    stored = np.dtype(packing.get("dtype", variable.dtype))
    is_unsigned = str(packing.get("_Unsigned")).lower() == "true"
    limits = [_number(limit, "f" if stored.kind == "f" else "iuf") for limit in (lowest, highest)]
    types = {limit.dtype.newbyteorder("=") for limit in limits if limit is not None}
    scale, offset = (float(packing.get(name, usual)) for name, usual in (("scale_factor", 1), ("add_offset", 0)))
    values = [infinity if limit is None else float(limit) for limit, infinity in zip(limits, (-np.inf, np.inf), strict=True)]
    if types == {stored.newbyteorder("=")}:  # packed
        if is_unsigned:
            values = [value % 2 ** (8 * stored.itemsize) if np.isfinite(value) else value for value in values]
        values = [scale * value + offset for value in values]
    half = abs(scale) / 2 if stored.kind in "iu" else 0.0
    return min(values) - half, max(values) + half  # a negative scale has exchanged them


def _number(value: Any, kinds: str) -> np.generic | None:
    """Return an attribute as a number of its type, or None if it is not one number of these kinds."""
    array = np.asarray(value)
    return array.reshape(-1)[0] if array.size == 1 and array.dtype.kind in kinds and np.isfinite(array).all() else None


class _Bounded(BackendArray):
    """The values of a variable, read on demand as floats, with NaN in place of those outside of two limits."""

    def __init__(self, variable: xr.Variable, limits: tuple[float, float], name: str, where: object) -> None:
        self.variable, self.name, self.where = variable, name, where
        self.shape, self.dtype = variable.shape, np.result_type(variable.dtype, np.float32)
        with np.errstate(over="ignore"):
            self.limits = np.array(limits, dtype=self.dtype)  # rounded as the values are

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[np.floating]:
        values = self.variable[key].values.astype(self.dtype, copy=False)
        outside = self._outside(values)
        if not outside.any():
            return values
        if not self._is_meant:
            self._note(f"more than half of {self.name} is outside of {RANGE}, which is not used")
            return values
        self._note(f"values of {self.name} outside of {RANGE} count as missing")
        return np.where(outside, self.dtype.type(np.nan), values)

    def _outside(self, values: NDArray[np.floating]) -> NDArray[np.bool_]:
        lowest, highest = self.limits
        return (values < lowest) | (values > highest)

    @cached_property
    def _is_meant(self) -> bool:
        """Whether at most half of the values that are not missing are outside of the limits, in the first, middle and last field.

        What is read does not matter, so a value is the same however it is read.
        """
        leading = self.variable.dims[:-2]
        places = {tuple(round(share * (self.variable.sizes[name] - 1)) for name in leading) for share in (0, 0.5, 1)}
        fields = [self.variable.isel(dict(zip(leading, place, strict=True))).values.astype(self.dtype) for place in places]
        values = np.concatenate([field.ravel() for field in fields])
        return bool(2 * self._outside(values).sum() <= np.isfinite(values).sum())

    def _note(self, text: str) -> None:
        note_once(f"{self.where}: {text}", text)
