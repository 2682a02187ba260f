"""Local servers that stand in for the network: plain HTTP, the XML interface of Google's storage, and moto's S3."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


class Files(BaseHTTPRequestHandler):
    """Serve files of a directory, or ranges of them.

    The first ``failures[name]`` answers for a file have the code ``status``. The first ``cut[name]`` answers break off after ten bytes, and
    the first ``short[name]`` answers to requests for a range have half of it.
    """

    root: Path
    status = 500
    failures: Counter[str]
    cut: Counter[str]
    short: Counter[str]
    requests: Counter[str]
    ranges: list[str]
    breaks_off = False

    def do_GET(self) -> None:
        self.answer(body=True)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def answer(self, body: bool) -> None:
        name = unquote(urlsplit(self.path).path).lstrip("/")
        self.requests[name] += 1
        if self.failures[name] > 0:
            self.failures[name] -= 1
            return self.reply(self.status, b"", body)
        path = self.root / name
        if not path.is_file():
            return self.reply(404, b"", body)
        content = path.read_bytes()
        byte_range = self.headers.get("Range")
        self.breaks_off = body and self.cut[name] > 0
        if self.breaks_off:
            self.cut[name] -= 1
            self.close_connection = True
        if byte_range is None:
            return self.reply(200, content, body)
        self.ranges.append(byte_range)
        first, last = byte_range.removeprefix("bytes=").split("-")
        begin = int(first) if first else len(content) - int(last)
        end = min(int(last) + 1 if first and last else len(content), len(content))
        if self.short[name] > 0:
            self.short[name] -= 1
            end = (begin + end) // 2
        return self.reply(206, content[begin:end], body, {"Content-Range": f"bytes {begin}-{end - 1}/{len(content)}"})

    def reply(self, status: int, content: bytes, body: bool, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        fixed = {"Content-Length": str(len(content)), "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT", "ETag": '"1"'}
        for name, value in (fixed | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content[:10] if self.breaks_off else content)

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def serve(root: Path) -> Iterator[tuple[str, type[Files]]]:
    """Yield the URL of a server of ``root``, and its handler, whose ``failures`` can be set and whose ``requests`` can be read."""
    faults = {"failures": Counter(), "cut": Counter(), "short": Counter()}
    handler = type("Handler", (Files,), {"root": root, "requests": Counter(), "ranges": [], "protocol_version": "HTTP/1.1"} | faults)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler
    finally:
        server.shutdown()
        server.server_close()
