"""The guard and the wire: what comes in is whole, small and our own; what goes out is hardened."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from purpleteam.serve.engine import Engine
from purpleteam.serve.guards import guarded
from purpleteam.serve.guards.visit import SECURITY_HEADERS
from purpleteam.serve.main import running_app
from purpleteam.serve.settings import ANY_ADDRESS, Limits, Settings

OCTETS = {"content-type": "application/octet-stream"}


@contextmanager
def plug(url: str) -> Iterator[socket.socket]:
    """A bare connection to the app."""
    parts = httpx.URL(url)
    with socket.create_connection((parts.host, parts.port or 80), timeout=5) as connection:
        yield connection


def read_all(connection: socket.socket) -> bytes:
    found = b""
    while part := connection.recv(65536):
        found += part
    return found


def hardened(reply: httpx.Response) -> bool:
    return all(reply.headers.get_list(name) == [value] for name, value in SECURITY_HEADERS.items())


@pytest.mark.parametrize(
    ("status", "method", "path", "body", "headers"),
    [
        (200, "GET", "/", b"", {}),
        (200, "GET", "/livez", b"", {}),
        (200, "POST", "/predict", bytes(784), OCTETS),
        (304, "GET", "/", b"", {"if-none-match": "the page's"}),
        (400, "POST", "/predict", bytes(3), OCTETS),
        (400, "GET", "/", b"", {"host": "evil.example"}),
        (403, "POST", "/predict", bytes(784), {**OCTETS, "sec-fetch-site": "cross-site"}),
        (404, "GET", "/nothing", b"", {}),
        (405, "GET", "/predict", b"", {}),
        (405, "DELETE", "/predict", b"", {}),
        (413, "POST", "/predict", bytes(785), OCTETS),
        (415, "POST", "/predict", bytes(784), {"content-type": "image/png"}),
    ],
)
def test_every_status_carries_every_security_header_once(
    client: httpx.Client,
    status: int,
    method: str,
    path: str,
    body: bytes,
    headers: dict[str, str],
) -> None:
    if "if-none-match" in headers:
        headers = {"if-none-match": client.get("/").headers["etag"]}
    reply = client.request(method, path, content=body, headers=headers)
    assert reply.status_code == status and hardened(reply)
    assert "server" not in reply.headers and "access-control-allow-origin" not in reply.headers


def test_what_is_no_http_gets_a_hardened_400(url: str) -> None:
    with plug(url) as connection:
        connection.sendall(b"HELLO\r\n\r\n")
        raw = read_all(connection).decode()
    assert raw.startswith("HTTP/1.1 400 ") and "This is no valid HTTP request." in raw
    assert all(f"{name}: {value}" in raw for name, value in SECURITY_HEADERS.items())


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "127.0.0.1:1, evil", "10.0.0.1", ""]
)
def test_a_foreign_host_is_refused(client: httpx.Client, host: str) -> None:
    assert client.get("/livez", headers={"host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:99", "127.0.0.1:1", "[::1]:8000"])
def test_a_loopback_host_is_answered(client: httpx.Client, host: str) -> None:
    assert client.get("/livez", headers={"host": host}).status_code == 200


def test_a_wildcard_host_answers_for_addresses_and_no_names(engine: Engine) -> None:
    with running_app(engine, allowed_hosts=[ANY_ADDRESS]) as url:
        assert httpx.get(f"{url}/livez", headers={"host": "192.0.2.7:80"}).status_code == 200
        assert httpx.get(f"{url}/livez", headers={"host": "rebound.example"}).status_code == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
    ],
)
def test_only_the_page_itself_and_tools_may_post(
    client: httpx.Client, upper: bytes, headers: dict[str, str], status: int
) -> None:
    reply = client.post("/predict", content=upper, headers={**OCTETS, **headers})
    assert reply.status_code == status


def test_the_apps_own_origin_may_post(client: httpx.Client, url: str, upper: bytes) -> None:
    reply = client.post("/predict", content=upper, headers={**OCTETS, "origin": url})
    assert reply.status_code == 200


def test_a_huge_body_is_refused_before_it_is_sent(url: str) -> None:
    with plug(url) as connection:
        started = time.perf_counter()
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
            b"Content-Length: 99999999\r\n\r\n"
        )
        head = connection.recv(65536)
    assert head.startswith(b"HTTP/1.1 413 ") and time.perf_counter() - started < 1


def test_chunks_without_end_are_cut(url: str) -> None:
    chunk = b"1000\r\n" + bytes(4096) + b"\r\n"
    with plug(url) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\n")
        connection.sendall(b"Transfer-Encoding: chunked\r\n\r\n")
        with pytest.raises(ConnectionError):
            connection.sendall(10_000 * chunk)


def test_chunks_of_784_bytes_are_answered(client: httpx.Client, upper: bytes) -> None:
    pieces = (upper[at : at + 100] for at in range(0, 784, 100))
    assert client.post("/predict", content=pieces, headers=OCTETS).json() == {"label": 0}


def test_a_slow_body_is_408(engine: Engine) -> None:
    with running_app(engine, limits=Limits(body_seconds=0.1)) as url, plug(url) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\n")
        connection.sendall(b"Content-Length: 784\r\n\r\nslow")
        assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("header", [b"Host: localhost", b"Content-Length: 0"])
def test_a_header_that_comes_twice_is_400(url: str, header: bytes) -> None:
    with plug(url) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\n" + header + b"\r\n" + header + b"\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")


def test_a_crash_is_a_hardened_500_that_says_nothing(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    async def crash(scope: object, receive: object, send: object) -> None:
        raise RuntimeError("the secret is 0xc0ffee")

    app = guarded(crash, Settings(), engine)
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [(b"host", b"localhost")],
    }
    with caplog.at_level(logging.CRITICAL, "purpleteam.serve"):
        asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 500 and b"secret" not in sent[1]["body"]
    assert {name for name, _ in sent[0]["headers"]} >= {name.encode() for name in SECURITY_HEADERS}
