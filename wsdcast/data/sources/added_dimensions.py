"""Dimensions of length one for a dataset that is not read yet. ``Dataset.expand_dims`` of xarray would read all of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing


def with_dimensions(dataset: xr.Dataset, order: Sequence[str]) -> xr.Dataset:
    """Return a dataset whose variables have the dimensions ``order``, lazily.

    A dimension that the dataset lacks is added with length one; its scalar coordinate, if there is one, becomes the coordinate of the
    dimension. A variable has all dimensions of the dataset.
    """
    dataset = dataset.transpose(*(name for name in order if name in dataset.dims))
    missing = [name for name in order if name not in dataset.dims]
    if not missing:
        return dataset
    expanded = {
        name: xr.Variable(order, indexing.LazilyIndexedArray(_Expanded(array.variable, order)), array.attrs, array.encoding)
        for name, array in dataset.data_vars.items()
    }
    return dataset.drop_vars(list(expanded)).expand_dims(missing).assign(expanded)


class _Expanded(BackendArray):
    """The values of a variable, read on demand, with a dimension of length one for each of ``order`` that it lacks."""

    def __init__(self, variable: xr.Variable, order: Sequence[str]) -> None:
        self.variable, self.dtype = variable, variable.dtype
        self.is_new = [name not in variable.dims for name in order]
        self.shape = tuple(variable.sizes.get(name, 1) for name in order)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        values = self.variable[tuple(index for index, is_new in zip(key, self.is_new, strict=True) if not is_new)].values
        axis = 0
        for index, is_new in zip(key, self.is_new, strict=True):
            if isinstance(index, int | np.integer):
                continue  # it leaves no axis
            if is_new:
                values = np.take(np.expand_dims(values, axis), np.arange(1)[index], axis)
            axis += 1
        return values
