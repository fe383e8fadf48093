"""What guards share: one request as far as it is known, what refuses it, and ASGI's types."""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from purpleteam.serve.counts import Allowance

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ANY_ADDRESS = "any-address"  # as an allowed host: every literal IP address, no name (rebinding)

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


@dataclass(slots=True)
class Visit:
    """One request, as `scope["visit"]`; guards fill it in from outside to inside."""

    headers: Mapping[str, str]  # by name in lower case; a repeated one is a list with commas
    address: str  # of the client, as far as it may be believed
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    key: str | None = None  # whose request this is, where that is known
    scopes: tuple[str, ...] = ()  # of the key
    allowance: Allowance | None = None  # of the key, where there are keys
    body: bytes | None = None  # None until it has been read to its end
    told: dict[str, Any] = field(default_factory=dict)  # what guards and routes add, for the logs
    headers_out: dict[bytes, bytes] = field(default_factory=dict)
    """Headers that the answer gets, in place of the app's own; guards add theirs."""
    status: int = 0  # of the answer; 0 until it has begun
    size: int = 0  # bytes of content that were answered so far


class Refusal(Exception):
    """A request that is answered with a problem document of constant text."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers


class Gone(Exception):
    """The client left before its body was complete."""


def problem(refusal: Refusal) -> tuple[dict[str, str], bytes]:
    """Return the headers and the content of a problem document (RFC 9457)."""
    title = HTTPStatus(refusal.status).phrase
    fields = {"title": title, "status": refusal.status, "detail": refusal.detail}
    content = json.dumps(fields).encode()
    headers = {"content-type": "application/problem+json", "cache-control": "no-store"}
    return {**headers, "content-length": str(len(content)), **refusal.headers}, content
