"""What a command reads is a path, and is not replaced by what the command writes. Nor is a directory by a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from wsdcast.runs.errors import UserError


def file_given(given: object, option: str) -> Path:
    """Return the path of a file that an option names.

    Raises:
        UserError: if it is no path. From Python, it may be a table.
    """
    if not isinstance(given, str | Path):
        raise UserError(f"{option}: expected the path of a file, not {type(given).__name__}")
    return Path(given)


def address_given(given: object, option: str) -> str:
    """Return the path or URL that an argument names, as text.

    Raises:
        UserError: if it is neither. From Python, it may be a data set or a list of files.
    """
    if isinstance(given, list | tuple):
        raise UserError(f"{option}: expected one path or URL, not a {type(given).__name__}; a directory or a glob names several")
    if not isinstance(given, str | Path):
        raise UserError(f"{option}: expected a path or a URL, not {type(given).__name__}; xarray's to_netcdf and to_zarr write one")
    return str(given)


def require_no_input(written: Iterable[Path], read: Iterable[object], option: str = "--out ", instead: str = "another name") -> None:
    """Raise a UserError if a file or directory that a command writes is one that it reads, lies in one, or holds one.

    Args:
        written: paths, there or not.
        read: paths of files and stores; URLs and the like are no paths that are written.
        option: what stands before the path in the message.
        instead: what the message advises to choose.
    """
    inputs = {Path(str(given)).resolve(): given for given in read if "://" not in str(given)}
    around = {parent: given for path, given in inputs.items() for parent in path.parents}
    for out in written:
        path = out.resolve()
        inside = next((inputs[parent] for parent in path.parents if parent in inputs), None)
        for relation, given in (("is", inputs.get(path)), ("lies in", inside), ("holds", around.get(path))):
            if given is not None:
                raise UserError(f"{option}{out}: {relation} {given}, which this command reads; choose {instead}")


def require_no_directories(*paths: Path) -> None:
    """Check that no directory is in the place of a file that is written. A task that takes hours calls this before.

    Raises:
        UserError: if there is one. Files have suffixes, and directories have none but ``.zarr``.
    """
    for path in paths:
        if path.suffix not in ("", ".zarr") and path.is_dir():
            raise UserError(f"{path}: is a directory, where a file is to be written; move it away")
