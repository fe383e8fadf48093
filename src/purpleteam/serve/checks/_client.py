"""Ask a server one thing with http.client; what came back, or how it was cut off."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from purpleteam.core.errors import UsageError

__all__ = ["OCTETS", "STROKE", "Reply", "announce", "ask", "endpoint", "pour", "shout"]

SECONDS = 5.0
MOST_BYTES = 1_000_000
OCTETS = {"Content-Type": "application/octet-stream"}
_ROWS = (bytes(13) + (b"\xff\xff" if 4 <= row < 24 else bytes(2)) + bytes(13) for row in range(28))
STROKE = b"".join(_ROWS)
"""A plain upright stroke, 784 bytes: to most models a 1."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A response; status 0 where the server cut the connection, or was silent, before one."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    """By name in lower case."""
    body: bytes = b""
    sent: int = 0
    """Bytes of the body that were sent before the answer or the cut, where they were poured."""

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")


def endpoint(url: str) -> tuple[str, int]:
    """Return host and port of an http address."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise UsageError(f"address {url!r} is not of the form http://HOST:PORT")
    return parts.hostname, parts.port or 80


def ask(
    url: str,
    method: str,
    path: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Send one ordinary request; a server that is not there is an OSError."""
    connection = _connect(url)
    try:
        connection.request(method, path, body, dict(headers or {}))
        return _reply(connection)
    except (BrokenPipeError, ConnectionResetError):
        return Reply(status=0)
    finally:
        connection.close()


def pour(url: str, path: str, chunk: bytes, times: int) -> Reply:
    """Send a body in chunks, without its length, until it is whole or the server cuts it."""
    connection = _connect(url)
    frame = f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n"
    sent = 0
    try:
        _open(connection, path, {**OCTETS, "Transfer-Encoding": "chunked"})
        with suppress(ConnectionError):
            for _ in range(times):
                connection.send(frame)
                sent += len(chunk)
            connection.send(b"0\r\n\r\n")
        return _reply(connection, sent)
    finally:
        connection.close()


def announce(url: str, path: str, length: int) -> Reply:
    """Announce a body of `length` bytes, send none of it, and see what the server says."""
    connection = _connect(url)
    try:
        _open(connection, path, {**OCTETS, "Content-Length": str(length)})
        return _reply(connection)
    finally:
        connection.close()


def shout(url: str, raw: bytes) -> bytes:
    """Send bytes that may be no HTTP at all; return what comes back."""
    found = b""
    with socket.create_connection(endpoint(url), timeout=SECONDS) as plug:
        plug.sendall(raw)
        with suppress(ConnectionError, TimeoutError):
            while len(found) < MOST_BYTES and (part := plug.recv(65536)):
                found += part
    return found


def _connect(url: str) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(*endpoint(url), timeout=SECONDS)
    connection.connect()
    return connection


def _open(connection: http.client.HTTPConnection, path: str, headers: Mapping[str, str]) -> None:
    connection.putrequest("POST", path)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()


def _reply(connection: http.client.HTTPConnection, sent: int = 0) -> Reply:
    try:
        response = connection.getresponse()
        with response:
            headers = {name.lower(): value for name, value in response.getheaders()}
            body = response.read(MOST_BYTES)
            return Reply(status=response.status, headers=headers, body=body, sent=sent)
    except (http.client.HTTPException, ConnectionError, TimeoutError):
        return Reply(status=0, sent=sent)
