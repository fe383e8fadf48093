"""The HTTP protocol under the app: uvicorn's, with the limits that an ASGI app cannot set itself.

What is fed to the parser is counted, what comes after an unanswered request waits, and every wait
has an end.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from time import monotonic
from typing import Any

from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import get_remote_addr

from purpleteam.serve.guards.visit import SECURITY_HEADERS, Refusal, problem
from purpleteam.serve.settings import Limits
from purpleteam.serve.tls import STRICT_TRANSPORT

Answer = Callable[[], None]
PIECE = 256  # bytes that the parser gets at a time: after each it can be seen what came of them
WRITTEN = 8192  # bytes of answers that wait for a client; then the next one waits to be written
UNASKED_SECONDS = 1.0  # at the end, that a new connection has for its first request
BODY_KEPT = 4096  # bytes of a body that wait for the guard at least; it refuses longer ones
IMAGE_BYTES = 784


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


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 for bounded clients."""

    limits = Limits()
    tls: ssl.SSLContext | None = None
    crowd: Crowd
    connections: set[BoundedProtocol]  # type: ignore[assignment]
    _timer: asyncio.TimerHandle | None = None
    waits_since = 0.0  # when the present wait began: for a head, or for the answer to one
    address: str | int = ""  # of IPv6, the first half, which one client has for itself
    _deadline = 0.0
    _counted = 0  # bytes of the present request so far, but for its body
    _held = b""
    _under_way: RequestResponseCycle | None = None  # `cycle` is the one that was read last
    _too_large = _ends = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a place in the crowd, before a handshake of TLS, which is bounded as a head is."""
        self.transport, client = transport, get_remote_addr(transport)
        self.address = client[0] if client else ""
        with suppress(ValueError):
            self.address = int(ipaddress.IPv6Address(self.address.partition("%")[0])) >> 64
        self.crowd.enter(self)
        self._wait(self.limits.head_seconds)
        self._watch()
        fits = self.crowd.make_room(self)
        if self.tls is None:
            self._open(transport)
            if not fits:
                self._refuse(503, "Too many connections; try again later.")
        elif fits:
            # Its first step is taken here and now: a task would begin after the first bytes came.
            start: Any = self.loop.start_tls(
                transport,
                self,
                self.tls,
                server_side=True,
                ssl_handshake_timeout=self.limits.head_seconds,
            )
            start.send(None).add_done_callback(lambda _: self._secured(start))
        else:
            self.cut()

    def _secured(self, start: Any) -> None:
        try:
            start.send(None)
        except StopIteration as end:
            if not self.transport.is_closing():  # as one that was cut is
                self._open(end.value)
        except OSError:  # no TLS, an old one, or gone
            self.cut()

    def _open(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITTEN)
        if self._held:
            self.data_received(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        self.crowd.leave(self)
        self._held = b""
        if self._timer is not None:
            self._timer.cancel()
        if self._under_way is not None:
            self._under_way.disconnected = True  # uvicorn says so to the one that was read last
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        data = self._held + data
        self._held = b"" if self.flow else data  # None until the end of the handshake is told
        for start in range(0, len(data) if self.flow else 0, PIECE):
            cycle = self.cycle  # the request that came last: is it whole, and the last of all?
            last = cycle is not None and not (cycle.keep_alive or cycle.more_body)
            if self.transport.is_closing() or last:
                return
            if self.pipeline:
                if len(data) - start > self.limits.waiting_bytes:
                    self.cut()
                else:
                    self._held = data[start:]
                return
            piece = data[start : start + PIECE]
            self._counted += len(piece)
            super().data_received(piece)
            if self._is_too_large(self._counted):
                self.send_400_response("")

    def on_body(self, body: bytes) -> None:
        """Keep what the guard has not taken yet: it counts and times the body, and refuses."""
        self._counted -= len(body)
        if len(self.cycle.body) < max(BODY_KEPT, IMAGE_BYTES * self.limits.batch_images + 1):
            super().on_body(body)

    def on_headers_complete(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if self._is_too_large(size):
            raise ValueError("the head is too large")
        if len(self.pipeline) >= self.limits.waiting_requests:
            raise ValueError("too many requests wait")
        super().on_headers_complete()
        if self.parser.should_upgrade():  # the parser reads nothing after such a request
            self.cycle.keep_alive = False
        if not self.pipeline:
            self._wait(self.limits.answer_seconds)

    def on_message_complete(self) -> None:
        if self._is_too_large(self._counted - PIECE):
            raise ValueError("the trailers are too large")
        self._counted = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            return
        self._wait(self.limits.head_seconds if self.is_idle() else self.limits.answer_seconds)
        if self._held and not self.pipeline:
            self.data_received(b"")

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP with constant text and all headers."""
        reading = self.is_idle() or (self.cycle.more_body and not self.cycle.response_started)
        if self.pipeline or not reading:
            self.cut()  # whatever is written now would be taken for the answer of another request
        elif self._too_large:
            self._refuse(431, "The head or the trailers of the request are too large.")
        else:
            self._refuse(400, "This is no valid HTTP request.")

    def shutdown(self) -> None:
        """End once the request under way is answered, at the latest in half of the drain's time."""
        if not self.cycle and not self._ends:
            # Whoever has just connected may have asked already, and would be reset.
            self._ends = True
            self.loop.call_later(UNASKED_SECONDS, self.shutdown)
            return
        super().shutdown()
        seconds = self.config.timeout_graceful_shutdown or self.limits.answer_seconds
        self._deadline = min(self._deadline, monotonic() + seconds / 2)
        self._watch()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        async def unless_gone(
            scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
        ) -> None:
            if self.transport.is_closing():
                cycle.disconnected = True
            else:
                await app(scope, receive, send)

        begin, self._under_way = super()._start_asgi_task, cycle
        self.crowd.queue(self.loop, self.address, lambda: begin(cycle, unless_gone))

    def _is_too_large(self, size: int) -> bool:
        fields = len(self.headers or ())
        self._too_large = size > self.limits.head_bytes or fields > self.limits.fields
        return self._too_large

    def is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def cut(self) -> None:
        self.crowd.leave(self)
        self.transport.abort()

    def _refuse(self, status: int, detail: str) -> None:
        headers, content = problem(Refusal(status, detail, connection="close"))
        headers |= SECURITY_HEADERS | (STRICT_TRANSPORT if self.tls else {})
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + content)
        self.transport.close()

    def _wait(self, seconds: float) -> None:
        self.crowd.wait(self)
        self._deadline = self.waits_since + seconds

    def _watch(self) -> None:
        """Cut the connection at its deadline, which may move between two looks, but not so far."""
        if self._timer is not None:
            self._timer.cancel()
        if monotonic() >= self._deadline:
            self.cut()
        else:
            shortest = min(self.limits.head_seconds, self.limits.answer_seconds)
            left = min(self._deadline - monotonic(), shortest)
            self._timer = self.loop.call_later(left, self._watch)


def bounded(
    limits: Limits, tls: ssl.SSLContext | None = None, *, deadlines: bool = True
) -> type[BoundedProtocol]:
    """Return the protocol with other limits, and over TLS where there is a context for it.

    Without `deadlines` nobody is cut off in time: the control of `web.deadlines`.
    """
    own: dict[str, Any] = {"limits": limits, "tls": tls, "crowd": Crowd(limits)}
    if not deadlines:
        own["_watch"] = lambda _protocol: None
    return type("BoundedProtocol", (BoundedProtocol,), own)
