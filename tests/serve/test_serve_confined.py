"""`purple serve` in the sandbox: what it says, what it still does, and when it refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import onnx
import pytest
from onnx import numpy_helper
from serve_tiny_model import halves, write_linear_model

from purpleteam.core.cards import find_stored
from purpleteam.core.digest import sha256_file
from purpleteam.core.errors import Refused, UsageError
from purpleteam.serve.sandbox import confined
from purpleteam.serve.settings import RateLimit, Settings

PROGRAM = "from purpleteam.cli import main; main()"
KERNEL_WITHOUT = """
from purpleteam.serve import sandbox
def missing(_):
    raise OSError(38, "Function not implemented")
sandbox._seccomp = sandbox._landlock = missing
"""
DENIED = "sandbox: reading, writing, executing and connecting are denied (seccomp"


@contextmanager
def serving(*options: object, before: str = "") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start the app; yield its process and what it says until it serves, or ends."""
    command = [sys.executable, "-c", before + PROGRAM, "serve", "--port", "0", *map(str, options)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        said = ""
        while "serving" not in said and (line := process.stderr.readline()):
            said += line
        yield process, said
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=20)[1] == ""


@pytest.fixture(scope="module")
def app(model: Path) -> Iterator[tuple[str, str]]:
    with serving("--model", model) as (process, said):
        if DENIED not in said:
            pytest.skip(f"this kernel lacks something: {said.splitlines()[0]}")
        yield said.split()[-1], said
    assert process.returncode == 0


def test_it_says_what_is_denied_before_it_serves(app: tuple[str, str]) -> None:
    assert app[1].startswith(DENIED) and app[1].splitlines()[1].startswith("serving")


def test_it_answers_all_that_it_has(app: tuple[str, str], upper: bytes) -> None:
    with httpx.Client(base_url=app[0]) as client:
        paths = ("/", "/static/app.js", "/livez", "/readyz", "/version")
        assert [client.get(path).status_code for path in paths] == [200] * 5
        assert client.get("/version").json()["sandbox"] is True
        head = {"content-type": "application/octet-stream"}
        assert client.post("/predict", content=upper, headers=head).json() == {"label": 0}
        assert client.post("/predict", content=b"", headers=head).status_code == 400
        assert client.get("/nothing").status_code == 404


def seccomp_of(number: int) -> int:
    """Return the kernel's mode of that process: 0 is none, 2 is a filter."""
    status = Path(f"/proc/{number}/status").read_text()
    return int(status.split("Seccomp:")[1].split()[0])


def seccomp_of_children(number: int) -> list[int]:
    children = Path(f"/proc/{number}/task/{number}/children").read_text().split()
    return [seccomp_of(int(child)) for child in children]


def test_each_worker_is_confined_and_their_parent_is_not(model: Path) -> None:
    with serving("--model", model, "--workers", 2) as (parent, said):
        deadline = time.monotonic() + 20  # the first one is enough to serve
        while seccomp_of_children(parent.pid) != [2, 2] and time.monotonic() < deadline:
            time.sleep(0.02)
        assert seccomp_of_children(parent.pid) == [2, 2]
        assert seccomp_of(parent.pid) == seccomp_of(os.getpid())  # whatever we run in
    assert said.startswith(DENIED) and said.count("sandbox") == 1


def test_without_it_the_app_says_so(model: Path) -> None:
    with serving("--model", model, "--set", "sandbox=false") as (_, said):
        assert said.startswith("sandbox: off: reading, writing, executing and connecting are not")
        assert httpx.get(f"{said.split()[-1]}/version").json()["sandbox"] is False


def test_a_kernel_that_denies_nothing_is_told_loudly_and_served(model: Path) -> None:
    with serving("--model", model, before=KERNEL_WITHOUT) as (_, said):
        assert said.startswith("WARNING: sandbox: NOT DENIED: reading a file (done)")
        assert httpx.get(f"{said.split()[-1]}/version").json()["sandbox"] is False


def test_a_kernel_that_denies_nothing_is_refused_where_it_is_required(model: Path) -> None:
    asked = ("--model", model, "--set", "sandbox=require")
    with serving(*asked, before=KERNEL_WITHOUT) as (process, said):
        assert process.wait(20) == Refused.exit_code
    assert said.startswith("error: sandbox: NOT DENIED: reading a file (done)")


@pytest.mark.parametrize("url", ["redis://localhost", "rediss://127.0.0.1", "unix:///tmp/redis"])
def test_a_redis_that_cannot_be_reached_from_inside_is_refused_before(url: str) -> None:
    with pytest.raises(UsageError, match="without a name, or leave the sandbox"):
        confined(Settings(rate=RateLimit(redis=url)), print)


@pytest.fixture
def exchanged(tmp_path: Path) -> Path:
    """A model whose ONNX file, and the digest of it on the card, were exchanged."""
    path = write_linear_model(tmp_path, halves(), (1, 28, 28))
    net = onnx.load(path)
    net.graph.initializer[0].CopyFrom(numpy_helper.from_array(-halves(), "weight"))
    onnx.save(net, path)
    card = find_stored(str(path)).card
    replace(card, onnx_digest=sha256_file(path)).write(path.with_suffix(".json"))
    return path


def test_weights_that_are_not_the_cards_are_told_loudly(exchanged: Path) -> None:
    with serving("--model", exchanged) as (_, said):
        assert httpx.get(f"{said.split()[-1]}/livez").status_code == 200
        assert said.startswith("WARNING: the ONNX file lacks 1 of the 1 tensors of the weights")


def test_another_model_than_the_named_one_is_refused(model: Path, exchanged: Path) -> None:
    identity = find_stored(str(model)).card.identity
    with serving("--model", exchanged, "--digest", identity) as (process, said):
        assert process.wait(20) == Refused.exit_code
    assert said.endswith(f", not {identity}\n") and said.count("\n") == 1
    with serving("--model", model, "--digest", identity) as (_, said):
        assert httpx.get(f"{said.split()[-1]}/version").json()["identity"] == identity
