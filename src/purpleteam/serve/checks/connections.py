"""Checks of what one client can take from the others: memory, time, places, other doors."""

from __future__ import annotations

import inspect
import ipaddress
import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from purpleteam.core.checks import CHECKS, Outcome, Target
from purpleteam.core.errors import UsageError
from purpleteam.serve.checks._web import (
    OCTETS,
    STROKE,
    WebCheck,
    address,
    ask,
    endpoint,
    plug,
    talk,
)
from purpleteam.serve.guard import Limits
from purpleteam.serve.main import listen, running_app, serve

REMOTE = ("0.0.0.0", "::", "192.0.2.1")  # noqa: S104  # nosec B104 - to see them refused
ELSEWHERE = ("127.0.0.2", "127.0.0.3")
"""At these an app on another loopback address does not answer, and one on all of them does."""


@CHECKS.register("web.loopback-default")
class LoopbackDefault(WebCheck):
    """The default host is loopback, others are refused, and this app answers nowhere else."""

    id = "web.loopback-default"
    proves = "The app listens on loopback alone unless remote clients were allowed explicitly."

    def examine(self, target: Target) -> Outcome:
        host, port = endpoint(address(target))
        default = str(inspect.signature(serve).parameters["host"].default)
        accepted = [remote for remote in REMOTE if not _refused(remote)]
        reached = [other for other in ELSEWHERE if other != host and _answers(other, port)]
        here = _is_loopback(host)
        return Outcome(
            passed=_is_loopback(default) and here and not accepted and not reached,
            measured={
                "default": default,
                "address": host,
                "accepted without permission": accepted,
                "also reached at": reached,
            },
            threshold="loopback, nothing else",
        )

    @contextmanager
    def bad_target(self, folder: Path) -> Iterator[Target]:
        # Nobody ever accepts on this socket: it only shows that an open door is seen.
        with socket.create_server(("", 0)) as door:
            yield Target(url=f"http://127.0.0.1:{door.getsockname()[1]}")


def _refused(host: str) -> bool:
    try:
        listen(host, 0, False).close()
    except UsageError:
        return True
    return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


MANY = 10**9
UNSAID_SECONDS = 30.0
"""How long a client may take, where the app does not say it at /version."""
GRACE_SECONDS = 3.0
"""So much later than it says may an app be, on a busy machine."""
CROWD, MOST_OF_CROWD = 160, 100
SENT_ON, MOST_ANSWERED = 2000, 1000
GET = b"GET /version HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n"
LAST = b"Connection: close\r\n"


class _Loosened(WebCheck):
    """Its negative control is the app itself with these limits out of reach."""

    loosened: ClassVar[tuple[str, ...]]

    @contextmanager
    def bad_target(self, folder: Path) -> Iterator[Target]:
        lifted: Mapping[str, Any] = dict.fromkeys(self.loosened, MANY)
        with running_app(limits=replace(Limits(), **lifted)) as url:
            yield Target(url=url)


@CHECKS.register("web.head-cap")
class HeadCap(_Loosened):
    """An ordinary head is taken; one of 101 fields or of 64 KB is not, nor are such trailers."""

    id = "web.head-cap"
    proves = "A head or trailers of more than 16 KB or 100 fields are refused."
    loosened = ("head_bytes", "fields")

    def examine(self, target: Target) -> Outcome:
        url = address(target)
        large, many = b"X: " + b"a" * 65_536 + b"\r\n", b"X: a\r\n" * 120
        chunked = POST + LAST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
        statuses = {
            "20 fields": _status(url, GET + LAST + b"X: a\r\n" * 18 + b"\r\n"),
            "120 fields": _status(url, GET + LAST + many + b"\r\n"),
            "a field of 64 KB": _status(url, GET + LAST + large + b"\r\n"),
            "a target of 64 KB": _status(
                url, GET.replace(b" HTTP", b"?" + b"a" * 65_536 + b" HTTP") + LAST + b"\r\n"
            ),
            "120 trailers": _status(url, chunked + many + b"\r\n"),
            "a trailer of 64 KB": _status(url, chunked + large + b"\r\n"),
        }
        first, *others = statuses.values()
        return Outcome(
            passed=first == 200 and all(status in (0, 400, 413, 414, 431) for status in others),
            measured={name: status or "cut" for name, status in statuses.items()},
            threshold="200, then 431 or another refusal",
        )


@CHECKS.register("web.pipeline-limit")
class PipelineLimit(_Loosened):
    """Two requests sent on are answered; of 2,000 whose answers nobody reads, most are not."""

    id = "web.pipeline-limit"
    proves = "Whoever sends request after request without reading an answer is cut off."
    loosened = ("waiting_bytes", "waiting_requests")

    def examine(self, target: Target) -> Outcome:
        url, request = address(target), GET + b"\r\n"
        two = talk(url, request + GET + LAST + b"\r\n").count(b"HTTP/1.1 200 ")
        many = talk(url, request * SENT_ON + GET + LAST + b"\r\n").count(b"HTTP/1.1 200 ")
        return Outcome(
            passed=two == 2 and many < MOST_ANSWERED,
            measured={"of 2": two, f"of {SENT_ON}": many},
            threshold=f"2, then fewer than {MOST_ANSWERED}",
        )


@CHECKS.register("web.fair-share")
class FairShare(_Loosened):
    """While one address opens 160 connections and says nothing, another client is served."""

    id = "web.fair-share"
    proves = "One address cannot take all places: a polite client is served while it tries."
    loosened = ("connections", "connections_each")

    def examine(self, target: Target) -> Outcome:
        url = address(target)
        with ExitStack() as stack:
            crowd = [stack.enter_context(plug(url, elsewhere=True)) for _ in range(CROWD)]
            served = [ask(url, "POST", "/predict", body=STROKE, headers=OCTETS) for _ in range(5)]
            until = time.monotonic() + GRACE_SECONDS
            while (held := sum(map(_is_open, crowd))) > MOST_OF_CROWD and time.monotonic() < until:
                time.sleep(0.05)
        statuses = [reply.status for reply in served]
        return Outcome(
            passed=statuses == [200] * 5 and held <= MOST_OF_CROWD,
            measured={"polite client": statuses, f"kept of {CROWD} idle": held},
            threshold=f"200 each time, at most {MOST_OF_CROWD} kept",
        )


@dataclass
class _Rude:
    """A connection that sends a piece now and again, until the app ends it."""

    bare: socket.socket
    piece: bytes
    took: float | None = None


@CHECKS.register("web.deadlines")
class Deadlines(WebCheck):
    """Idle, slow and never-reading clients are cut off within what the app says, or half a minute.

    Its negative control says that it waits for a moment, and waits for ever.
    """

    id = "web.deadlines"
    proves = "A client that sends slowly, sends nothing or reads nothing is cut off in time."

    def examine(self, target: Target) -> Outcome:
        url = address(target)
        said = _seconds(url)
        patience = GRACE_SECONDS + (max(said.values()) if said else UNSAID_SECONDS)
        ways = {
            "idle": (b"", b""),
            "empty lines": (b"\r\n", b"\r\n"),
            "slow head": (GET, b"X: a\r\n"),
            "slow body": (POST + b"Content-Length: 784\r\n\r\n", b"a"),
            "slow after an answer": (GET + b"\r\n", b"\r\n"),
        }
        with ExitStack() as stack:
            rudes = {}
            for name, (start, piece) in ways.items():
                rudes[name] = _Rude(stack.enter_context(plug(url)), piece)
                rudes[name].bare.sendall(start)
            began = time.monotonic()
            while time.monotonic() < began + patience:
                for rude in rudes.values():
                    if rude.took is None and not _goes_on(rude):
                        rude.took = time.monotonic() - began
                if all(rude.took is not None for rude in rudes.values()):
                    break
                time.sleep(0.05)
        kept = sorted(name for name, rude in rudes.items() if rude.took is None)
        took = [rude.took for rude in rudes.values() if rude.took is not None]
        return Outcome(
            passed=not kept,
            measured={"kept": kept, "longest_seconds": round(max(took, default=0.0), 1)},
            threshold=f"within {patience:g} s",
        )


def _goes_on(rude: _Rude) -> bool:
    if rude.piece:
        try:
            rude.bare.sendall(rude.piece)
        except OSError:
            return False
        return True
    return _is_open(rude.bare)


def _seconds(url: str) -> dict[str, float]:
    """Return how long a client may take, by what: as the app says at /version, if it does."""
    reply = ask(url, "GET", "/version")
    try:
        limits = json.loads(reply.body).get("limits", {})
        return {name: float(limits[name]) for name in limits if name.endswith("_seconds")}
    except (ValueError, TypeError, AttributeError):
        return {}


def _is_open(bare: socket.socket) -> bool:
    bare.setblocking(False)
    try:
        return bare.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _status(url: str, raw: bytes) -> int:
    """Return the status of the answer; 0 where the connection was cut before one."""
    head = talk(url, raw)[:12]
    return int(head[9:12]) if head[9:12].isdigit() else 0
