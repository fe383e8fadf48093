"""HTTP/1.1 under the app, with the limits that an ASGI app cannot set itself.

httptools reads, uvicorn listens; what lies between is ours.

What is fed to the parser is counted, what comes after an unanswered request waits, and every wait
has an end.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections import deque
from contextlib import suppress
from http import HTTPStatus
from time import monotonic
from typing import Any, cast
from urllib.parse import unquote

import httptools
import uvicorn
from uvicorn.protocols.utils import get_local_addr, get_remote_addr
from uvicorn.server import ServerState

from purpleteam.serve.crowd import Crowd
from purpleteam.serve.exchange import Exchange
from purpleteam.serve.guards.visit import SECURITY_HEADERS, Refusal, problem
from purpleteam.serve.settings import Limits
from purpleteam.serve.tls import STRICT_TRANSPORT

PIECE = 256  # bytes of a head that the parser gets at a time: after each it can be seen what came
WRITTEN = 8192  # bytes of answers that wait for a client; then the next one waits to be written
UNASKED_SECONDS = 1.0  # at the end, that a new connection has for its first request
BODY_KEPT = 4096  # bytes of a body that wait for the guard at least; it refuses longer ones
IMAGE_BYTES = 784
LONGEST_NUMBER = 18  # digits of a content length that are read


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
        if last is not None and not (last.answered or last.more_body):
            last.keep_alive = False  # what comes before is whole, and the last that is answered
        elif self._waiting or not reading:
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
