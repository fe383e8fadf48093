"""The examples of proxies in deploy/, each started in front of the app."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from certificates import Authority

import purpleteam.serve.checks
from purpleteam.core.checks import CHECKS, Target, run_check
from purpleteam.serve.engine import Engine
from purpleteam.serve.guards.client import Proxies
from purpleteam.serve.guards.rate import RateLimit
from purpleteam.serve.main import running_app

DEPLOY = Path(__file__).parents[2] / "deploy"
OCTETS = {"content-type": "application/octet-stream"}
AT_ONCE = 4
PROGRAMS = "/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin:/bin"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def placed(name: str, changes: dict[str, str], folder: Path) -> Path:
    """Write an example as it is but for the places in it; each of them must be there."""
    text = (DEPLOY / name).read_text()
    for place, other in changes.items():
        assert text.count(place) == 1, place
        text = text.replace(place, other)
    (folder / name).write_text(text)
    return folder / name


def nginx(app: str, port: int, pair: tuple[Path, Path], folder: Path) -> list[str]:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    changes = {
        "server 127.0.0.1:8000;": f"server {app};",
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "listen 80;": f"listen 127.0.0.1:{free_port()};",
        "/etc/purpleteam/chain.pem": str(pair[0]),
        "/etc/purpleteam/key.pem": str(pair[1]),
        "http {\n": f"http {{\n{temporary}\n",
    }
    file = placed("nginx.conf", changes, folder)
    main = f"daemon off; pid {folder}/nginx.pid;"
    return ["nginx", "-p", str(folder), "-e", "stderr", "-c", str(file), "-g", main]


def caddy(app: str, port: int, pair: tuple[Path, Path], folder: Path) -> list[str]:
    changes = {
        "reverse_proxy 127.0.0.1:8000": f"reverse_proxy {app}",
        "\ndigits.example {\n": f"\nhttps://localhost:{port} {{\n\tbind 127.0.0.1\n",
        "/etc/purpleteam/chain.pem": str(pair[0]),
        "/etc/purpleteam/key.pem": str(pair[1]),
        "\tadmin off\n": "\tadmin off\n\tauto_https disable_redirects\n",
    }
    file = placed("Caddyfile", changes, folder)
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(file)]


@contextmanager
def started(command: list[str], port: int, folder: Path) -> Iterator[str]:
    said = folder / "said"
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with said.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**home, "PATH": PROGRAMS})
    try:
        until = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < until:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            time.sleep(0.02)
        assert process.poll() is None, said.read_text()
        yield f"https://localhost:{port}"
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.fixture(params=["nginx", "caddy"])
def proxied(
    request: pytest.FixtureRequest, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The app behind a proxy; its address. Four images at once, then next to none."""
    if (
        shutil.which(request.param, path="/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin")
        is None
    ):
        pytest.skip(f"needs {request.param}")
    authority = Authority(tmp_path)
    pair = authority.issue("localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    rate, proxies = RateLimit(at_once=AT_ONCE, per_second=0.01), Proxies(trusted=("127.0.0.1",))
    with running_app(engine, rate=rate, proxies=proxies) as url:
        port = free_port()
        make = {"nginx": nginx, "caddy": caddy}[request.param]
        app = url.removeprefix("http://")
        with started(make(app, port, pair, tmp_path), port, tmp_path) as address:
            yield address


def test_a_digit_is_read_over_tls_and_no_claimed_address_is_believed(
    proxied: str, upper: bytes
) -> None:
    trusting = ssl.create_default_context()
    with httpx.Client(base_url=proxied, verify=trusting) as client:
        replies = [
            client.post(
                "/predict",
                content=upper,
                headers={
                    **OCTETS,
                    "x-forwarded-for": f"192.0.2.{number}",
                    "forwarded": f"for=192.0.2.{number}",
                },
            )
            for number in range(AT_ONCE + 2)
        ]
        large = client.post("/predict/batch", content=bytes(80_000), headers=OCTETS)
        page = client.get("/", headers={"accept-encoding": "identity"})
    assert replies[0].json() == {"label": 0}
    assert [reply.status_code for reply in replies] == [200] * AT_ONCE + [429, 429]
    assert large.status_code in (413, 502)  # Caddy 2.6 says 502 where it cuts the body itself
    assert page.headers["strict-transport-security"] == "max-age=31536000"
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    result = run_check(CHECKS["web.tls"](), Target(url=proxied))
    assert purpleteam.serve.checks
    assert result.verdict == "pass", (result.measured, result.message)
    trusting.set_alpn_protocols(["h2"])
    place = httpx.URL(proxied)
    with (
        socket.create_connection((place.host, place.port)) as bare,
        trusting.wrap_socket(bare, server_hostname=place.host) as secure,
    ):
        assert secure.selected_alpn_protocol() == "h2"
