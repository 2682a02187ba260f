"""Computes from its header how long a classic NetCDF file must be, because the library reads zeros beyond the end of a truncated file."""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import BinaryIO

from wsdcast.runs.errors import UserError

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}
"""Bytes of one value, by the number of its type (NetCDF file format specification, formats 1, 2 and 5)."""


class _Header:
    """Reads the numbers of a header. Format 5 (CDF-5, 64-bit data) has counts of eight bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.size = file, os.fstat(file.fileno()).st_size
        self.version = self.number(4) & 0xFF  # the last byte of CDF\x05
        self.wide = self.version == 5

    def number(self, size: int) -> int:
        data = self.file.read(size)
        if len(data) < size:
            raise EOFError("its header is incomplete")
        return int(struct.unpack({4: ">i", 8: ">q"}[size], data)[0])

    def count(self) -> int:
        count = self.number(8 if self.wide else 4)
        if count < -1 or count > 1 << 56:  # -1 means that the number of records is not stored
            raise EOFError("its header has an impossible count")
        return count

    def skip(self, size: int) -> None:
        self.file.seek(size + -size % 4, os.SEEK_CUR)
        if self.file.tell() > self.size:
            raise EOFError("its header is incomplete")

    def items(self) -> int:
        """Read the tag and the length of a list; return the length."""
        self.number(4)
        return self.count()

    def attributes(self) -> None:
        for _ in range(self.items()):
            self.skip(self.count())
            size = SIZES.get(self.number(4), 0)
            self.skip(size * self.count())


def require_whole(path: str) -> None:
    """Raise a UserError if a classic NetCDF file was cut off."""
    try:
        missing = required_size(path) - Path(path).stat().st_size
    except EOFError as error:
        raise UserError(f"{path}: cannot be read as NetCDF ({error})") from None
    if missing > 0:
        raise UserError(f"{path}: cannot be read as NetCDF, it was cut off: {missing} bytes are missing")


def required_size(path: str) -> int:
    """Return the byte at which the last value of a classic NetCDF file (formats 1, 2 and 5) ends.

    Raises:
        EOFError: if the header is damaged or incomplete.
    """
    with Path(path).open("rb") as file:
        header = _Header(file)
        records, end, record_ends, record_sizes = header.count(), 0, list[int](), list[int]()
        lengths = []
        for _ in range(header.items()):
            header.skip(header.count())
            lengths.append(header.count())
        header.attributes()
        for _ in range(header.items()):
            header.skip(header.count())
            dimensions = [header.count() for _ in range(header.count())]
            if any(index >= len(lengths) for index in dimensions):
                raise EOFError("its header names a dimension that does not exist")
            header.attributes()
            value = SIZES.get(header.number(4), 0)
            header.count()  # the size of the variable, which is wrong for large ones
            begin = header.number(4 if header.version == 1 else 8)
            if dimensions and lengths[dimensions[0]] == 0:
                size = value * math.prod(lengths[index] for index in dimensions[1:])
                record_ends.append(begin + size)
                record_sizes.append(size)
            else:
                end = max(end, begin + value * math.prod(lengths[index] for index in dimensions))
        # A lone record variable is not padded to four bytes.
        stride = record_sizes[0] if len(record_sizes) == 1 else sum(size + -size % 4 for size in record_sizes)
        if records > 0:
            end = max([end, *(first + (records - 1) * stride for first in record_ends)])
    return end
