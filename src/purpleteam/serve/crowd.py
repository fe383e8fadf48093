"""All connections of one server: who loses a place to whom, and whose request is answered next."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from purpleteam.serve.settings import Limits
    from purpleteam.serve.wire import BoundedProtocol

Answer = Callable[[], None]


class Crowd:
    """All connections of one server, and the requests that wait to be answered."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._connections: dict[BoundedProtocol, None] = {}  # the longest waiting first
        self._requests: dict[object, deque[Answer]] = {}

    def enter(self, client: BoundedProtocol) -> None:
        self._connections[client] = None

    def leave(self, client: BoundedProtocol) -> None:
        self._connections.pop(client, None)

    def wait(self, client: BoundedProtocol) -> None:
        client.waits_since = monotonic()
        with suppress(KeyError):
            self._connections[client] = self._connections.pop(client)

    def make_room(self, client: BoundedProtocol) -> bool:
        """Cut a connection for a new one where there are too many; return whether that may stay.

        Of the addresses with too many, it is the idle one that has waited longest, else the
        longest at work.
        """
        places = Counter(other.address for other in self._connections)
        if places[client.address] > self._limits.connections_each:
            crowded = {client.address}
        elif len(self._connections) > self._limits.connections:
            most = max(places.values())
            crowded = {address for address, number in places.items() if number == most}
        else:
            return True
        young, busy = monotonic() - self._limits.at_work_seconds, None
        for other in self._connections:
            if other is not client and other.address in crowded:
                if other.is_idle():
                    other.cut()
                    return True
                if busy is None and other.waits_since < young:
                    busy = other
        if busy is not None:
            busy.cut()
        return busy is not None

    def queue(self, loop: asyncio.AbstractEventLoop, address: object, answer: Answer) -> None:
        """Call `answer` when it is the turn of its address: one in each turn of the loop.

        Otherwise the loop would start all that are ready before it looks at a socket again.
        """
        if not self._requests:
            loop.call_soon(self._next, loop)
        self._requests.setdefault(address, deque()).append(answer)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        address, mine = next(iter(self._requests.items()))
        answer = mine.popleft()
        del self._requests[address]
        if mine:
            self._requests[address] = mine  # behind all others
        if self._requests:
            loop.call_soon(self._next, loop)
        answer()
