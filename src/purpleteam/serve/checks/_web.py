"""How the checks of a running app ask, by the standard library alone, and the app that fails them.

That is the app itself without one of its parts, on loopback, while a check looks at it.
"""

from __future__ import annotations

import http.client
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from urllib.parse import urlsplit

from purpleteam.core.checks import CHECKS, Check, Outcome, Target
from purpleteam.core.errors import Absent, UsageError

if TYPE_CHECKING:
    from purpleteam.serve.guards.visit import App, Receive, Scope, Send

SECONDS = 5.0  # that an answer is waited for; twice as long for what is no HTTP
MOST_BYTES = 1_000_000
ELSEWHERE = "127.0.0.9"  # an address of this machine that is no other client's
OCTETS = {"Content-Type": "application/octet-stream"}
STROKE = bytes(28 * 4) + (bytes(13) + b"\xff\xff" + bytes(13)) * 20 + bytes(28 * 4)  # mostly a 1
Look = Callable[[str], Outcome]
Server = Callable[[], AbstractContextManager[str]]  # yields the address of what listens


class Reply(NamedTuple):
    """A response; status 0 where the server cut the connection, or was silent, before one."""

    status: int
    headers: Mapping[str, str]  # by name in lower case
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")


def endpoint(url: str) -> tuple[str, int]:
    """Return host and port of an http or https address."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"address {url!r} is not of the form http://HOST:PORT or https://")
    return parts.hostname, parts.port or (443 if is_secure(url) else 80)


def is_secure(url: str) -> bool:
    return urlsplit(url).scheme == "https"


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def trusting() -> ssl.SSLContext:
    """Return what trusts the system's authorities, or those in the file SSL_CERT_FILE."""
    return _trusting(os.environ.get("SSL_CERT_FILE"))


@cache
def _trusting(_file: str | None) -> ssl.SSLContext:
    return ssl.create_default_context()


def line_to(url: str, source: tuple[str, int] | None = None) -> http.client.HTTPConnection:
    """Return a connection that is not open yet; from an address of this machine, where given."""
    host, port = endpoint(url)
    how: dict[str, Any] = {"timeout": SECONDS, "source_address": source}
    if is_secure(url):
        return http.client.HTTPSConnection(host, port, context=trusting(), **how)
    return http.client.HTTPConnection(host, port, **how)


def credentials(url: str) -> dict[str, str]:
    """Return the header that holds the key, where an address has one in front of its host."""
    parts = urlsplit(url)
    key = f"{parts.username}.{parts.password}"
    return {} if parts.username is None else {"Authorization": f"Bearer {key}"}


def ask(
    url: str,
    method: str,
    path: str,
    body: bytes | Iterable[bytes] | None = None,
    headers: Mapping[str, str] = OCTETS,
    *,
    elsewhere: bool = False,
) -> Reply:
    """Send a request, a body in parts in chunks; an absent server is an OSError.

    With `elsewhere` it comes from another address of this machine, where it has one.
    """
    with closing(line_to(url, _other_end(endpoint(url)[0]) if elsewhere else None)) as connection:
        connection.connect()
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, path, body, {**credentials(url), **headers})
        try:
            with connection.getresponse() as response:
                named = {name.lower(): value for name, value in response.getheaders()}
                return Reply(response.status, named, response.read(MOST_BYTES))
        except (http.client.HTTPException, ConnectionError, TimeoutError):
            return Reply(0, {}, b"")


def must_answer(url: str) -> None:
    """Raise Absent where only who has a key is answered, and the address has none that is valid."""
    if ask(url, "POST", "/predict", b"").status in (401, 403):
        raise Absent("the app asks for a key: put one, ID:SECRET@, before the host in its address")


@contextmanager
def plug(url: str, elsewhere: bool = False) -> Iterator[socket.socket]:
    """Yield a bare connection; from another address of this machine, where it has one."""
    host, port = endpoint(url)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as bare:
        bare.settimeout(2 * SECONDS)
        if elsewhere and (other := _other_end(host)):
            bare.bind(other)
        bare.connect((host, port))
        if not is_secure(url):
            yield bare
            return
        with trusting().wrap_socket(bare, server_hostname=host) as secure:
            yield secure


def _other_end(host: str) -> tuple[str, int] | None:
    """Return another address from which this machine reaches the host; None where it has none."""
    if host.startswith("127."):
        with suppress(OSError), socket.socket() as probe:
            probe.bind((ELSEWHERE, 0))
            return ELSEWHERE, 0
    return None


def talk(url: str, raw: bytes) -> bytes:
    """Send bytes that may be no HTTP at all, then read until the connection ends."""
    answer = b""
    with plug(url) as bare, suppress(OSError):
        with suppress(OSError):
            bare.sendall(raw)
        while part := bare.recv(65536):
            answer += part
    return answer


def left_out(
    *parts: str, around: Callable[[App], App] = lambda app: app, **settings: Any
) -> Server:
    """Return what starts the app itself without these parts: the mechanism-off variant.

    Args:
        parts: guards, or others of `Settings.without`.
        around: puts something in front of the app, where no part of it is to be left out.
        settings: fields of `Settings`.
    """

    @contextmanager
    def start() -> Iterator[str]:
        from purpleteam.serve.main import running_app

        with running_app(around=around, without=parts, **settings) as url:
            yield url

    return start


CARELESS_PAGE = b"""<html><head><style>body { color: black }</style>
<script>document.body.innerHTML = location.hash</script>
<script src="https://cdn.example/app.js"></script></head>
<body onload="start()" style="margin: 0"></body></html>"""


def other_page(app: App) -> App:
    """Put another page in front of the app's own: what somebody who is on the way can do."""

    async def exchanged(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/":
            headers = [(b"content-type", b"text/html")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": CARELESS_PAGE})
        else:
            await app(scope, receive, send)

    return exchanged


class WebCheck(Check):
    """A check of a running app; its negative control is the same app with one part left out."""

    needs: ClassVar[tuple[str, ...]] = ("url",)
    look: ClassVar[Look]
    wrong: ClassVar[Server]

    def examine(self, target: Target) -> Outcome:
        return type(self).look(target.url or "")

    @contextmanager
    def bad_target(self, folder: Path) -> Iterator[Target]:
        with type(self).wrong() as url:
            yield Target(url=url)


def web_check(id: str, wrong: Server) -> Callable[[Look], Look]:
    """Register the decorated function, which looks at an address, as a check of a running app."""

    def register(look: Look) -> Look:
        own = {"__doc__": look.__doc__, "look": staticmethod(look), "wrong": staticmethod(wrong)}
        CHECKS.register(id)(type(look.__name__, (WebCheck,), own))
        return look

    return register
