"""Every bound on clients, and an ASGI app that keeps those of requests before it answers.

Its host is one of ours, its path and method are there, no other site sent it, and its body is read
to the end under a cap and a deadline. A refusal is a problem document (RFC 9457) of constant text.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on one client and on all together; counts, bytes and seconds."""

    body_bytes: int = 784
    """Most bytes of a body: an image of 28x28 grey pixels."""
    body_seconds: float = 5.0
    """Time from the end of a head to the end of its body."""
    head_bytes: int = 16_384
    """Most bytes of a request that are not its body: head, trailers, sizes of chunks."""
    fields: int = 100
    """Most header fields of a request, trailers included."""
    waiting_bytes: int = 4096
    """Most bytes that are kept of what comes after a request that is not answered yet."""
    waiting_requests: int = 8
    """Most requests that are kept of what comes after a request that is not answered yet."""
    head_seconds: float = 5.0
    """Time from the connection, or from the last answer, to the end of the next head."""
    answer_seconds: float = 10.0
    """Time from the end of a head to the end of its answer, as fast as the client takes it."""
    connections: int = 128
    """Most connections; one more takes the place of the one that waits longest."""
    connections_each: int = 64
    """Most connections of one address; one more takes the place of its one that waits longest."""
    at_work_seconds: float = 1.0
    """For so long a request under way keeps its place, however many come."""


Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

ANY_ADDRESS = "any-address"
"""Among the allowed hosts: every literal IP address. DNS rebinding needs a name."""
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
LINGER_BYTES, LINGER_SECONDS = 65_536, 1.0

SECURITY_HEADERS = {
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
"""On every response, whatever its status."""

log = logging.getLogger("purpleteam.serve")


class Reply(NamedTuple):
    """A response, and the headers that are its own."""

    status: int
    content: bytes
    own: Mapping[str, str]

    @property
    def headers(self) -> dict[str, str]:
        """All headers, the security headers among them."""
        length = {} if self.status == 304 else {"content-length": str(len(self.content))}
        return {**self.own, **length, **SECURITY_HEADERS}


Answer = Callable[[Mapping[str, str], bytes], Reply]
"""Of the headers of a request, and its body."""
Answers = Mapping[tuple[str, str], Answer]
"""By method and path; who answers GET answers HEAD."""


def problem(status: int, detail: str, **headers: str) -> Reply:
    """Return a problem document (RFC 9457); `detail` is constant text, never an exception's."""
    fields = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    own = {"content-type": "application/problem+json", "cache-control": "no-store", **headers}
    return Reply(status, json.dumps(fields).encode(), own)


class Refusal(Exception):
    """A request that is answered with a problem document."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers


class _Gone(Exception):
    """The client left before its body was whole."""


class Guard:
    """The ASGI app: lets whole, small, own requests through, and hardens each response."""

    def __init__(self, answers: Answers, allowed_hosts: Collection[str], limits: Limits) -> None:
        self.answers, self.allowed_hosts, self.limits = answers, frozenset(allowed_hosts), limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        last = {"connection": "close"}  # until the request is there as a whole
        try:
            headers: dict[str, str] = {}
            for raw_name, raw_value in scope["headers"]:
                name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1").strip()
                if name in ("host", "content-length") and name in headers:
                    raise Refusal(400, "A header that may come once came twice.")
                headers[name] = value
            answer = self._find(scope["method"], scope["path"], headers)
            body = await self._body(headers, receive)
            last = {}
            reply = answer(headers, body)
        except _Gone:
            return
        except Refusal as refusal:
            reply = problem(refusal.status, refusal.detail, **refusal.headers, **last)
        except Exception:
            log.exception("request failed")
            reply = problem(500, "The server could not answer.", **last)
        raw = [(name.encode(), value.encode()) for name, value in reply.headers.items()]
        await send({"type": "http.response.start", "status": reply.status, "headers": raw})
        await send({"type": "http.response.body", "body": reply.content, "more_body": bool(last)})
        if last:
            await _linger(receive)
            await send({"type": "http.response.body"})

    def _find(self, method: str, path: str, headers: Mapping[str, str]) -> Answer:
        """Refuse a host that is none of ours, what is not there, and what another site sends."""
        host = headers.get("host", "").lower()
        name = host[1:].partition("]")[0] if host[:1] == "[" else host.partition(":")[0]
        known = name in self.allowed_hosts
        if ANY_ADDRESS in self.allowed_hosts:
            with suppress(ValueError):
                ipaddress.ip_address(name)
                known = True
        if not known:
            raise Refusal(400, "The host is not one that this server answers for.")
        allowed = [method for method, other in self.answers if other == path]
        allowed += ["HEAD"] if "GET" in allowed else []
        if not allowed:
            raise Refusal(404, "There is nothing here.")
        if method not in allowed:
            raise Refusal(405, "The method is not allowed here.", allow=", ".join(allowed))
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        elsewhere = origin is not None and origin.partition("://")[2] != headers.get("host")
        if site is not None:
            elsewhere = site not in ("same-origin", "none")
        if method == "POST" and elsewhere:
            raise Refusal(403, "Requests from other sites are refused.")
        return self.answers["GET" if method == "HEAD" else method, path]

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
