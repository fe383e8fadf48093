"""One request and its answer on the wire, whatever an ASGI app does."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import uvicorn

from purpleteam.serve.guards.visit import App, Message, Receive, Scope, Send
from purpleteam.serve.server import bounded_config
from purpleteam.serve.settings import Settings

ASKED = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def answering(*messages: Message) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(dict(message))

    return app


def head(*fields: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": 200, "headers": list(fields)}


def content(body: bytes, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


@contextmanager
def served(app: App) -> Iterator[socket.socket]:
    """Serve this app; yield a connection to it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(bounded_config(app, Settings()))
        server.config.timeout_graceful_shutdown = 1
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        with socket.create_connection(listener.getsockname(), timeout=10) as plug:
            yield plug
        server.should_exit = True
        thread.join()


def said(plug: socket.socket) -> bytes:
    parts = []
    with suppress(ConnectionError):
        while part := plug.recv(65536):
            parts.append(part)
    return b"".join(parts)


def test_an_answer_of_untold_length_ends_with_the_connection() -> None:
    with served(answering(head(), content(b"one", more=True), content(b"two"))) as plug:
        plug.sendall(ASKED)
        found = said(plug)
    assert found.endswith(b"\r\n\r\nonetwo") and b"connection: close\r\n" in found
    assert b"\r\ndate: " in found


@pytest.mark.parametrize(
    "messages",
    [
        [head((b"x", b"1\r\nset-cookie: theirs"), (b"content-length", b"2")), content(b"ok")],
        [head((b"content-length", b"2")), content(b"longer")],
        [head((b"content-length", b"2"))],
        [],
    ],
    ids=["a field of two lines", "longer than told", "without content", "no answer"],
)
def test_an_answer_that_is_none_is_not_written(messages: list[Message]) -> None:
    with served(answering(*messages)) as plug:
        plug.sendall(ASKED)
        found = said(plug)
    assert found == b"" or found.startswith(b"HTTP/1.1 500 ")
    assert b"theirs" not in found and b"longer" not in found


def test_an_answer_shorter_than_told_ends_the_connection() -> None:
    with served(answering(head((b"content-length", b"9")), content(b"short"))) as plug:
        plug.sendall(ASKED + ASKED)
        assert said(plug).count(b"HTTP/1.1 ") == 1


def test_head_gets_the_head_alone_and_the_connection_stays() -> None:
    with served(answering(head((b"content-length", b"5")), content(b"five!"))) as plug:
        plug.sendall(ASKED.replace(b"GET", b"HEAD"))
        assert plug.recv(65536).endswith(b"\r\n\r\n")
        plug.sendall(ASKED)
        assert plug.recv(65536).endswith(b"five!")


def test_a_client_that_does_not_read_holds_the_app_up() -> None:
    sent: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(head((b"content-length", b"30000000")))
        for part in range(30):
            await send(content(bytes(1_000_000), more=part < 29))
            sent.append(part)

    with served(app) as plug:
        plug.sendall(ASKED[:-2] + b"Connection: close\r\n\r\n")
        plug.recv(1)
        before = -1
        while before != len(sent):  # until the buffers of the kernel are full
            before = len(sent)
            threading.Event().wait(0.2)
        assert len(sent) < 20
        assert len(said(plug)) > 30_000_000 and len(sent) == 30


def test_the_app_is_told_once_the_body_is_whole_and_when_its_client_leaves() -> None:
    told: list[Message] = []
    ended = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with asyncio.timeout(10):
            while not told or told[-1]["type"] != "http.disconnect":
                told.append(await receive())
        ended.set()

    with served(app) as plug:
        plug.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nab")
        while not told:
            threading.Event().wait(0.01)
        plug.sendall(b"cd")
        while len(told) < 2:
            threading.Event().wait(0.01)
        plug.close()
        assert ended.wait(10)
    assert [one.get("body") for one in told] == [b"ab", b"cd", None]
    assert [one.get("more_body") for one in told] == [True, False, None]
