"""Every bound on clients, and pure ASGI around the app that keeps those of requests.

A body is read to its end, under a cap and a deadline, before the app sees it; a refusal is a
problem document (RFC 9457) of constant text.
"""

import asyncio
import ipaddress
import json
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on one client and on all together; counts, bytes and seconds."""

    body_bytes: int = 784  # most bytes of a body: an image of 28x28 grey pixels
    body_seconds: float = 5.0  # from the end of a head to the end of its body
    head_bytes: int = 16_384  # most bytes that are no body: head, trailers, sizes of chunks
    fields: int = 100  # most header fields of a request, trailers included
    waiting_bytes: int = 4096  # most that are kept of what follows an unanswered request
    waiting_requests: int = 8
    head_seconds: float = 5.0  # from the connection, or the last answer, to the end of a head
    answer_seconds: float = 10.0  # from the end of a head to the end of its answer
    connections: int = 128  # one more takes the place of the one that waits longest
    connections_each: int = 64  # of one address
    at_work_seconds: float = 1.0  # so long a request under way keeps its place, in any crowd


Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ANY_ADDRESS = "any-address"  # as an allowed host: every literal IP address, no name (rebinding)
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
METHODS = ("GET", "HEAD", "POST")
LINGER_BYTES, LINGER_SECONDS = 65_536, 1.0

SECURITY_HEADERS = {  # on every response, whatever its status
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}

log = logging.getLogger("purpleteam.serve")


class Refusal(Exception):
    """A request that is answered with a problem document of constant text."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers


class _Gone(Exception):
    """The client left before its body was complete."""


def problem(refusal: Refusal) -> tuple[dict[str, str], bytes]:
    """Return the headers and the content of a problem document (RFC 9457)."""
    title = HTTPStatus(refusal.status).phrase
    fields = {"title": title, "status": refusal.status, "detail": refusal.detail}
    content = json.dumps(fields).encode()
    headers = {"content-type": "application/problem+json", "cache-control": "no-store"}
    return {**headers, "content-length": str(len(content)), **refusal.headers}, content


class Guard:
    """ASGI middleware that lets whole, small, own requests through and hardens each response."""

    def __init__(self, app: App, *, allowed_hosts: Collection[str], limits: Limits) -> None:
        self.app, self.allowed_hosts, self.limits = app, frozenset(allowed_hosts), limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        started, read = False, list[Message]()

        async def replay() -> Message:
            return read.pop() if read else await receive()

        async def harden(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                added = {name.encode(): value.encode() for name, value in SECURITY_HEADERS.items()}
                others = [(name, value) for name, value in message["headers"] if name not in added]
                message = {**message, "headers": [*others, *added.items()]}
            await send(message)

        last = {"connection": "close"}  # until the request has been read
        try:
            headers: dict[str, str] = {}
            for raw_name, raw_value in scope["headers"]:
                name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1").strip()
                if name in ("host", "content-length") and name in headers:
                    raise Refusal(400, "A header that may come once came twice.")
                headers[name] = value
            self._check(scope["method"], headers)
            body = await self._body(headers, receive)
            read, last = [{"type": "http.request", "body": body}], {}
            await self.app(scope, replay, harden)
            return
        except _Gone:
            return
        except Refusal as error:
            refusal = Refusal(error.status, error.detail, **error.headers, **last)
        except Exception:
            log.exception("request failed")
            if started:
                raise
            refusal, last = Refusal(500, "The server could not answer.", connection="close"), {}
        own, content = problem(refusal)
        raw = [(name.encode(), value.encode()) for name, value in own.items()]
        await harden({"type": "http.response.start", "status": refusal.status, "headers": raw})
        await harden({"type": "http.response.body", "body": content, "more_body": bool(last)})
        if last:
            await _linger(receive)
            await harden({"type": "http.response.body"})

    def _check(self, method: str, headers: Mapping[str, str]) -> None:
        """Refuse a foreign host, an unknown method, and what another site sends."""
        host = headers.get("host", "").lower()
        name = host[1:].partition("]")[0] if host[:1] == "[" else host.partition(":")[0]
        known = name in self.allowed_hosts
        if ANY_ADDRESS in self.allowed_hosts:
            with suppress(ValueError):
                ipaddress.ip_address(name)
                known = True
        if not known:
            raise Refusal(400, "The host is not one that this server answers for.")
        if method not in METHODS:
            raise Refusal(405, "The method is not allowed.", allow=", ".join(METHODS))
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        elsewhere = origin is not None and origin.partition("://")[2] != headers.get("host")
        if site is not None:
            elsewhere = site not in ("same-origin", "none")
        if method == "POST" and elsewhere:
            raise Refusal(403, "Requests from other sites are refused.")

    async def _body(self, headers: Mapping[str, str], receive: Receive) -> bytes:
        too_large = Refusal(413, f"The body may hold at most {self.limits.body_bytes} bytes.")
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            raise Refusal(400, "The content length is no number.")
        if len(length) > 18 or int(length) > self.limits.body_bytes:
            raise too_large
        body, more = b"", True
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Gone
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > self.limits.body_bytes:
                        raise too_large
        except TimeoutError:
            raise Refusal(408, "The body took too long.") from None
        return body


async def _linger(receive: Receive) -> None:
    """Read on for a moment before closing, so that the answer reaches a client still sending."""
    taken, more = 0, True
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while more and taken < LINGER_BYTES:
                message = await receive()
                taken += len(message.get("body", b""))
                more = message.get("more_body", False)
