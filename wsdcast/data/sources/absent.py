"""Zarr stores whose absent chunks read as missing values, whatever fill value the store declares."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

METADATA = ("zarr.json", ".zarray", ".zmetadata")


class AbsentIsMissing(WrapperStore[Any]):
    """A store that replaces the fill values of all arrays of two dimensions or more by values that cannot be data.

    Zarr returns the fill value for an absent chunk, also inside a shard, and a fill value of 0 would look like calm air. Arrays of floats
    get the fill value NaN, but in version 2 keep one other than 0, which marks missing values. Arrays of integers get their ``_FillValue``.
    If they have none, their lowest value (the highest, if they are unsigned) becomes both their fill value and their ``_FillValue``. A
    chunk that Zarr did not write because it equals the fill value is missing too, because it cannot be told from a lost one.
    """

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return the value of a key. Fill values in metadata are replaced.

        Raises:
            ValueError: if the value is empty. For an empty answer of a server the decompressor Blosc would end the process by a signal.
        """
        value = await super().get(key, prototype, byte_range)
        if value is not None and not len(value):
            raise ValueError(f"{key} is empty")
        if value is None or byte_range is not None or not key.endswith(METADATA):
            return value
        try:
            content = json.loads(value.to_bytes())
        except ValueError:  # the metadata are damaged, and Zarr will say so
            return value
        return prototype.buffer.from_bytes(json.dumps(with_missing(content)).encode())


def with_missing(content: Any) -> Any:
    """Return the content of a metadata file, of one array or consolidated, with fill values that cannot be data."""
    if not isinstance(content, dict):
        return content
    if "shape" in content and len(content["shape"]) > 1:
        return _array(content)
    replaced = dict(content)
    if isinstance(consolidated := content.get("consolidated_metadata"), dict):  # Zarr 3
        nodes = {name: with_missing(node) for name, node in consolidated.get("metadata", {}).items()}
        replaced["consolidated_metadata"] = consolidated | {"metadata": nodes}
    if isinstance(arrays := content.get("metadata"), dict):  # Zarr 2
        replaced["metadata"] = {name: with_missing(node) if name.endswith(".zarray") else node for name, node in arrays.items()}
    return replaced


def _array(content: dict[str, Any]) -> dict[str, Any]:
    name = content.get("data_type", content.get("dtype"))
    try:
        kind: np.dtype[Any] = np.dtype(name)
    except TypeError:  # a structured type or an extension is no field
        return content
    # In version 2 xarray takes the fill value for missing.
    in_metadata = content.get("fill_value") if content.get("zarr_format") == 2 else None
    if kind.kind == "f":  # most programs that declare no missing value write 0
        return content | {"fill_value": in_metadata or "NaN"}
    if kind.kind not in "iu":
        return content
    limits = np.iinfo(kind.type)
    lowest = int(limits.min if kind.kind == "i" else limits.max)
    if content.get("zarr_format") == 2:
        return content | {"fill_value": lowest if in_metadata is None else in_metadata}
    attributes = content.get("attributes", {})
    declared = attributes.get("_FillValue", lowest)
    if not isinstance(declared, int):
        return content
    return content | {"fill_value": declared, "attributes": attributes | {"_FillValue": declared}}
