"""Who asks: the address, as far as it may be believed, and the key."""

from __future__ import annotations

import ipaddress
from base64 import b64decode
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from purpleteam.serve.guards.visit import Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from purpleteam.serve.engine import Engine
    from purpleteam.serve.guards.visit import App, Receive, Scope, Send, Visit
    from purpleteam.serve.settings import Settings

LONGEST = 200  # bytes of a header that holds a key
UNKNOWN = "A key is needed that is known and has not ended."
NOT_FOR_THIS = "The key is not for this."


@dataclass(frozen=True, kw_only=True)
class Proxies:
    """Whose word is taken for the address of a client."""

    trusted: tuple[str, ...] = ()
    """Addresses or networks of your own proxies, such as 127.0.0.1 or 10.0.0.0/8."""
    header: Literal["x-forwarded-for", "forwarded"] = "x-forwarded-for"
    """The one that they write (RFC 7239 the second); they pass on a client's other one unread."""

    def __post_init__(self) -> None:
        for network in self.trusted:
            try:
                ipaddress.ip_network(network)
            except ValueError:
                form = "no address or network such as 127.0.0.1 or 10.0.0.0/8"
                raise ValueError(f"trusted {network!r} is {form}") from None


class Client:
    """Fill in the client's address and key; refuse nobody."""

    def __init__(self, app: App, settings: Settings, engine: Engine) -> None:
        self.app, self.header = app, settings.proxies.header
        self.trusted = tuple(map(ipaddress.ip_network, settings.proxies.trusted))
        self.keys = None
        if settings.keys is not None:
            from purpleteam.serve.keys import KeyRing

            self.keys = KeyRing(settings.keys, settings.rate)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        visit: Visit = scope["visit"]
        believed = visit.address
        if self.trusted and self._is_trusted(believed):
            for hop in reversed(visit.headers.get(self.header, "").split(",")):
                if not (address := address_in(hop, self.header)):
                    break
                believed = address
                if not self._is_trusted(believed):
                    break
        visit.address = counted(believed)
        if self.keys is not None and "authorization" in visit.headers:
            found = self.keys.find(token_in(visit.headers["authorization"]))
            if found is not None:
                key, visit.allowance = found
                visit.key, visit.scopes = key.id, key.scopes
        return self.app(scope, receive, send)

    def _is_trusted(self, address: str) -> bool:
        ip = parsed(address)
        return ip is not None and any(ip in network for network in self.trusted)


class Keys:
    """Ask for a key of whoever wants an answer of the model, where there is a file of keys."""

    def __init__(self, app: App, settings: Settings, engine: Engine) -> None:
        self.app, self.asked = app, settings.keys is not None

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if self.asked and scope["method"] == "POST":
            demand(scope["visit"], "predict")
        return self.app(scope, receive, send)


def demand(visit: Visit, wanted: str) -> None:
    """Refuse whoever has no valid key of this scope (RFC 6750)."""
    if visit.key is None:
        tried = "authorization" in visit.headers
        told = 'Bearer error="invalid_token"' if tried else "Bearer"
        raise Refusal(401, UNKNOWN, **{"www-authenticate": told})
    if wanted not in visit.scopes:
        told = f'Bearer error="insufficient_scope", scope="{wanted}"'
        raise Refusal(403, NOT_FOR_THIS, **{"www-authenticate": told})


def token_in(header: str) -> str:
    """Return the `ID.SECRET` of `Bearer ID.SECRET`, or of an address as clients send it.

    The second is `Basic` with both in base64 (RFC 7617): what can be given as an address.
    """
    kind, _, told = header[:LONGEST].partition(" ")
    if kind.lower() == "bearer":
        return told.strip()
    if kind.lower() == "basic":
        with suppress(ValueError):
            return b64decode(told).decode("latin-1").replace(":", ".", 1)
    return ""


def address_in(hop: str, header: str) -> str:
    """Return the address in one element of the header, `` where there is none to read."""
    if header == "forwarded":
        pairs = (pair.partition("=") for pair in hop.split(";"))
        hop = next((value for name, _, value in pairs if name.strip().lower() == "for"), "")
        hop = hop.strip().strip('"')
    hop = hop.strip()
    if hop[:1] == "[":
        hop = hop[1:].partition("]")[0]
    elif hop.count(":") == 1:  # an IPv4 address with its port
        hop = hop.partition(":")[0]
    return hop if parsed(hop) else ""


@lru_cache(4096)
def parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address in a text, an IPv4 address in an IPv6 one as what it is."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip


@lru_cache(4096)
def counted(address: str) -> str:
    """Return what is counted as one client: of IPv6 the /64, which one has for itself."""
    ip = parsed(address)
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(ip) >> 64 << 64, 64)))
    return str(ip) if ip else address
