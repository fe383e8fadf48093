"""Who is connected, and whose turn it is: no client is kept waiting by how often others come.

Every connection costs the loop some work, and all of it runs in one thread. So a place is found
without looking at every connection, and requests are answered address by address.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from purpleteam.serve.limits import Limits

__all__ = ["Connection", "Crowd"]


class Connection(Protocol):
    """What a place belongs to."""

    address: object
    waits_since: float

    def is_idle(self) -> bool:
        """Say whether no request of it is under way."""

    def cut(self) -> None:
        """End it, and leave the crowd, now."""


class Crowd:
    """All connections of one server, and the requests that wait to be answered."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._connections: dict[Connection, None] = {}
        """Those that have waited longest come first."""
        self._places: Counter[object] = Counter()
        self._requests: dict[object, deque[Callable[[], None]]] = {}

    def enter(self, one: Connection) -> None:
        """Count a connection."""
        self._connections[one] = None
        self._places[one.address] += 1

    def leave(self, one: Connection) -> None:
        """Count a connection no longer, if it still is."""
        if self._connections.pop(one, one) is None:
            self._places[one.address] -= 1
            if not self._places[one.address]:
                del self._places[one.address]

    def wait(self, one: Connection) -> None:
        """Begin the wait of a connection anew."""
        one.waits_since = monotonic()
        if one in self._connections:
            del self._connections[one]
            self._connections[one] = None

    def make_room(self, one: Connection) -> bool:
        """Cut whoever has to go for a new connection; return whether it may stay.

        Of an address that has too many, or of those with the most where there are too many in
        all, it is the idle connection that has waited longest, else the longest at work.
        """
        if self._places[one.address] > self._limits.connections_each:
            of = {one.address}
        elif len(self._connections) > self._limits.connections:
            most = max(self._places.values())
            of = {address for address, number in self._places.items() if number == most}
        else:
            return True
        young, busy = monotonic() - self._limits.at_work_seconds, one
        for other in self._connections:
            if other is not one and other.address in of:
                if other.is_idle():
                    other.cut()
                    return True
                if busy is one and other.waits_since < young:
                    busy = other
        if busy is not one:
            busy.cut()
        return busy is not one

    def queue(
        self, loop: asyncio.AbstractEventLoop, address: object, answer: Callable[[], None]
    ) -> None:
        """Call `answer` when it is the turn of its address: one in each turn of the loop.

        The loop would start all requests that are ready before it looks at a socket again, and
        whoever sends hundreds at once would have it alone.
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
