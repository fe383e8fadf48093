"""Starting and stopping the app."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from purpleteam.core.errors import ModelError, UsageError
from purpleteam.serve.engine import Engine
from purpleteam.serve.main import listen, running_app
from purpleteam.serve.settings import Settings

PROGRAM = """
from purpleteam.serve.main import serve
from purpleteam.serve.settings import Settings
serve({model!r}, Settings(port=0), on_ready=lambda url: print(url, flush=True))
print("ended")
"""


def test_loopback_is_the_default() -> None:
    assert Settings().host == "127.0.0.1"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_another_host_is_refused_without_permission(host: str) -> None:
    with pytest.raises(UsageError, match="--allow-remote"):
        listen(host, 0, False)


def test_another_host_is_taken_with_permission() -> None:
    with listen("0.0.0.0", 0, True) as listener:
        assert listener.getsockname()[0] == "0.0.0.0"


def test_a_port_in_use_is_a_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot listen on '127.0.0.1' port {port}: address"):
            listen("127.0.0.1", port, False)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_out_of_range_is_a_clear_error(port: int) -> None:
    with pytest.raises(UsageError, match=f"from 0 to 65535, not {port}"):
        listen("127.0.0.1", port, False)


def test_a_host_that_is_none_is_a_clear_error() -> None:
    with pytest.raises(UsageError, match="'no such host' is no address"):
        listen("no such host", 0, False)


def test_an_unknown_model_is_a_clear_error() -> None:
    with pytest.raises(ModelError, match="unknown model 'nothing'"), running_app("nothing"):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_serves_and_ends_quietly(model: Path, number: int) -> None:
    program = PROGRAM.format(model=str(model))
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        url = process.stdout.readline().strip()
        assert httpx.get(f"{url}/readyz").status_code == 200
        process.send_signal(number)
        out, errors = process.communicate(timeout=10)
    assert (process.returncode, out, errors) == (0, "ended\n", "")


def test_the_address_is_free_again_afterwards(engine: Engine) -> None:
    with running_app(engine) as url:
        port = httpx.URL(url).port
    with listen("127.0.0.1", port, False):
        pass
