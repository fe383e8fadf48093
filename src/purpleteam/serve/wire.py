"""The HTTP protocol under the app, with the two limits that an ASGI app cannot set itself.

uvicorn waits for ever for a request's headers, and answers broken requests without security
headers. Here a client has a few seconds for its headers, and connections beyond a number are
turned away at once.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from purpleteam.serve.guard import SECURITY_HEADERS, problem

__all__ = ["BoundedProtocol"]


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 for bounded clients."""

    header_seconds = 10.0
    most_connections = 128
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock of the first request, or turn the client away."""
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            self._refuse(503, "Too many connections; try again later.")
        else:
            self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Start the clock of a request on a kept-alive connection."""
        super().on_message_begin()
        self._start_clock()

    def on_headers_complete(self) -> None:
        """Stop the clock: the body has its own deadline, kept by the guard."""
        self._stop_clock()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP with constant text and all headers."""
        self._refuse(400, "This is no valid HTTP request.")

    def _refuse(self, status: int, detail: str) -> None:
        content = problem(status, detail)
        headers = {
            **SECURITY_HEADERS,
            "content-type": "application/problem+json",
            "content-length": str(len(content)),
            "cache-control": "no-store",
            "connection": "close",
        }
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + content)
        self.transport.close()

    def _start_clock(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.header_seconds, self.transport.close)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
