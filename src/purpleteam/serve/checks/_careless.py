"""A server that is wrong in every way that the checks look for: their negative control.

It is harmless: it answers with constants, on loopback, for as long as a check looks at it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["careless_server"]

PAGE = b"""<html><head><style>body { color: black }</style>
<script>document.body.innerHTML = location.hash</script>
<script src="https://cdn.example/app.js"></script></head>
<body onload="start()" style="margin: 0"></body></html>"""
CONSOLE = b"<h1>Interactive Console</h1> Werkzeug debugger"
TRACEBACK = b"""Traceback (most recent call last):
  File "/home/app/server.py", line 41, in predict
ValueError: cannot reshape <_io.BytesIO object at 0x7f2a10c3d0e0>"""
PATIENCE = 10_000_000
ANSWER = b'{"label": 7, "confidences": [0.1, 0.9], "logits": [1.5, 3.5]}'
VERSION = (
    b'{"version": "0", "model": "unknown", "digest": "sha256:0", "limits": {"head_seconds": 0.1}}'
)
PAGES = {"/": PAGE, "/console": CONSOLE, "/predict": ANSWER, "/version": VERSION}


class _Careless(BaseHTTPRequestHandler):
    server_version = "Werkzeug/0.1"
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        known = self.path in PAGES
        self._answer(200 if known else 500, PAGES.get(self.path, TRACEBACK))

    def do_POST(self) -> None:
        self._swallow()
        if self.headers.get("Content-Type") != "application/octet-stream":
            self._answer(500, TRACEBACK)
        else:
            self._answer(200, ANSWER)

    do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_POST  # noqa: N815

    def _swallow(self) -> None:
        if self.headers.get("Transfer-Encoding") != "chunked":
            length = int(self.headers.get("Content-Length", 0))
            self.rfile.read(length if 0 < length <= PATIENCE else 0)
            return
        while size := int(self.rfile.readline() or b"0", 16):
            self.rfile.read(size + 2)

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: the checks send what this server cannot read."""


@contextmanager
def careless_server() -> Iterator[str]:
    """Run the careless server on a free loopback port; yield its address."""
    with _Quiet(("127.0.0.1", 0), _Careless) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
