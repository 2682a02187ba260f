"""Which library reads Zarr from a bucket faster: obstore, s3fs or gcsfs, against a local server that waits before each answer.

    pip install s3fs gcsfs
    GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT=false python examples/remote_stores.py

(Without that variable gcsfs asks by gRPC first what kind of bucket it is, which this server does not answer.)

Prints a Markdown table: one store laid out as WeatherBench 2 at 1.5 degrees (eight steps to a chunk), one as ARCO-ERA5 (one step of a
quarter of a degree).
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
"""Steps, steps in a chunk, the two horizontal sizes, and steps asked for at once."""


class Slow(SimpleHTTPRequestHandler):
    """Files of a directory, each after a wait; also under the paths of Google's JSON interface, which gcsfs speaks."""

    protocol_version = "HTTP/1.1"

    def translate_path(self, path: str) -> str:
        """To the file."""
        google = re.match(r"/(?:download/)?storage/v1/b/([^/]+)/o/([^?]+)", path)
        return super().translate_path(f"/{google[1]}/{unquote(google[2])}" if google else path)

    def do_GET(self) -> None:
        """Wait, then answer; there are no lists of files."""
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
        """Nothing."""


def save(place: Path) -> None:
    """Both stores, Zarr version 2, compressed as the public ones are."""
    from numcodecs import Blosc as Blosc2

    for name, (steps, chunk, first, second, _) in LAYOUTS.items():
        values = np.random.default_rng(0).normal(0, 6, (steps, first, second)).astype(np.float32)
        dataset = xr.Dataset({"u10": (("time", "y", "x"), values)}, {"time": np.arange(steps)})
        encoding = {"u10": {"chunks": (chunk, first, second), "compressors": Blosc2("lz4", 5, Blosc2.SHUFFLE)}}
        dataset.to_zarr(place / "bucket" / name, zarr_format=2, consolidated=True, encoding=encoding)


def through_obstore(url: str, name: str) -> ObjectStore:
    """As wsdcast does it."""
    return ObjectStore(
        S3Store("bucket", prefix=name, endpoint=url, skip_signature=True, client_options={"allow_http": True}), read_only=True
    )


def through_s3fs(url: str, name: str) -> FsspecStore:
    """As xarray does it by default."""
    return FsspecStore.from_url(f"s3://bucket/{name}", storage_options={"anon": True, "endpoint_url": url}, read_only=True)


def through_gcsfs(url: str, name: str) -> FsspecStore:
    """As xarray does it for Google's storage."""
    return FsspecStore.from_url(f"gs://bucket/{name}", storage_options={"token": "anon", "endpoint_url": url}, read_only=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        save(Path(place))
        server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *all: Slow(*all, directory=place))  # type: ignore[arg-type]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        print("| store | library | open s | read MB/s | processor s |\n|---|---|---:|---:|---:|")
        for name, (steps, _, _, _, at_once) in LAYOUTS.items():
            for library, open_store in (("obstore", through_obstore), ("s3fs", through_s3fs), ("gcsfs", through_gcsfs)) * 2:
                begin = time.perf_counter()
                wind = xr.open_zarr(open_store(url, name), chunks=None, consolidated=True).u10
                opened = time.perf_counter() - begin
                begin, used = time.perf_counter(), time.process_time()
                size = sum(wind[first : first + at_once].values.nbytes for first in range(0, steps, at_once))
                seconds, used = time.perf_counter() - begin, time.process_time() - used
                print(f"| {name} | {library} | {opened:.2f} | {size / 1e6 / seconds:.0f} | {used:.2f} |", flush=True)
