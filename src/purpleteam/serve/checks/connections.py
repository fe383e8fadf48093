"""Checks of what one client can take from the others: memory, time, places, other doors."""

import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from purpleteam.core.checks import Outcome
from purpleteam.core.errors import UsageError
from purpleteam.serve.checks._web import (
    STROKE,
    Server,
    ask,
    endpoint,
    is_loopback,
    left_out,
    must_answer,
    plug,
    talk,
    web_check,
)
from purpleteam.serve.main import listen
from purpleteam.serve.settings import Limits, Settings

REMOTE = (
    "0.0.0.0",  # noqa: S104  # purple: allow B104 until 2027-11-30 to see it refused
    "::",
    "192.0.2.1",
)
ELSEWHERE = ("127.0.0.2", "127.0.0.3")  # where only an app on all addresses answers
MANY = 10**9
UNSAID_SECONDS = 30.0  # how long a client may take, where the app does not say it at /version
GRACE_SECONDS = 3.0  # so much later than it says may an app be, on a busy machine
CROWD, MOST_OF_CROWD = 160, 100
SENT_ON, MOST_ANSWERED = 2000, 1000
GET = b"GET /version HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n"
LAST = b"Connection: close\r\n"
SHORT = 0.1
HASTY = Limits(head_seconds=SHORT, body_seconds=SHORT, answer_seconds=SHORT, at_work_seconds=SHORT)
RUDE = {  # what a rude client sends at first, and then now and again, until it is cut off
    "idle": (b"", b""),
    "empty lines": (b"\r\n", b"\r\n"),
    "slow head": (GET, b"X: a\r\n"),
    "slow body": (POST + b"Content-Length: 784\r\n\r\n", b"a"),
    "slow after an answer": (GET + b"\r\n", b"\r\n"),
}


@contextmanager
def open_door() -> Iterator[str]:
    """Listen on every address of this machine; nobody accepts there.

    It is not the app: that would answer strangers while the check looks at it.
    """
    with socket.create_server(("", 0)) as door:
        yield f"http://127.0.0.1:{door.getsockname()[1]}"


@web_check("web.loopback-default", open_door)
def loopback_default(url: str) -> Outcome:
    """The app listens on loopback alone unless remote clients were allowed explicitly."""
    host, port = endpoint(url)
    default = Settings().host
    accepted, reached = [], []
    for remote in REMOTE:
        with suppress(UsageError):
            listen(remote, 0, False).close()
            accepted.append(remote)
    for other in [other for other in ELSEWHERE if other != host]:
        with suppress(OSError):
            socket.create_connection((other, port), timeout=1).close()
            reached.append(other)
    return Outcome(
        passed=is_loopback(default) and is_loopback(host) and not accepted and not reached,
        measured={
            "default": default,
            "address": host,
            "accepted without permission": accepted,
            "also reached at": reached,
        },
        threshold="loopback, nothing else",
    )


def loosened(*names: str) -> Server:
    """Return what starts the app itself with these limits out of reach."""
    lifted: dict[str, Any] = dict.fromkeys(names, MANY)
    return left_out(limits=Limits(**lifted))


@web_check("web.head-cap", loosened("head_bytes", "fields"))
def head_cap(url: str) -> Outcome:
    """A head or trailers of more than 16 KB or 100 fields are refused."""
    large, many = b"X: " + b"a" * 65_536 + b"\r\n", b"X: a\r\n" * 120
    chunked = POST + LAST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
    target = GET.replace(b" HTTP", b"?" + b"a" * 65_536 + b" HTTP")
    requests = {
        "20 fields": GET + LAST + b"X: a\r\n" * 18,
        "120 fields": GET + LAST + many,
        "a field of 64 KB": GET + LAST + large,
        "a target of 64 KB": target + LAST,
        "120 trailers": chunked + many,
        "a trailer of 64 KB": chunked + large,
    }
    answers = {name: talk(url, request + b"\r\n")[9:12] for name, request in requests.items()}
    measured = {name: int(text) if text.isdigit() else "cut" for name, text in answers.items()}
    first, *others = measured.values()
    return Outcome(
        passed=first == 200 and all(status in ("cut", 400, 413, 414, 431) for status in others),
        measured=measured,
        threshold="200, then 431 or another refusal",
    )


@web_check("web.pipeline-limit", loosened("waiting_bytes", "waiting_requests"))
def pipeline_limit(url: str) -> Outcome:
    """Whoever sends request after request without reading an answer is cut off."""
    last = GET + LAST + b"\r\n"
    two = talk(url, GET + b"\r\n" + last).count(b"HTTP/1.1 200 ")
    many = talk(url, (GET + b"\r\n") * SENT_ON + last).count(b"HTTP/1.1 200 ")
    return Outcome(
        passed=two == 2 and many < MOST_ANSWERED,
        measured={"of 2": two, f"of {SENT_ON}": many},
        threshold=f"2, then fewer than {MOST_ANSWERED}",
    )


@web_check("web.fair-share", loosened("connections", "connections_each"))
def fair_share(url: str) -> Outcome:
    """One address cannot take all places: a polite client is served while it tries."""
    must_answer(url)
    with ExitStack() as stack:
        crowd = [stack.enter_context(plug(url, elsewhere=True)) for _ in range(CROWD)]
        statuses = [ask(url, "POST", "/predict", STROKE).status for _ in range(5)]
        until = time.monotonic() + GRACE_SECONDS
        while (held := sum(map(_is_open, crowd))) > MOST_OF_CROWD and time.monotonic() < until:
            time.sleep(0.05)
    return Outcome(
        passed=statuses == [200] * 5 and held <= MOST_OF_CROWD,
        measured={"polite client": statuses, f"kept of {CROWD} idle": held},
        threshold=f"200 each time, at most {MOST_OF_CROWD} kept",
    )


@web_check("web.deadlines", left_out("deadlines", limits=HASTY))
def deadlines(url: str) -> Outcome:
    """A client that sends slowly, sends nothing or reads nothing is cut off in time."""
    try:  # the longest that a client may take, as the app says, if it does
        limits = json.loads(ask(url, "GET", "/version").body)["limits"]
        said = max(float(limits[name]) for name in limits if name.endswith("_seconds"))
    except (ValueError, TypeError, LookupError, AttributeError):
        said = UNSAID_SECONDS
    patience = GRACE_SECONDS + said
    with ExitStack() as stack:
        kept = {name: stack.enter_context(plug(url)) for name in RUDE}
        for name, bare in kept.items():
            bare.sendall(RUDE[name][0])
        began, longest = time.monotonic(), 0.0
        while kept and time.monotonic() < began + patience:
            for name, bare in list(kept.items()):
                if not _is_open(bare, RUDE[name][1]):
                    del kept[name]
                    longest = time.monotonic() - began
            time.sleep(0.05)
    return Outcome(
        passed=not kept,
        measured={"kept": sorted(kept), "longest_seconds": round(longest, 1)},
        threshold=f"within {patience:g} s",
    )


def _is_open(bare: socket.socket, piece: bytes = b"") -> bool:
    """Return whether the other side still takes a piece, or still keeps the connection."""
    try:
        if piece:
            bare.sendall(piece)
            return True
        bare.setblocking(False)
        return bare.recv(4096) != b""
    except (BlockingIOError, ssl.SSLWantReadError):
        return not piece
    except OSError:
        return False
