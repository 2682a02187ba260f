"""Read the files of a folder, a zip or a tar archive one after the other. Archives are read in memory and never unpacked to disk."""

from __future__ import annotations

import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Self

from wsdcast.runs.errors import UserError

LARGEST = 2**28
"""The most bytes of a file in an archive. A larger file is not read, since an archive of a few kilobytes can unpack to any size."""

LARGEST_HEADER = 2**20
"""The most bytes of a header's data (such as a long name) in a tar archive. Python's reader loads them into memory, whatever their size."""

Content = Path | bytes | Exception
"""The path of a file, its content, or the reason why it cannot be read."""


def shown(name: str) -> str:
    """Return the text on one line: characters that cannot be printed become question marks."""
    return "".join(character if character.isprintable() else "?" for character in name)


def files_of(path: Path, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, Content]]:
    """Yield name and content of the files in a folder (with its subfolders) or archive; those of a folder or zip archive are sorted.

    Args:
        path: a folder, a zip archive or a tar archive, compressed or not.
        is_wanted: returns whether a file of this name is read. Hidden files are never read.

    Raises:
        UserError: if the path is none of these, the archive is damaged, or a member is a link or would be unpacked outside the folder.
    """
    try:
        if path.is_dir():
            read = _folder
        elif zipfile.is_zipfile(path):
            read = _zip
        elif _is_tar(path):
            read = _tar
        else:
            raise UserError(f"{path}: neither a folder nor an npz file nor an archive (zip, tar, tar.gz) that can be read")
        yield from read(path, lambda name: not _is_hidden(name) and is_wanted(name))
    except UserError:
        raise
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RecursionError, ValueError) as error:
        raise UserError(f"{path}: cannot be read, damaged or cut short ({shown(str(error))})") from None


def _folder(path: Path, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, Content]]:
    def refuse(error: OSError) -> None:
        raise error

    for directory, below, names in os.walk(path, onerror=refuse):
        below.sort()
        inside = Path(directory).relative_to(path)
        for name in sorted(names):
            if is_wanted((inside / name).as_posix()) and (Path(directory) / name).is_file():
                yield (inside / name).as_posix(), Path(directory) / name


def _zip(path: Path, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, Content]]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        for member in members:
            _require_inside(path, member.filename, stat.S_ISLNK(member.external_attr >> 16))
        for member in sorted(members, key=lambda member: member.filename):
            if not member.is_dir() and is_wanted(member.filename):
                # If a member is damaged, encrypted or compressed in an unknown way, only this image is unusable, not the archive.
                try:
                    yield member.filename, _too_large(member.file_size) or archive.read(member)
                except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, NotImplementedError) as error:
                    yield member.filename, error


def _tar(path: Path, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, Content]]:
    with tarfile.open(path, tarinfo=_Member) as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # the reader keeps every header, of hundreds of thousands of members
            _require_sensible(member)
            _require_inside(path, member.name, not (member.isreg() or member.isdir()))
            if member.isreg() and is_wanted(member.name):
                stream = archive.extractfile(member)
                assert stream is not None  # because the member is a regular file
                yield member.name, _too_large(member.size) or stream.read()


def _is_tar(path: Path) -> bool:
    try:
        tarfile.open(path, tarinfo=_Member).close()
    except (tarfile.ReadError, EOFError, zlib.error, lzma.LZMAError, OSError):  # or truncated within the first member
        return False
    return True


class _Member(tarfile.TarInfo):
    """The header of a member of a tar archive. A header that announces too much data is refused before the data are read."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]  # the reader would take this for the end of the archive
            raise tarfile.ReadError("no mark of its end; cut short?") from None
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError):  # type: ignore[attr-defined]
            raise tarfile.ReadError("no header where the next one should be") from None
        if header.size < 0 or (header.size > LARGEST_HEADER and not header.isreg()):
            raise tarfile.TarError(f"a header with {header.size} bytes to follow")
        if header.type == tarfile.GNUTYPE_SPARSE:  # the list of its holes can be as long as the archive
            raise tarfile.TarError(f"{header.name} is a sparse file")
        return header


def _require_sensible(member: tarfile.TarInfo) -> None:
    """Refuse a member whose pax records make it sparse or change its size: a wrong size leads back to earlier headers or into pixels."""
    if member.sparse is not None:
        raise tarfile.TarError(f"{member.name} is a sparse file")
    size = member.pax_headers.get("size", str(member.size))
    if member.size < 0 or size != str(member.size):
        raise tarfile.TarError(f"{member.name} has a size of {size} bytes")


def _is_hidden(name: str) -> bool:
    """Return whether a file is hidden, as those that systems add to folders of images: ``._face.png``, ``__MACOSX/face.png``."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _require_inside(path: Path, name: str, is_link: bool) -> None:
    """Refuse an archive with a member that is a link or would be unpacked outside of the archive's folder."""
    plain = name.replace("\\", "/")
    if plain.startswith("/") or re.match("[A-Za-z]:", plain) or ".." in plain.split("/"):
        raise UserError(f"{path}: member {shown(name)} lies outside of the archive's folder; the archive is refused")
    if is_link:
        raise UserError(f"{path}: member {shown(name)} is a link or a device, not a file; the archive is refused")


def _too_large(size: int) -> Exception | None:
    """Return an error if a file of this size is too large to be read, else None."""
    return ValueError(f"larger than {LARGEST >> 20} MiB") if size > LARGEST else None
