"""A mirror on loopback that behaves or misbehaves as a test asks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Mirror:
    """A mirror on loopback: what it holds, how it misbehaves, and what it was asked."""

    def __init__(self, content: bytes, *, cut: int | None = None, status: int = 200) -> None:
        self.content, self.cut, self.status = content, cut, status
        self.ranges: list[str | None] = []
        self.location: str | None = None
        self.honours_ranges = True
        self.says_length = True
        self.url = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        self.ranges.append(asked)
        start = int(asked[6:-1]) if asked and self.honours_ranges else 0
        beyond = start >= len(self.content)
        status = self.status if self.status != 200 or not start else 416 if beyond else 206
        handler.send_response(status)
        if self.location:
            handler.send_header("Location", self.location)
        if status == 206:
            end, size = len(self.content) - 1, len(self.content)
            handler.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        body = self.content[start:] if status < 300 else b""
        if self.says_length:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: self.cut])
        self.cut = None  # breaks off once

    @contextmanager
    def serve(self) -> Iterator[str]:
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """Stay silent."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            self.url = f"http://127.0.0.1:{server.server_port}/file.gz"
            try:
                yield self.url
            finally:
                server.shutdown()
                thread.join()
