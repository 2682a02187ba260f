"""Opens sources: NetCDF, GRIB, zipped downloads, and Zarr stores on disk, in a bucket or behind a web server."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import xarray as xr
from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.storage import LocalStore, ObjectStore, StorePath, ZipStore

from wsdcast.data.sources.absent import AbsentIsMissing
from wsdcast.data.sources.classic_netcdf import require_whole
from wsdcast.data.sources.decoding import decoded
from wsdcast.data.sources.file_lock import file_lock, is_file
from wsdcast.data.sources.grib import open_grib
from wsdcast.data.sources.open_data_layouts import SYSTEMS
from wsdcast.data.sources.valid_range import with_invalid_missing
from wsdcast.data.variables import DEFAULT
from wsdcast.runs.errors import UserError, first_line
from wsdcast.runs.resources import require_space

BUILT_IN = {
    "wb2": "gs://weatherbench2/datasets/era5/1959-2023_01_10-6h-240x121_equiangular_with_poles_conservative.zarr",
    "wb2-0.25": "gs://weatherbench2/datasets/era5/1959-2023_01_10-wb13-6h-1440x721_with_derived_variables.zarr",
    "arco": "gs://gcp-public-data-arco-era5/ar/full_37-1h-0p25deg-chunk-1.zarr-v3",
}
"""URLs of public stores of ERA5, by the name that a user gives."""

Address = str | Store
"""One file or store: a path, a URL, or an open Zarr store."""

REMOTE: dict[str, Any] = {
    "client_options": {"allow_http": True, "timeout": timedelta(seconds=120)},
    "retry_config": {"max_retries": 8, "retry_timeout": timedelta(seconds=90)},
}
"""How obstore reaches a server: it repeats a request after growing waits if the server answers 5xx or 429 or not at all."""
KERCHUNK = "kerchunk's references to data elsewhere are not followed; open them in Python and write what they refer to as Zarr"
ROOTS = ("zarr.json", ".zmetadata", ".zgroup")
"""Names of metadata files. A Zarr store has at least one of them at its root."""
ICECHUNK = ("repo", "refs/branch.main/ref.json")
"""The file of an Icechunk repository that a commit replaces, in its formats 2 and 1."""
SUFFIXES = (".nc", ".nc4", ".netcdf", ".cdf", ".grib", ".grb", ".grib1", ".grb1", ".grib2", ".grb2", ".zip", ".zarr")


def is_remote(source: object) -> bool:
    """Return whether a source is reached by a URL."""
    return isinstance(source, str) and "://" in BUILT_IN.get(source, source)


def addresses(source: Address | Sequence[Path]) -> list[Address]:
    """Return the addresses that a source stands for: a built-in name, a URL, a store, a file, a directory, a glob, or a list of files.

    Files of a directory, with those inside it, and of a glob are in order of their names. Each counts once.

    Raises:
        UserError: if there is nothing to read.
    """
    if not isinstance(source, str):
        return [str(path) for path in source] if isinstance(source, Sequence) else [source]
    if source in SYSTEMS:
        raise UserError(f"source '{source}': fetched only where the times are known; prepare a record of it and name its analysis.zarr")
    if source == "planet":
        raise UserError("source 'planet': simulated; prepare a record of it and name its analysis.zarr")
    if is_remote(source):
        return [BUILT_IN.get(source, source)]
    path = Path(os.path.expanduser(source))  # noqa: PTH111, whose alternative raises if there is no such user
    paths = [path] if path.exists() else [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
    paths = paths if source.strip() else []
    paths = [inner for outer in paths for inner in (_inside(outer) if outer.is_dir() and not _is_zarr(outer) else [outer])]
    if not paths:
        names = ", ".join((*BUILT_IN, *SYSTEMS))
        raise UserError(
            f"source '{source}': no such file, nothing to read in a directory or glob of that name, and none of planet, {names}"
        )
    return list(dict.fromkeys(map(str, paths)))  # ** matches a directory and the files in it


def unpacked(address: Address, scratch: Path) -> list[Address]:
    """Unpack a zip archive into its own directory under ``scratch`` and return its files; return any other address unchanged.

    The unpacked files get the archive's time of change. A zip archive that holds a Zarr store is not unpacked.

    Raises:
        UserError: if the archive is damaged or has no file of a known format, or if its files do not fit on the disk.
    """
    if not isinstance(address, str) or is_remote(address) or not _magic(Path(address)).startswith(b"PK\x03\x04"):
        return [address]
    path = Path(address)
    if _zarr_in_zip(path) is not None:
        return [address]
    # Archives often have the same name, and one may be replaced by another. The digest keeps their directories apart.
    directory = scratch / f"{hashlib.sha256(f'{path.absolute()} {state_of(address)}'.encode()).hexdigest()[:8]}-{path.name}"
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(path) as archive:
            # Without directories, because a name in an archive may begin with ../..
            targets = {directory / f"{number}-{Path(member.filename).name}": member for number, member in enumerate(archive.infolist())}
            targets = {to: member for to, member in targets.items() if to.suffix.lower() in SUFFIXES and not member.is_dir()}
            missing = {to: member for to, member in targets.items() if not to.exists() or to.stat().st_size != member.file_size}
            require_space(directory, sum(member.file_size for member in missing.values()))  # zipfile reads no more than these
            for target, member in missing.items():
                partial = target.with_suffix(".partial")
                with archive.open(member) as packed, partial.open("wb") as file:
                    shutil.copyfileobj(packed, file, 1 << 24)
                partial.replace(target)
            for target in targets:
                os.utime(target, ns=(path.stat().st_mtime_ns,) * 2)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path}: cannot be unpacked ({first_line(error)})") from None
    if not targets:
        raise UserError(f"{path}: has no NetCDF or GRIB file in it")
    return [str(target) for target in targets]


def shown(address: Address, outer: Address) -> str:
    """Return what messages call a file or store: its address, or the archive ``outer`` that it was unpacked from and its name in there."""
    return str(address) if address == outer else f"{outer}: {Path(str(address)).name.partition('-')[2]}"


def state_of(address: Address) -> str:
    """Return a text that changes when a file does: its name, size and time of change.

    For a store on disk these are those of its metadata file, so a changed chunk is not noticed. For a remote store it is the address alone.
    """
    if not isinstance(address, str) or is_remote(address):
        return str(address)
    path = Path(address).absolute()
    if path.is_dir():
        path = next((path / name for name in (*ROOTS, *ICECHUNK) if (path / name).exists()), path)
    status = path.stat()
    return f"{path.parent.name}/{path.name} {status.st_size} {status.st_mtime_ns}"


def fingerprint(source: str) -> str:
    """Return a text that changes when the files behind ``source`` do. A remote store and open data are assumed not to change."""
    if is_remote(source) or source in SYSTEMS:
        return source
    return hashlib.sha256(repr([state_of(address) for address in addresses(source)]).encode()).hexdigest()[:16]


def open_dataset(address: Address, names: Sequence[str] = DEFAULT) -> xr.Dataset:
    """Open one file or store as a lazy dataset without dask. Whoever reads its values holds :func:`file_lock`.

    Args:
        address: address of the file or store.
        names: the channels that are needed. A GRIB file is opened with these alone, others with all that they hold.

    Raises:
        UserError: if the file or store cannot be read, or if this needs a package that is not installed.
    """
    with file_lock(address):
        return with_invalid_missing(_open(address, names), address)


def _open(address: Address, names: Sequence[str]) -> xr.Dataset:
    if not isinstance(address, str) or not is_file(address):
        return _open_zarr(address, names)
    magic = _magic(Path(address))
    if magic.startswith(b"GRIB"):
        return open_grib(address, names)
    if magic.startswith(b"PK\x03\x04"):
        if _zarr_in_zip(Path(address)) is None:
            raise UserError(f"{address}: a zip archive in which no Zarr store is found; unpack it and name one of its files")
        return _open_zarr(address, names)
    if magic.lstrip().startswith(b"{"):
        raise UserError(f"{address}: a JSON file without data; {KERCHUNK}")
    if not magic.startswith((b"CDF", b"\x89HDF")):
        raise UserError(f"{address}: neither NetCDF nor GRIB nor a Zarr store, by its first bytes")
    if magic.startswith(b"CDF"):
        require_whole(address)
    try:
        with warnings.catch_warnings():  # about variables that are not read
            warnings.simplefilter("ignore", xr.SerializationWarning)
            dataset = decoded(xr.open_dataset(address, engine="netcdf4", decode_cf=False), names)
    except (OSError, ValueError) as error:
        raise UserError(f"{address}: cannot be read as NetCDF ({first_line(error)})") from None
    if not dataset.data_vars and magic.startswith(b"\x89HDF"):
        from netCDF4 import Dataset  # imported only when it is needed

        with Dataset(address) as file:
            if groups := ", ".join(file.groups):
                raise UserError(
                    f"{address}: its variables are in groups ({groups}), which are not read; write the one with the fields to a file"
                )
    return dataset


def _open_zarr(address: Address, names: Sequence[str]) -> xr.Dataset:
    if isinstance(address, str) and not is_remote(address) and list(Path(address).glob("*/refs.*.parq")):
        raise UserError(f"{address}: {KERCHUNK}")
    try:
        store, root = _store(address)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return decoded(xr.open_zarr(StorePath(AbsentIsMissing(store), root), chunks=None, decode_cf=False), names)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{address}: cannot be opened as a Zarr store ({first_line(error)})") from None


def _store(address: Address) -> tuple[Store, str]:
    """Return the store at an address, and the path of the dataset inside it: "" for its root.

    Raises:
        UserError: if opening the store needs a package that is not installed.
    """
    if not isinstance(address, str):
        return address, ""
    if is_remote(address):
        return _remote_store(address), ""
    if Path(address).is_file():
        return sync(ZipStore.open(address, mode="r")), _zarr_in_zip(Path(address)) or ""
    if _is_icechunk(Path(address)):
        try:
            import icechunk
        except ImportError:
            raise UserError(f"{address}: an Icechunk repository; `pip install 'wsdcast[icechunk]'` reads it") from None
        repository = icechunk.Repository.open(icechunk.local_filesystem_storage(address))
        return repository.readonly_session("main").store, ""
    return LocalStore(address, read_only=True), ""


def _remote_store(url: str) -> ObjectStore:  # type: ignore[type-arg]
    """Open a Zarr store by its URL. Requests are anonymous unless the environment has credentials of the AWS or Google tools."""
    from obstore.store import from_url

    options = dict(REMOTE)
    if url.startswith(("gs://", "s3://")):
        credentials = ("AWS_ACCESS_KEY_ID", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT")
        options["skip_signature"] = url in BUILT_IN.values() or not any(name in os.environ for name in credentials)
    try:
        return ObjectStore(from_url(url, **options), read_only=True)
    except Exception as error:
        raise UserError(f"{url}: not a URL of a store ({first_line(error)})") from None


def _is_zarr(path: Path) -> bool:
    return any((path / name).is_file() for name in ROOTS) or _is_icechunk(path)


def _is_icechunk(path: Path) -> bool:
    return (path / "snapshots").is_dir() and ((path / "refs").is_dir() or (path / "repo").is_file())


def _zarr_in_zip(path: Path) -> str | None:
    """Return the directory of the Zarr store inside a zip archive, "" for its root, or None if the archive has no Zarr store."""
    try:
        with zipfile.ZipFile(path) as archive:
            roots = [name.rpartition("/")[0] for name in archive.namelist() if name.rpartition("/")[2] in ROOTS]
    except zipfile.BadZipFile:
        return None
    return min(roots, key=len, default=None)


def _inside(directory: Path) -> list[Path]:
    """Return the files and stores in a directory and in those inside it, except hidden ones.

    Files are recognised by their suffix or, as those of GFS, by their first bytes.
    """
    found = []
    for path in sorted(directory.iterdir()):
        if path.is_dir() and not _is_zarr(path):
            found += [] if path.name.startswith(".") else _inside(path)
        elif path.is_dir() or (path.is_file() and _is_data(path)):
            found.append(path)
    return found


def _is_data(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES or _magic(path).startswith((b"GRIB", b"CDF", b"\x89HDF"))


def _magic(path: Path) -> bytes:
    if path.is_dir():
        return b""
    with path.open("rb") as file:
        return file.read(8)


def of_address(address: Address, message: object) -> str:
    """Return a message that begins with the address which it is about, once."""
    return str(message) if str(message).startswith((str(address), f"source '{address}'")) else f"{address}: {message}"
