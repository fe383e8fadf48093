"""The app over TLS of its own."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from certificates import Authority

import purpleteam.serve.checks
from purpleteam.core.checks import CHECKS, Target, run_check
from purpleteam.core.errors import UsageError
from purpleteam.serve.engine import Engine
from purpleteam.serve.main import running_app
from purpleteam.serve.settings import Limits, Tls
from purpleteam.serve.tls import context_of

OCTETS = {"content-type": "application/octet-stream"}
TLS_CHECK = purpleteam.serve.checks and CHECKS["web.tls"]()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def tls(authority: Authority) -> Tls:
    certificate, key = authority.issue("127.0.0.1", "localhost")
    return Tls(certificate=certificate, key=key)


@pytest.fixture(scope="module")
def secure(engine: Engine, tls: Tls) -> Iterator[str]:
    with running_app(engine, tls=tls, limits=Limits(head_seconds=0.5)) as address:
        yield address


@pytest.fixture(autouse=True)
def trust(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))


def place(url: str) -> tuple[str, int]:
    parts = httpx.URL(url)
    return parts.host, parts.port or 443


def test_a_digit_is_predicted_over_tls(secure: str, upper: bytes, authority: Authority) -> None:
    assert secure.startswith("https://")
    trusted = ssl.create_default_context(cafile=str(authority.ca))
    reply = httpx.post(f"{secure}/predict", content=upper, headers=OCTETS, verify=trusted)
    assert reply.json() == {"label": 0}
    assert reply.headers["strict-transport-security"] == "max-age=31536000"


def test_many_connections_in_a_row_are_all_answered(secure: str, authority: Authority) -> None:
    trusted = ssl.create_default_context(cafile=str(authority.ca))
    for _ in range(30):
        with httpx.Client(base_url=secure, verify=trusted) as client:
            assert client.get("/livez").status_code == client.get("/version").status_code == 200


def test_tls_1_1_is_refused(secure: str) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(place(secure)) as bare, pytest.raises(OSError):  # noqa: PT011
        old.wrap_socket(bare)


def test_a_handshake_is_bounded_in_time_and_plain_http_is_cut(secure: str) -> None:
    with socket.create_connection(place(secure)) as silent:
        silent.settimeout(5)
        began = time.monotonic()
        assert silent.recv(1) == b"" and time.monotonic() - began < 3
    with socket.create_connection(place(secure)) as plain:
        plain.settimeout(5)
        plain.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert not plain.recv(100).startswith(b"HTTP")


def test_handshakes_that_never_end_take_no_more_places_than_others(
    engine: Engine, tls: Tls, authority: Authority
) -> None:
    few = Limits(connections_each=4, connections=8)
    trusted = ssl.create_default_context(cafile=str(authority.ca))
    with running_app(engine, tls=tls, limits=few) as url, ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(socket.create_connection(place(url)))
        assert httpx.get(f"{url}/livez", verify=trusted).status_code == 200


def test_the_check_passes_on_it_and_fails_without_tls(secure: str) -> None:
    result = run_check(TLS_CHECK, Target(url=secure))
    assert result.verdict == "pass", (result.measured, result.message)


def test_plain_http_on_loopback_has_nothing_to_check(url: str) -> None:
    assert run_check(TLS_CHECK, Target(url=url)).verdict == "skipped"


def test_plain_http_elsewhere_fails() -> None:
    assert not TLS_CHECK.examine(Target(url="http://digits.example:8000")).passed


def test_an_unknown_authority_fails(secure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    measured = TLS_CHECK.examine(Target(url=secure)).measured
    assert "certificate verify failed" in measured["certificate"]


def test_another_name_fails(engine: Engine, authority: Authority) -> None:
    certificate, key = authority.issue("digits.example", file="other")
    with running_app(engine, tls=Tls(certificate=certificate, key=key)) as url:
        outcome = TLS_CHECK.examine(Target(url=url))
    assert not outcome.passed and "127.0.0.1" in outcome.measured["certificate"]


@pytest.mark.parametrize("name", ["web.headers", "web.size-cap", "web.errors-clean"])
def test_other_checks_ask_over_tls_too(name: str, secure: str) -> None:
    result = run_check(CHECKS[name](), Target(url=secure))
    assert result.verdict == "pass", (result.measured, result.message)


def test_what_cannot_serve_is_one_line_that_says_why(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("localhost", file="good")
    _, strange = authority.issue("localhost", file="strange")
    expired, of_expired = authority.issue("localhost", first_day=-9, last_day=-1, file="expired")
    early, of_early = authority.issue("localhost", first_day=2, file="early")
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("no PEM")
    nonsense.chmod(0o600)
    wrong = {
        (certificate, strange): "is not the key of",
        (expired, of_expired): "not today",
        (early, of_early): "not today",
        (nonsense, key): "holds no certificate in PEM",
        (certificate, nonsense): "holds no key in PEM",
        (certificate, tmp_path / "absent"): "does not exist",
    }
    for pair, why in wrong.items():
        with pytest.raises(UsageError, match=why):
            context_of(*pair)


def test_a_key_that_others_can_read_is_refused(authority: Authority) -> None:
    certificate, key = authority.issue("localhost", file="open")
    key.chmod(0o644)
    with pytest.raises(UsageError, match=r"others may use the key .*\(644\): chmod 600"):
        context_of(certificate, key)
