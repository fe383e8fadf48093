"""The wire: what is counted, what waits, what is cut, and who loses a place to whom."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import httpx
import pytest

from purpleteam.serve.engine import Engine
from purpleteam.serve.main import running_app
from purpleteam.serve.settings import Limits

GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
QUICK = Limits(head_seconds=0.3, body_seconds=0.3, answer_seconds=1.0)


@contextmanager
def plug(url: str, address: str = "127.0.0.1") -> Iterator[socket.socket]:
    """A bare connection to the app, from an address of its own."""
    place = (httpx.URL(url).host, httpx.URL(url).port or 80)
    with socket.create_connection(place, timeout=10, source_address=(address, 0)) as connection:
        yield connection


def said(connection: socket.socket) -> bytes:
    """What the app says until it ends the connection."""
    found = b""
    with suppress(ConnectionError):
        while part := connection.recv(65536):
            found += part
    return found


def lives(connection: socket.socket) -> bool:
    try:
        connection.sendall(GET + b"\r\n")
        return connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def lines(count: int, length: int) -> bytes:
    return b"".join(b"X%05d: %s\r\n" % (number, b"a" * length) for number in range(count))


@pytest.mark.parametrize(
    "start",
    [
        GET + lines(10_000, 50),
        GET + b"X: " + b"a" * 1_000_000,
        b"GET /" + b"a" * 1_000_000,
        CHUNKED + b"0\r\n" + lines(10_000, 50),
        CHUNKED + b"0\r\n" + b"X: " + b"a" * 1_000_000,
        CHUNKED + b"1;" + b"a" * 1_000_000,
        b"\r\n" * 20_000,
    ],
    ids=["lines", "line", "url", "trailers", "trailer", "chunk extension", "empty lines"],
)
def test_what_never_ends_is_431_while_it_is_sent(engine: Engine, start: bytes) -> None:
    with running_app(engine) as url, plug(url) as connection:
        with suppress(ConnectionError):
            connection.sendall(start)
        assert said(connection).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (GET + lines(99, 50) + b"\r\n", b"200"),
        (GET + lines(100, 50) + b"\r\n", b"431"),
        (GET + lines(1, 16_200) + b"\r\n", b"200"),
        (GET + lines(1, 16_400) + b"\r\n", b"431"),
        (CHUNKED + b"0\r\n" + lines(90, 50) + b"\r\n", b"400"),
        (CHUNKED + b"0\r\n" + lines(99, 50) + b"\r\n", b"431"),
        (CHUNKED + b"0\r\n" + lines(1, 16_700) + b"\r\n", b"431"),
    ],
)
def test_a_head_and_its_trailers_have_100_fields_and_16_kilobytes(
    url: str, raw: bytes, status: bytes
) -> None:
    with plug(url) as connection:
        connection.sendall(raw)
        assert connection.recv(65536).split()[1] == status


def test_each_request_of_a_connection_is_counted_anew(url: str) -> None:
    with plug(url) as connection:
        for _ in range(5):
            connection.sendall(GET + lines(2, 7_000) + b"\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_an_image_in_chunks_of_one_byte_is_answered(url: str, upper: bytes) -> None:
    chunks = b"".join(b"1\r\n" + upper[at : at + 1] + b"\r\n" for at in range(784))
    with plug(url) as connection:
        connection.sendall(CHUNKED + chunks + b"0\r\n\r\n")
        assert b'{"label":0}' in connection.recv(65536)


def test_requests_sent_on_are_answered_in_order(url: str, upper: bytes) -> None:
    post = POST + b"Content-Length: 784\r\n\r\n" + upper
    asked = (GET + b"\r\n" + post) * 3 + GET + b"Connection: close\r\n\r\n"
    with plug(url) as connection:
        connection.sendall(asked)
        order = [b"alive" in part for part in said(connection).split(b"HTTP/1.1 200 ")[1:]]
    assert order == [True, False] * 3 + [True]


def test_nothing_is_read_after_the_last_request(url: str) -> None:
    with plug(url) as connection:
        connection.sendall(GET + b"Connection: close\r\n\r\n" + GET + b"\r\n")
        assert said(connection).count(b"HTTP/1.1 ") == 1


def test_requests_sent_on_without_end_are_cut(url: str) -> None:
    with plug(url) as connection:
        with suppress(ConnectionError):
            connection.sendall((GET + b"\r\n") * 20_000)
        assert said(connection).count(b"HTTP/1.1 ") < 1_000


def drip(connection: socket.socket, piece: bytes) -> float:
    """Send a piece now and again until the app ends the connection; return how long it took."""
    started = time.monotonic()
    while time.monotonic() < started + 30:
        try:
            connection.sendall(piece)
        except OSError:
            break
        time.sleep(0.02)
    return time.monotonic() - started


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"", b"\r\n"),
        (GET, b"X: a\r\n"),
        (GET + b"\r\n", b"\r\n"),
        (POST + b"Content-Length: 784\r\n\r\n", b"a"),
        (CHUNKED, b"1\r\na\r\n"),
        (CHUNKED + b"0\r\n", b"X: a\r\n"),
        ((GET + b"\r\n") * 8, b"\r\n"),
    ],
    ids=["empty lines", "head", "after an answer", "body", "chunks", "trailers", "never reading"],
)
def test_a_client_that_is_always_about_to_go_on_is_cut(
    engine: Engine, start: bytes, piece: bytes
) -> None:
    with running_app(engine, limits=QUICK) as url, plug(url) as connection:
        connection.sendall(start)
        assert drip(connection, piece) < 20


def test_a_client_that_says_nothing_is_cut(engine: Engine) -> None:
    with running_app(engine, limits=QUICK) as url, plug(url) as connection:
        assert said(connection) == b""


def test_who_takes_the_answer_slowly_is_cut(engine: Engine) -> None:
    asset = b"GET /static/app.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with running_app(engine, limits=QUICK) as url, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((httpx.URL(url).host, httpx.URL(url).port or 80))
        connection.sendall(asset * 8)
        assert drip(connection, asset) < 20


def test_the_clock_of_a_head_begins_with_the_last_answer(engine: Engine) -> None:
    with running_app(engine, limits=Limits(head_seconds=1.0)) as url, plug(url) as connection:
        for _ in range(8):
            assert lives(connection)
            time.sleep(0.2)


def test_the_longest_waiting_of_an_address_loses_its_place_to_a_new_one(engine: Engine) -> None:
    with running_app(engine, limits=Limits(connections_each=2)) as url, ExitStack() as open_ones:
        first, second, third = (open_ones.enter_context(plug(url)) for _ in range(3))
        elsewhere = open_ones.enter_context(plug(url, "127.0.0.2"))
        assert said(first) == b""
        assert lives(second) and lives(third) and lives(elsewhere)


def test_where_all_places_are_taken_the_fullest_address_gives_one(engine: Engine) -> None:
    limits = Limits(connections=3)
    with running_app(engine, limits=limits) as url, ExitStack() as open_ones:
        alone = open_ones.enter_context(plug(url, "127.0.0.2"))
        crowd = [open_ones.enter_context(plug(url)) for _ in range(2)]
        late = open_ones.enter_context(plug(url, "127.0.0.3"))
        assert said(crowd[0]) == b"" and lives(crowd[1]) and lives(alone) and lives(late)


def test_128_addresses_with_a_connection_each_leave_room_for_one_more(engine: Engine) -> None:
    with running_app(engine) as url, ExitStack() as open_ones:
        plugs = [open_ones.enter_context(plug(url, f"127.0.1.{n}")) for n in range(1, 130)]
        assert said(plugs[0]) == b"" and lives(plugs[-1]) and lives(plugs[64])


def test_requests_just_begun_lose_their_place_to_nobody(engine: Engine) -> None:
    limits = Limits(connections_each=2, at_work_seconds=60)
    begun = POST + b"Content-Length: 784\r\nExpect: 100-continue\r\n\r\n"
    with running_app(engine, limits=limits) as url, ExitStack() as open_ones:
        for _ in range(2):
            at_work = open_ones.enter_context(plug(url))
            at_work.sendall(begun)
            assert at_work.recv(100).startswith(b"HTTP/1.1 100 ")
        assert said(open_ones.enter_context(plug(url))).startswith(b"HTTP/1.1 503 ")


def test_requests_that_take_long_lose_their_place(engine: Engine) -> None:
    limits = Limits(connections_each=1, at_work_seconds=0)
    with running_app(engine, limits=limits) as url, plug(url) as slow:
        slow.sendall(POST + b"Content-Length: 784\r\nExpect: 100-continue\r\n\r\n")
        assert slow.recv(100).startswith(b"HTTP/1.1 100 ")
        with plug(url) as quick:
            assert lives(quick) and said(slow) == b""


def test_who_is_cut_while_requests_wait_leaves_no_trace(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    limits = Limits(connections_each=1, at_work_seconds=0)
    with running_app(engine, limits=limits) as url, ExitStack() as open_ones:
        for _ in range(60):
            open_ones.enter_context(plug(url)).sendall((GET + b"\r\n") * 8)
        assert lives(open_ones.enter_context(plug(url, "127.0.0.2")))
    assert caplog.messages == []


SMUGGLED = b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        POST + b"Content-Length: 784\r\nContent-Length: 5\r\n\r\n" + SMUGGLED,
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: +784\r\n\r\n" + bytes(784),
        POST + b"Content-Length: 0x310\r\n\r\n" + bytes(784),
        POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
        CHUNKED + b"zz\r\n",
        CHUNKED + b"-1\r\n",
        CHUNKED + b"fffffffffffffffffff\r\n",
        CHUNKED + b"1\r\nab\r\n0\r\n\r\n",
        CHUNKED + b"1 \r\na\n0\r\n\r\n",
        GET + b"X: a\0b\r\n\r\n",
        GET + b"X\0: a\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\0" * 100,
        b"GET http://elsewhere.example/livez HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n",
        b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.0\r\n\r\n",
        b"GET /livez HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET /livez\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        GET + b" X: folded\r\n\r\n",
        GET.replace(b"\r\n", b"\n") + b"\n",
    ],
)
def test_what_two_readers_could_read_differently_is_4xx_once(
    engine: Engine, raw: bytes, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with running_app(engine, limits=QUICK) as url, plug(url) as connection:
        connection.sendall(raw)
        found = said(connection)
    assert found.startswith(b"HTTP/1.1 4") and found.count(b"HTTP/1.1 ") == 1
    assert caplog.records == [] and capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /livez HTTP/1.0\r\nHost: localhost\r\n\r\n", b"200"),
        (b"GET http://localhost/livez HTTP/1.1\r\nHost: localhost\r\n\r\n", b"200"),
        # the whole body is here already, so no 100 is needed (RFC 9110, 10.1.1)
        (POST + b"Content-Length: 784\r\nExpect: 100-continue\r\n\r\n" + bytes(784), b"200"),
        (POST + b"Content-Length: 784\r\nExpect: 200-maybe\r\n\r\n" + bytes(784), b"200"),
        (GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", b"200"),
        (GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n", b"200"),
        (
            POST
            + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 784\r\n\r\n"
            + bytes(784),
            b"400",
        ),
    ],
)
def test_what_the_protocol_allows_is_answered_and_ends(
    engine: Engine, raw: bytes, status: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with running_app(engine, limits=QUICK) as url, plug(url) as connection:
        connection.sendall(raw)
        found = said(connection)
    assert found.startswith(b"HTTP/1.1 " + status) and capfd.readouterr().err == ""


@pytest.mark.parametrize("rest", [b"\0\0", b"GET / HTTP/9\r\n\r\n", GET + lines(200, 50)])
@pytest.mark.parametrize("apart", [False, True])
def test_what_is_whole_is_answered_before_what_is_no_request(
    engine: Engine, rest: bytes, apart: bool
) -> None:
    whole = POST + b"Content-Length: 784\r\n\r\n" + bytes(784)
    with running_app(engine) as url, plug(url) as connection:
        for piece in (whole, rest) if apart else (whole + rest,):
            connection.sendall(piece)
        found = said(connection)
    assert found.startswith(b"HTTP/1.1 200 ") and found.count(b"HTTP/1.1 200 ") == 1
