"""Check of where the app listens: on loopback, unless somebody asked for more."""

from __future__ import annotations

import inspect
import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from purpleteam.core.checks import CHECKS, Outcome, Target
from purpleteam.core.errors import UsageError
from purpleteam.serve.checks._client import endpoint
from purpleteam.serve.checks._web import WebCheck, address
from purpleteam.serve.main import listen, serve

__all__ = ["LoopbackDefault"]

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
