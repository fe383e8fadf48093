"""One request and its answer, between the bytes of a connection and an ASGI app."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from purpleteam.serve.guards.visit import App, Message
    from purpleteam.serve.wire import BoundedProtocol

STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
FAILED = [(b"content-type", b"text/plain"), (b"content-length", b"21"), (b"connection", b"close")]

log = logging.getLogger("uvicorn.error")


class Exchange:
    """One request and its answer: ASGI's scope, receive and send."""

    __slots__ = (
        *("answered", "begun", "body", "disconnected", "keep_alive", "more_body", "scope"),
        *("_awaits_continue", "_left", "_ready", "_unsent", "_waiter", "_wire"),
    )

    def __init__(
        self, wire: BoundedProtocol, scope: dict[str, Any], keep_alive: bool, awaits_continue: bool
    ) -> None:
        self.scope, self.keep_alive = scope, keep_alive
        self.body, self.more_body = b"", True  # what has come and was not received yet
        self.begun = self.answered = self.disconnected = False
        self._wire, self._awaits_continue = wire, awaits_continue
        self._left = 0  # bytes of the answer's content that are to come
        self._unsent = b""  # its head, which goes with the first content
        self._ready = False
        self._waiter: asyncio.Future[None] | None = None

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
            self._unsent = self._head(message["status"], message["headers"])
            return
        content, self._unsent = self._unsent, b""
        if self.scope["method"] != "HEAD":
            body = message.get("body", b"")
            self._left -= len(body)
            if self._left < 0:
                raise RuntimeError("the answer is longer than its content-length")
            content += body
        wire.transport.write(content)
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
