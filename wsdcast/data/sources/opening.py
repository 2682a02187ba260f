"""Opens what people have: NetCDF, GRIB, zipped downloads, Zarr stores on disk, in a bucket or behind a web server."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import warnings
import zipfile
import zlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import xarray as xr
from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.storage import LocalStore, ObjectStore, StorePath, ZipStore

from wsdcast.data.sources.absent import AbsentIsMissing
from wsdcast.data.sources.classic_netcdf import required_size
from wsdcast.data.sources.grib import open_grib
from wsdcast.data.sources.layout import is_wind
from wsdcast.runs.errors import UserError

BUILT_IN = {
    "wb2": "gs://weatherbench2/datasets/era5/1959-2023_01_10-6h-240x121_equiangular_with_poles_conservative.zarr",
    "wb2-0.25": "gs://weatherbench2/datasets/era5/1959-2023_01_10-wb13-6h-1440x721_with_derived_variables.zarr",
    "arco": "gs://gcp-public-data-arco-era5/ar/full_37-1h-0p25deg-chunk-1.zarr-v3",
}
"""Public stores of ERA5 by name."""

Address = str | Store
"""Of one file or store: a path, a URL, or an open Zarr store."""

KERCHUNK = "kerchunk's references to data elsewhere are not followed; open them in Python and write what they refer to as Zarr"
ROOTS = ("zarr.json", ".zmetadata", ".zgroup")
"""Files of which a Zarr store has one at its root."""
SUFFIXES = (".nc", ".nc4", ".netcdf", ".cdf", ".grib", ".grb", ".grib1", ".grb1", ".grib2", ".grb2", ".zip", ".zarr")


def is_remote(source: object) -> bool:
    """Whether a source is reached by URL."""
    return isinstance(source, str) and "://" in BUILT_IN.get(source, source)


def is_file(address: Address) -> bool:
    """Whether it is one file, not a store."""
    return isinstance(address, str) and not is_remote(address) and not Path(address).is_dir()


def addresses(source: Address) -> list[Address]:
    """What a source stands for: a built-in name, a URL, a store, a file, a directory or a glob; files in order of name.

    Raises:
        UserError: if there is nothing.
    """
    if not isinstance(source, str):
        return [source]
    if is_remote(source):
        return [BUILT_IN.get(source, source)]
    path = Path(os.path.expanduser(source))  # noqa: PTH111, which does not raise where there is no such user
    found = [path] if path.exists() else [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
    found = found if source.strip() else []
    found = [inner for outer in found for inner in (_inside(outer) if outer.is_dir() and not _is_zarr(outer) else [outer])]
    if not found:
        names = ", ".join(BUILT_IN)
        raise UserError(
            f"source '{source}': no such file, nothing to read in a directory or glob of that name, and none of planet, {names}"
        )
    return [str(path) for path in found]


def unpacked(address: Address, scratch: Path) -> list[Address]:
    """The files of a zip archive, in a directory of ``scratch`` of their own, dated as the archive; of all else, itself.

    Raises:
        UserError: if the archive is damaged.
    """
    if not isinstance(address, str) or is_remote(address) or not _magic(Path(address)).startswith(b"PK\x03\x04"):
        return [address]
    path, found = Path(address), list[Address]()
    if _zarr_in_zip(path) is not None:
        return [address]
    # Archives often have the same name, and one may be replaced by another: neither may pass for the other.
    directory = scratch / f"{hashlib.sha256(f'{path.absolute()} {state_of(address)}'.encode()).hexdigest()[:8]}-{path.name}"
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(path) as archive:
            for number, member in enumerate(archive.infolist()):
                name = f"{number}-{Path(member.filename).name}"  # never a path: an archive may say ../..
                if Path(name).suffix.lower() not in SUFFIXES or member.is_dir():
                    continue
                target = directory / name
                if not target.exists() or target.stat().st_size != member.file_size:
                    partial = target.with_suffix(".partial")
                    with archive.open(member) as packed, partial.open("wb") as file:
                        shutil.copyfileobj(packed, file, 1 << 24)
                    partial.replace(target)
                os.utime(target, ns=(path.stat().st_mtime_ns,) * 2)
                found.append(str(target))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path}: cannot be unpacked ({first_line(error)})") from None
    if not found:
        raise UserError(f"{path}: has no file of wind in it")
    return found


def state_of(address: Address) -> str:
    """A text that changes when a file does: its name, size and time of change. Of a store on disk that of its metadata, not of each chunk,
    and of a remote one the address alone.
    """
    if not isinstance(address, str) or is_remote(address):
        return str(address)
    path = Path(address).absolute()
    if path.is_dir():
        path = next(path / name for name in (*ROOTS, "refs/branch.main/ref.json") if (path / name).exists())
    status = path.stat()
    return f"{path.parent.name}/{path.name} {status.st_size} {status.st_mtime_ns}"


def fingerprint(source: str) -> str:
    """A text that changes when the files behind ``source`` do. A remote store is taken to stay as it is."""
    if is_remote(source):
        return source
    return hashlib.sha256(repr([state_of(address) for address in addresses(source)]).encode()).hexdigest()[:16]


def open_dataset(address: Address) -> xr.Dataset:
    """One file or store, lazily and without dask.

    Raises:
        UserError: if it cannot be read, or needs a package that is not installed.
    """
    if not isinstance(address, str) or not is_file(address):
        return _open_zarr(address)
    magic = _magic(Path(address))
    if magic.startswith(b"GRIB"):
        return open_grib(address)
    if magic.startswith(b"PK\x03\x04"):
        return _open_zarr(address)
    if magic.lstrip().startswith(b"{"):
        raise UserError(f"{address}: JSON, no data; {KERCHUNK}")
    if not magic.startswith((b"CDF", b"\x89HDF")):
        raise UserError(f"{address}: neither NetCDF nor GRIB nor a Zarr store, by its first bytes")
    if magic.startswith(b"CDF"):
        _require_whole(address)
    try:
        with warnings.catch_warnings():  # of oddities in variables that are not ours
            warnings.simplefilter("ignore", xr.SerializationWarning)
            dataset = decoded(xr.open_dataset(address, engine="netcdf4", decode_cf=False))
    except (OSError, ValueError) as error:
        raise UserError(f"{address}: cannot be read as NetCDF ({first_line(error)})") from None
    if not dataset.data_vars and magic.startswith(b"\x89HDF"):
        from netCDF4 import Dataset  # networks need none of it

        with Dataset(address) as file:
            if groups := ", ".join(file.groups):
                raise UserError(
                    f"{address}: its variables are in groups ({groups}), which are not read; write the one with the wind to a file"
                )
    return dataset


def decoded(raw: xr.Dataset) -> xr.Dataset:
    """A dataset with CF's conventions applied; variables that cannot be decoded are left out.

    Raises:
        ValueError: if one of them is the 10 m wind, or none can be decoded.
    """
    try:
        return xr.decode_cf(raw, decode_timedelta=True)
    except Exception as error:  # of as many kinds as there are mistakes in attributes
        problem = error
    bad = []
    for name in raw.data_vars:
        try:
            xr.decode_cf(raw[[name]], decode_timedelta=True)
        except Exception as error:
            if is_wind(str(name)):
                raise ValueError(f"{name}: {first_line(error)}") from None
            bad.append(name)
    if not bad:
        raise ValueError(first_line(problem))
    return xr.decode_cf(raw.drop_vars(bad), decode_timedelta=True)


def _require_whole(path: str) -> None:
    """Refuse a classic NetCDF file that was cut off."""
    try:
        missing = required_size(path) - Path(path).stat().st_size
    except EOFError as error:
        raise UserError(f"{path}: cannot be read as NetCDF ({error})") from None
    if missing > 0:
        raise UserError(f"{path}: cannot be read as NetCDF, it was cut off: {missing} bytes are missing")


def _open_zarr(address: Address) -> xr.Dataset:
    if isinstance(address, str) and not is_remote(address) and list(Path(address).glob("*/refs.*.parq")):
        raise UserError(f"{address}: {KERCHUNK}")
    try:
        store, place = _store(address)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return decoded(xr.open_zarr(StorePath(AbsentIsMissing(store), place), chunks=None, decode_cf=False))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{address}: cannot be opened as a Zarr store ({first_line(error)})") from None


def _store(address: Address) -> tuple[Store, str]:
    """The store at an address, and the place of the dataset in it, "" for its root.

    Raises:
        UserError: if it needs a package that is not installed.
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
    """A Zarr store by URL through obstore, which asks again where a server answers 5xx or not at all.

    Without credentials in the environment (those of the AWS and Google tools) requests are anonymous.
    """
    from obstore.store import from_url

    options: dict[str, Any] = {
        "client_options": {"allow_http": True, "timeout": timedelta(seconds=120)},
        "retry_config": {"max_retries": 8, "retry_timeout": timedelta(seconds=90)},
    }
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
    return (path / "refs").is_dir() and (path / "snapshots").is_dir()


def _zarr_in_zip(path: Path) -> str | None:
    """The directory of a Zarr store inside of a zip archive, "" for its root; None if there is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            roots = [name.rpartition("/")[0] for name in archive.namelist() if name.rpartition("/")[2] in ROOTS]
    except zipfile.BadZipFile:
        return None
    return min(roots, key=len, default=None)


def _inside(directory: Path) -> list[Path]:
    """The files and stores of a directory: by suffix, or by their first bytes where the suffix is another, as GFS's names have it."""
    return sorted(path for path in directory.iterdir() if _is_zarr(path) or (path.is_file() and _is_data(path)))


def _is_data(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES or _magic(path).startswith((b"GRIB", b"CDF", b"\x89HDF"))


def _magic(path: Path) -> bytes:
    if path.is_dir():
        return b""
    with path.open("rb") as file:
        return file.read(8)


def first_line(error: Exception) -> str:
    """What an error of a library says, in one line; its kind if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
