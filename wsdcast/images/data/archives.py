"""Files in a folder, a zip or a tar archive, one after the other; archives are read in memory and never unpacked to disk."""

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
"""Bytes of a single file in an archive; a larger one is not read, as an archive of a few kilobytes can claim to hold any number."""

LARGEST_HEADER = 2**20
"""Bytes of a name or of other facts of a file in a tar archive, which its reader would take into memory whatever they are."""

Content = Path | bytes | Exception
"""Where a file is, what is in it, or why that cannot be said."""


def shown(name: str) -> str:
    """A name of a file as it can be printed in one line, whatever is in it."""
    return "".join(character if character.isprintable() else "?" for character in name)


def files_of(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Content]]:
    """Names and content of the files below a folder or in an archive; of a folder and a zip archive sorted.

    Args:
        path: a folder, a zip archive or a tar archive, compressed or not.
        wanted: whether a file of this name is to be read; hidden files never are.

    Raises:
        UserError: if it is none of these, an archive is damaged, or a member of it does not stay within the folder it is unpacked to.
    """
    try:
        kind = _folder if path.is_dir() else _zip if zipfile.is_zipfile(path) else _tar if _is_tar(path) else None
        if kind is None:
            raise UserError(f"{path}: neither a folder nor an npz file nor an archive (zip, tar, tar.gz) that can be read")
        yield from kind(path, lambda name: not _is_hidden(name) and wanted(name))
    except UserError:
        raise
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RecursionError, ValueError) as error:
        raise UserError(f"{path}: cannot be read, damaged or cut short ({shown(str(error))})") from None


def _folder(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Content]]:
    def refuse(error: OSError) -> None:
        raise error

    for directory, below, names in os.walk(path, onerror=refuse):
        below.sort()
        inside = Path(directory).relative_to(path)
        for name in sorted(names):
            if wanted((inside / name).as_posix()) and (Path(directory) / name).is_file():
                yield (inside / name).as_posix(), Path(directory) / name


def _zip(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Content]]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        for member in members:
            _require_inside(path, member.filename, stat.S_ISLNK(member.external_attr >> 16))
        for member in sorted(members, key=lambda member: member.filename):
            if not member.is_dir() and wanted(member.filename):
                # A damaged, encrypted or strangely compressed member is that image's fault, not the archive's.
                try:
                    yield member.filename, _small_enough(member.file_size) or archive.read(member)
                except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, NotImplementedError) as error:
                    yield member.filename, error


def _tar(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Content]]:
    with tarfile.open(path, tarinfo=_Member) as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it keeps what it has seen of every member, hundreds of thousands of them
            _require_sensible(member)
            _require_inside(path, member.name, not (member.isreg() or member.isdir()))
            if member.isreg() and wanted(member.name):
                stream = archive.extractfile(member)
                assert stream is not None  # as it is a regular file
                yield member.name, _small_enough(member.size) or stream.read()


def _is_tar(path: Path) -> bool:
    try:
        tarfile.open(path, tarinfo=_Member).close()
    except (tarfile.ReadError, EOFError, zlib.error, lzma.LZMAError, OSError):  # compressed, and cut short within the first member
        return False
    return True


class _Member(tarfile.TarInfo):
    """A member of a tar archive, refused before more of it is read where that is what describes another and too large."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            found = super().frombuf(buf, encoding, errors)
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]  # it and the next would be taken for the end
            raise tarfile.ReadError("no mark of its end; cut short?") from None
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError):  # type: ignore[attr-defined]
            raise tarfile.ReadError("no header where the next one should be") from None
        if found.size < 0 or (found.size > LARGEST_HEADER and not found.isreg()):
            raise tarfile.TarError(f"a header with {found.size} bytes to follow")
        if found.type == tarfile.GNUTYPE_SPARSE:  # a list of its holes can be as long as the archive
            raise tarfile.TarError(f"{found.name} is a sparse file")
        return found


def _require_sensible(member: tarfile.TarInfo) -> None:
    """Refuse what records in pax format can make of a member: a size that leads back to headers that were read, or to pixels; holes."""
    if member.sparse is not None:
        raise tarfile.TarError(f"{member.name} is a sparse file")
    size = member.pax_headers.get("size", str(member.size))
    if member.size < 0 or size != str(member.size):
        raise tarfile.TarError(f"{member.name} has a size of {size} bytes")


def _is_hidden(name: str) -> bool:
    """Whether a file is one of those that systems leave beside images, such as ``._face.png`` and ``__MACOSX/face.png``."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _require_inside(path: Path, name: str, is_link: bool) -> None:
    plain = name.replace("\\", "/")
    if plain.startswith("/") or re.match("[A-Za-z]:", plain) or ".." in plain.split("/"):
        raise UserError(f"{path}: member {shown(name)} climbs out of the archive's folder; nothing of it is read")
    if is_link:
        raise UserError(f"{path}: member {shown(name)} is a link or a device, not a file; nothing of it is read")


def _small_enough(size: int) -> Exception | None:
    return ValueError(f"larger than {LARGEST >> 20} MiB") if size > LARGEST else None
