"""Zarr stores in which a chunk that is absent reads as missing values, whatever fill value the store declares."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

METADATA = ("zarr.json", ".zarray", ".zmetadata")


class AbsentIsMissing(WrapperStore[Any]):
    """A store whose metadata declare a fill value that cannot be data, for every array of two dimensions or more.

    Zarr answers with the fill value where a chunk is absent, also inside a shard, and a fill value of 0 would pass for calm. Arrays of
    floats get NaN instead. Arrays of integers get their ``_FillValue``; where they have none, their lowest value becomes both (their
    highest, if they are unsigned). A chunk that was never written because it equals the fill value is missing too: nothing tells it from
    one that was lost.
    """

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The value of a key; metadata with other fill values."""
        value = await super().get(key, prototype, byte_range)
        if value is None or byte_range is not None or not key.endswith(METADATA):
            return value
        try:
            content = json.loads(value.to_bytes())
        except ValueError:  # damaged: Zarr says so
            return value
        return prototype.buffer.from_bytes(json.dumps(with_missing(content)).encode())


def with_missing(content: Any) -> Any:
    """The content of a metadata file, of one array or consolidated, with fill values that cannot be data."""
    if not isinstance(content, dict):
        return content
    if "shape" in content and len(content["shape"]) > 1:
        return _array(content)
    found = dict(content)
    if isinstance(consolidated := content.get("consolidated_metadata"), dict):  # Zarr 3
        nodes = {name: with_missing(node) for name, node in consolidated.get("metadata", {}).items()}
        found["consolidated_metadata"] = consolidated | {"metadata": nodes}
    if isinstance(arrays := content.get("metadata"), dict):  # Zarr 2
        found["metadata"] = {name: with_missing(node) if name.endswith(".zarray") else node for name, node in arrays.items()}
    return found


def _array(content: dict[str, Any]) -> dict[str, Any]:
    name = content.get("data_type", content.get("dtype"))
    try:
        kind: np.dtype[Any] = np.dtype(name)
    except TypeError:  # a structured type or an extension: no wind
        return content
    if kind.kind == "f":
        return content | {"fill_value": "NaN"}
    if kind.kind not in "iu":
        return content
    limits = np.iinfo(kind.type)
    lowest = int(limits.min if kind.kind == "i" else limits.max)
    if content.get("zarr_format") == 2:  # there the fill value is what xarray takes for missing
        declared = content.get("fill_value")
        return content | {"fill_value": lowest if declared is None else declared}
    attributes = content.get("attributes", {})
    declared = attributes.get("_FillValue", lowest)
    if not isinstance(declared, int):
        return content
    return content | {"fill_value": declared, "attributes": attributes | {"_FillValue": declared}}
