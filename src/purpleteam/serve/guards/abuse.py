"""Who asks as an attacker asks is told of in the log, then answered at a crawl, for a while."""

from __future__ import annotations

import logging
import math
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from purpleteam.core.registry import check_ranges
from purpleteam.defences.detection.queries import Queries, Watch
from purpleteam.serve.guards.visit import Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from purpleteam.serve.engine import Engine
    from purpleteam.serve.guards.visit import App, Receive, Scope, Send, Visit
    from purpleteam.serve.settings import Settings

IMAGE_BYTES = 784
TOLD = "request %s is of an attack, it seems (%s): its client gets one answer in %g s"
SLOWED = "Your questions look like an attack on the model; ask again after Retry-After seconds."

log = logging.getLogger("purpleteam.serve")


@dataclass(frozen=True, kw_only=True)
class Suspicion:
    """When a client is taken for an attacker, and what comes of it."""

    ranges: ClassVar[str] = (
        "pause above 0 and finite; longest_pause above 0 and finite; "
        "forgiven_after above 0 and finite; clients at least 1"
    )

    watch: Watch = field(default_factory=Watch)
    pause: float = 1.0
    """Seconds from one answer to the next after the first alarm; each further one doubles them."""
    longest_pause: float = 60.0
    """Most seconds from one answer to the next."""
    forgiven_after: float = 600.0
    """Seconds without an alarm after which a client is answered as ever."""
    clients: int = 256
    """So many keys and addresses are watched, the last that asked; some 45 KB at most for each."""

    def __post_init__(self) -> None:
        check_ranges(self)


class _Client:
    """One key, or one address without a key."""

    __slots__ = ("alarmed_at", "free_at", "pause", "queries")

    def __init__(self, watch: Watch) -> None:
        self.queries = Queries(watch)
        self.pause = self.free_at = self.alarmed_at = 0.0


class Abuse:
    """Watch each client; on an alarm, refuse with 429 all but one answer in a while.

    Nobody is kept out: who shares an address with an attacker is slowed down with it, and forgiven
    with it. A client of several worker processes is watched by each on its own.
    """

    def __init__(self, app: App, settings: Settings, engine: Engine) -> None:
        self.app, self.asked = app, settings.abuse
        self.clients: OrderedDict[str, _Client] = OrderedDict()  # the last that asked is last

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["method"] == "POST":
            self._look(scope["visit"], time.monotonic())
        return self.app(scope, receive, send)

    def _look(self, visit: Visit, now: float) -> None:
        body = visit.body or b""
        if not body or len(body) % IMAGE_BYTES:
            return  # the route refuses it
        client = self._client(f"address {visit.address}" if visit.key is None else visit.key)
        if client.pause and now - client.alarmed_at > self.asked.forgiven_after:
            client.pause = 0.0
        if now < client.free_at:
            visit.told["abuse"] = "slowed"
            raise Refusal(429, SLOWED, **{"retry-after": str(math.ceil(client.free_at - now))})
        for start in range(0, len(body), IMAGE_BYTES):
            sign = client.queries.see(body[start : start + IMAGE_BYTES])
            if sign is not None:
                doubled = max(self.asked.pause, 2 * client.pause)
                client.pause = min(doubled, self.asked.longest_pause)
                client.alarmed_at = now
                visit.told["abuse"] = sign
                log.warning(TOLD, visit.id, sign, client.pause)
        if client.pause:
            client.free_at = now + client.pause * (len(body) // IMAGE_BYTES)

    def _client(self, name: str) -> _Client:
        client = self.clients.pop(name, None) or _Client(self.asked.watch)
        self.clients[name] = client
        if len(self.clients) > self.asked.clients:
            self.clients.popitem(last=False)
        return client
