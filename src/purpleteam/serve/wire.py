"""HTTP/1.1 under the app, with the limits that an ASGI app cannot set itself.

httptools reads, uvicorn listens; what lies between is ours, and costs half of uvicorn's own.

What is fed to the parser is counted, what comes after an unanswered request waits, and every wait
has an end.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import ssl
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from time import monotonic
from typing import Any, cast
from urllib.parse import unquote

import httptools
import uvicorn
from uvicorn.protocols.utils import get_local_addr, get_remote_addr
from uvicorn.server import ServerState

from purpleteam.serve.guards.visit import SECURITY_HEADERS, App, Message, Refusal, problem
from purpleteam.serve.settings import Limits
from purpleteam.serve.tls import STRICT_TRANSPORT

Answer = Callable[[], None]
PIECE = 256  # bytes of a head that the parser gets at a time: after each it can be seen what came
WRITTEN = 8192  # bytes of answers that wait for a client; then the next one waits to be written
UNASKED_SECONDS = 1.0  # at the end, that a new connection has for its first request
BODY_KEPT = 4096  # bytes of a body that wait for the guard at least; it refuses longer ones
IMAGE_BYTES = 784
LONGEST_NUMBER = 18  # digits of a content length that are read
STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
FAILED = [(b"content-type", b"text/plain"), (b"content-length", b"21"), (b"connection", b"close")]

log = logging.getLogger("uvicorn.error")


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


class Exchange:
    """One request and its answer: ASGI's scope, receive and send."""

    __slots__ = (
        "_awaits_continue", "_left", "_ready", "_waiter", "_wire", "answered", "begun", "body",
        "disconnected", "keep_alive", "more_body", "scope",
    )  # fmt: skip

    def __init__(
        self, wire: BoundedProtocol, scope: dict[str, Any], keep_alive: bool, awaits_continue: bool
    ) -> None:
        self.scope, self.keep_alive = scope, keep_alive
        self.body, self.more_body = b"", True  # what has come and was not received yet
        self.begun = self.answered = self.disconnected = False
        self._wire, self._awaits_continue = wire, awaits_continue
        self._left = 0  # bytes of the answer's content that are to come
        self._ready, self._waiter = False, cast("asyncio.Future[None] | None", None)

    async def run(self, app: App) -> None:
        """Have the app answer; whatever it does, the connection is whole or closed afterwards."""
        try:
            await app(self.scope, self.receive, self.send)
        except Exception as error:
            log.error("Exception in ASGI application", exc_info=error)
            if not self.begun:
                await self.send({"type": "http.response.start", "status": 500, "headers": FAILED})
                await self.send({"type": "http.response.body", "body": b"Internal Server Error"})
        if not (self.answered or self.disconnected):
            self._wire.transport.close()

    async def receive(self) -> Message:
        """Return what has come of the body, or that nobody waits for an answer any more."""
        if self._awaits_continue and not self._wire.transport.is_closing():
            self._wire.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._awaits_continue = False
        if not (self._ready or self.disconnected or self.answered):
            self._wire.read_on(True)
            self._waiter = self._wire.loop.create_future()
            await self._waiter
        if self.disconnected or self.answered:
            return {"type": "http.disconnect"}
        body, self.body, self._ready = self.body, b"", False
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    def wake(self) -> None:
        """Let `receive` return: more of the body has come, or nothing will come."""
        self._ready = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def send(self, message: Message) -> None:
        """Write what the app answers; its length must be told, or the connection ends with it."""
        wire = self._wire
        while wire.full is not None and not self.disconnected:
            await wire.full
        if self.disconnected:
            return
        if message["type"] == "http.response.start":
            wire.transport.write(self._head(message["status"], message["headers"]))
            return
        body = message.get("body", b"")
        if body and self.scope["method"] != "HEAD":
            self._left -= len(body)
            if self._left < 0:
                raise RuntimeError("the answer is longer than its content-length")
            wire.transport.write(body)
        if not message.get("more_body"):
            if self._left and self.scope["method"] != "HEAD":
                self.keep_alive = False
            self.answered = True
            self.wake()
            if not self.keep_alive:
                wire.transport.close()
            wire.next()

    def _head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        fields = [*self._wire.server_state.default_headers, *headers]
        told = dict(fields)
        self._awaits_continue, self.begun = False, True
        if (length := told.get(b"content-length")) is not None:
            self._left = int(length)
        elif status != HTTPStatus.NOT_MODIFIED:
            self._left, self.keep_alive = sys.maxsize, False
        if told.get(b"connection") == b"close":
            self.keep_alive = False
        elif not self.keep_alive:
            fields.append((b"connection", b"close"))
        lines = b"".join([b"%b: %b\r\n" % field for field in fields])
        if not lines.count(b"\r") == lines.count(b"\n") == len(fields):
            raise RuntimeError("a header of the answer holds the end of a line")
        return STATUS_LINES[status] + lines + b"\r\n"


class BoundedProtocol(asyncio.Protocol):
    """HTTP/1.1 for bounded clients, as uvicorn's server takes it; httptools is the parser."""

    limits = Limits()
    tls: ssl.SSLContext | None = None
    crowd: Crowd
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    _timer: asyncio.TimerHandle | None = None
    waits_since = 0.0  # when the present wait began: for a head, or for the answer to one
    address: str | int = ""  # of IPv6, the first half, which one client has for itself
    full: asyncio.Future[None] | None = None  # while the client does not take what was written
    _last: Exchange | None = None  # of the request that was read last
    _under_way: Exchange | None = None  # the one that is answered
    _deadline = 0.0
    _counted = 0  # bytes of the present request so far, but for its body
    _body_left = 0  # bytes of its body that are to come, where its head says how many
    _held = b""
    _open = _paused = _too_large = _ends = False
    _url, _continues = b"", False

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.app: Any = config.loaded_app
        self.config, self.server_state = config, server_state
        self.loop = _loop or asyncio.get_running_loop()
        self.parser = httptools.HttpRequestParser(self)
        # The answer to a request that ends the connection is written, whatever comes behind it.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._headers: list[tuple[bytes, bytes]] = []
        self._waiting: deque[Exchange] = deque()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a place in the crowd, before a handshake of TLS, which is bounded as a head is."""
        self.transport, client = transport, get_remote_addr(transport)
        self.address = client[0] if client else ""
        with suppress(ValueError):
            self.address = int(ipaddress.IPv6Address(self.address.partition("%")[0])) >> 64
        self._connection = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "server": get_local_addr(transport),
            "client": client,
            "scheme": "https" if self.tls else "http",
            "root_path": "",
        }
        self.crowd.enter(self)
        self._wait(self.limits.head_seconds)
        self._watch()
        fits = self.crowd.make_room(self)
        if self.tls is None:
            self._begin(transport)
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
                self._begin(end.value)
        except OSError:  # no TLS, an old one, or gone
            self.cut()

    def _begin(self, transport: asyncio.Transport) -> None:
        self.transport, self._open = transport, True
        self.server_state.connections.add(cast(Any, self))
        transport.set_write_buffer_limits(high=WRITTEN)
        if self._held:
            self.data_received(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        self.server_state.connections.discard(cast(Any, self))
        self.crowd.leave(self)
        self._held = b""
        if self._timer is not None:
            self._timer.cancel()
        for exchange in (self._under_way, self._last):
            if exchange is not None and not exchange.answered:
                exchange.disconnected = True
                exchange.wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        self.full = self.loop.create_future()

    def resume_writing(self) -> None:
        if self.full is not None:
            self.full.set_result(None)
            self.full = None

    def read_on(self, wanted: bool) -> None:
        """Read what the client sends, or let it wait."""
        if self._paused == wanted:
            self._paused = not wanted
            (self.transport.resume_reading if wanted else self.transport.pause_reading)()

    def data_received(self, data: bytes) -> None:
        data = self._held + data if self._held else data
        self._held = b"" if self._open else data  # until the end of the handshake is told
        start = 0 if self._open else len(data)
        while start < len(data):
            last = self._last  # is it whole, and the last of all?
            ended = last is not None and not (last.keep_alive or last.more_body)
            if self.transport.is_closing() or ended:
                return
            if self._waiting:
                if len(data) - start > self.limits.waiting_bytes:
                    self.cut()
                else:
                    self._held = data[start:]
                return
            piece = data[start : start + (self._body_left or PIECE)]
            start += len(piece)
            self._counted += len(piece)
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade:
                pass  # nobody upgrades: the answer is that of HTTP/1.1
            except httptools.HttpParserError:
                self._answer_unread()
                return
            if self._is_too_large(self._counted):
                self._answer_unread()

    # What the parser calls; what is raised here it raises again as an HttpParserError.

    def on_message_begin(self) -> None:
        self._url, self._continues, self._headers = b"", False, []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        size = len(self._url)
        for name, value in self._headers:
            size += len(name) + len(value) + 4
            if name == b"content-length":  # the parser has let nothing but digits through
                self._body_left = int(value[:LONGEST_NUMBER])
            elif name == b"expect":
                self._continues = value.lower() == b"100-continue"
        if self._is_too_large(size):
            raise ValueError("the head is too large")
        if len(self._waiting) >= self.limits.waiting_requests:
            raise ValueError("too many requests wait")
        parser, url = self.parser, httptools.parse_url(self._url)
        version, path = parser.get_http_version(), url.path.decode("ascii")
        scope = {
            **self._connection,
            "http_version": version,
            "method": parser.get_method().decode("ascii"),
            "path": unquote(path) if "%" in path else path,
            "raw_path": url.path,
            "query_string": url.query or b"",
            "headers": self._headers,
        }
        keep_alive = version != "1.0" and parser.should_keep_alive()
        if parser.should_upgrade():  # the parser reads nothing after such a request
            keep_alive = False
        before, self._last = self._last, Exchange(self, scope, keep_alive, self._continues)
        if before is None or before.answered:
            self._queue(self._last)
        else:
            self.read_on(False)
            self._waiting.append(self._last)
        if not self._waiting:
            self._wait(self.limits.answer_seconds)

    def on_body(self, body: bytes) -> None:
        """Keep what the guard has not taken yet: it counts and times the body, and refuses."""
        self._counted -= len(body)
        self._body_left = max(0, self._body_left - len(body))
        last = cast(Exchange, self._last)
        if len(last.body) < max(BODY_KEPT, IMAGE_BYTES * self.limits.batch_images + 1):
            last.body += body
            last.wake()

    def on_message_complete(self) -> None:
        if self._is_too_large(self._counted - PIECE):
            raise ValueError("the trailers are too large")
        self._counted = self._body_left = 0
        last = cast(Exchange, self._last)
        last.more_body = False
        last.wake()

    def _queue(self, exchange: Exchange) -> None:
        """Answer a request when it is its turn."""
        self._under_way = exchange
        self.crowd.queue(self.loop, self.address, lambda: self._run(exchange))

    def _run(self, exchange: Exchange) -> None:
        if self.transport.is_closing():
            exchange.disconnected = True
            return
        if not exchange.more_body:
            exchange.scope["whole_body"] = exchange.body  # spares whoever reads it the waiting
        task = self.loop.create_task(exchange.run(self.app))
        self.server_state.tasks.add(task)
        task.add_done_callback(self.server_state.tasks.discard)

    def next(self) -> None:
        """Begin with the request that waits, now that one is answered."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.read_on(True)
        if self._waiting:
            self._queue(self._waiting.popleft())
        self._wait(self.limits.head_seconds if self.is_idle() else self.limits.answer_seconds)
        if self._held and not self._waiting:
            self.data_received(b"")

    def _answer_unread(self) -> None:
        """Answer what is no HTTP, or too much of it, with constant text and all headers."""
        last = self._last
        reading = last is None or last.answered or (last.more_body and not last.begun)
        if self._waiting or not reading:
            self.cut()  # whatever is written now would be taken for the answer of another request
        elif self._too_large:
            self._refuse(431, "The head or the trailers of the request are too large.")
        else:
            self._refuse(400, "This is no valid HTTP request.")

    def shutdown(self) -> None:
        """End once the request under way is answered, at the latest in half of the drain's time."""
        if self._last is None and not self._ends:
            # Whoever has just connected may have asked already, and would be reset.
            self._ends = True
            self.loop.call_later(UNASKED_SECONDS, self.shutdown)
            return
        if self._last is None or self._last.answered:
            self.transport.close()
        else:
            self._last.keep_alive = False
        seconds = self.config.timeout_graceful_shutdown or self.limits.answer_seconds
        self._deadline = min(self._deadline, monotonic() + seconds / 2)
        self._watch()

    def _is_too_large(self, size: int) -> bool:
        fields = len(self._headers)
        self._too_large = size > self.limits.head_bytes or fields > self.limits.fields
        return self._too_large

    def is_idle(self) -> bool:
        return self._last is None or self._last.answered

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
