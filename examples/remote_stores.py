"""Measure which library reads Zarr from a bucket fastest: obstore, s3fs or gcsfs, with a local server that waits before each answer.

    pip install s3fs gcsfs
    GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT=false python examples/remote_stores.py

(Without that variable gcsfs first asks for the kind of bucket by gRPC, which this server does not answer.)

Prints a Markdown table for two stores: one has the layout of WeatherBench 2 at 1.5 degrees (eight steps per chunk), the other that of
ARCO-ERA5 (one step per chunk, at 0.25 degrees).
"""

from __future__ import annotations

import re
import tempfile
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import xarray as xr
from obstore.store import S3Store
from zarr.storage import FsspecStore, ObjectStore

LATENCY = 0.05
LAYOUTS = {"wb2": (256, 8, 240, 121, 64), "arco": (32, 1, 721, 1440, 8)}
"""Number of steps, steps per chunk, the two horizontal sizes, and steps per read."""


class Slow(SimpleHTTPRequestHandler):
    """Serve the files of a directory, each after a wait, also under the paths of Google's JSON interface, which gcsfs uses."""

    protocol_version = "HTTP/1.1"

    def translate_path(self, path: str) -> str:
        """Return the path of the file."""
        google = re.match(r"/(?:download/)?storage/v1/b/([^/]+)/o/([^?]+)", path)
        return super().translate_path(f"/{google[1]}/{unquote(google[2])}" if google else path)

    def do_GET(self) -> None:
        """Wait, then answer. Listing files is not supported."""
        time.sleep(LATENCY)
        if "list-type" in self.path:
            self.send_error(404)
        else:
            super().do_GET()

    def do_HEAD(self) -> None:
        """Wait, then answer."""
        time.sleep(LATENCY)
        super().do_HEAD()

    def log_message(self, *arguments: Any) -> None:
        """Log nothing."""


def save(directory: Path) -> None:
    """Write both stores as Zarr version 2, compressed like the public ones."""
    from numcodecs import Blosc as Blosc2

    for name, (steps, chunk, first, second, _) in LAYOUTS.items():
        values = np.random.default_rng(0).normal(0, 6, (steps, first, second)).astype(np.float32)
        dataset = xr.Dataset({"u10": (("time", "y", "x"), values)}, {"time": np.arange(steps)})
        encoding = {"u10": {"chunks": (chunk, first, second), "compressors": Blosc2("lz4", 5, Blosc2.SHUFFLE)}}
        dataset.to_zarr(directory / "bucket" / name, zarr_format=2, consolidated=True, encoding=encoding)


def through_obstore(url: str, name: str) -> ObjectStore:
    """Return the store as wsdcast opens it."""
    return ObjectStore(
        S3Store("bucket", prefix=name, endpoint=url, skip_signature=True, client_options={"allow_http": True}), read_only=True
    )


def through_s3fs(url: str, name: str) -> FsspecStore:
    """Return the store as xarray opens it by default."""
    return FsspecStore.from_url(f"s3://bucket/{name}", storage_options={"anon": True, "endpoint_url": url}, read_only=True)


def through_gcsfs(url: str, name: str) -> FsspecStore:
    """Return the store as xarray opens it for Google's storage."""
    return FsspecStore.from_url(f"gs://bucket/{name}", storage_options={"token": "anon", "endpoint_url": url}, read_only=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        save(Path(directory))
        server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *all: Slow(*all, directory=directory))  # type: ignore[arg-type]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        print("| store | library | open s | read MB/s | processor s |\n|---|---|---:|---:|---:|")
        for name, (steps, _, _, _, steps_per_read) in LAYOUTS.items():
            for library, open_store in (("obstore", through_obstore), ("s3fs", through_s3fs), ("gcsfs", through_gcsfs)) * 2:
                begin = time.perf_counter()
                wind = xr.open_zarr(open_store(url, name), chunks=None, consolidated=True).u10
                opened = time.perf_counter() - begin
                begin, used = time.perf_counter(), time.process_time()
                size = sum(wind[first : first + steps_per_read].values.nbytes for first in range(0, steps, steps_per_read))
                seconds, used = time.perf_counter() - begin, time.process_time() - used
                print(f"| {name} | {library} | {opened:.2f} | {size / 1e6 / seconds:.0f} | {used:.2f} |", flush=True)
