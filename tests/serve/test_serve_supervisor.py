"""Workers under a supervisor: each is a process of its own, and each ends in another way."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import httpx
import pytest
from serve_tiny_model import halves, write_linear_model

from purpleteam.core.errors import PurpleError
from purpleteam.serve.main import serve
from purpleteam.serve.settings import Settings
from purpleteam.serve.supervisor import Workers
from purpleteam.serve.worker import restored

PROGRAM = """
from functools import partial
from purpleteam.serve.main import serve
from purpleteam.serve.settings import Settings
from purpleteam.serve.supervisor import Workers
say = partial(print, flush=True)
def tell(line):
    line.startswith("sandbox") or say(line)
serve({model!r}, Settings(port=0, workers=Workers({workers}), without={without}), say, tell)
say("ended")
"""
HANGS = """
import os, time
from purpleteam.serve.worker import _end_with
_end_with(os.getppid())
"""
SECONDS = 60.0  # that anything here may take on a busy machine
HEAD = (
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 784\r\n"
    b"Content-Type: application/octet-stream\r\n\r\n"
)


class Served:
    """The app in a process of its own, whose lines are read one after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.url = process, process.stdout.readline().strip()

    def line(self) -> str:
        return self.process.stdout.readline().strip()

    def children(self) -> list[int]:
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(number) for number in found.read_text().split()]

    def status(self, path: str = "/livez") -> int:
        return httpx.get(self.url + path, timeout=20).status_code

    def end(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        said, _ = self.process.communicate(timeout=20)
        return self.process.returncode, said


@contextmanager
def served(
    model: Path, workers: str = "count=1", without: tuple[str, ...] = ()
) -> Iterator[Served]:
    program = PROGRAM.format(model=str(model), workers=workers, without=without)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as process:
        late = threading.Timer(SECONDS, process.kill)  # then no line comes, and no answer
        late.start()
        try:
            yield Served(process)
        finally:
            late.cancel()
            process.kill()


@pytest.fixture
def own_model(tmp_path: Path) -> Path:
    return write_linear_model(tmp_path, halves(), (1, 28, 28))


def test_a_killed_worker_is_replaced_and_nobody_is_refused(model: Path) -> None:
    with served(model) as app:
        (worker,) = app.children()
        os.kill(worker, signal.SIGKILL)
        assert app.status() == 200  # the connection waits in the socket, which stays open
        assert re.fullmatch(r"worker 1 was killed \(SIGKILL\); replaced in \d+\.\d s", app.line())
        assert app.children() != [worker]
        assert app.end() == (0, "ended\n")


def wait_until_gone(number: int) -> None:
    deadline = time.monotonic() + 20
    with suppress(OSError):
        while Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < deadline, f"process {number} outlives its parent"
            time.sleep(0.01)


def test_workers_end_with_a_parent_that_is_killed(model: Path) -> None:
    with served(model, "count=2") as app:
        workers = app.children()
        app.process.kill()
        for number in workers:
            wait_until_gone(number)
    assert len(workers) == 2


@pytest.mark.parametrize("after", ["", "from purpleteam.serve.sandbox import confine; confine()"])
def test_even_a_worker_that_hangs_does_not_outlive_its_parent(after: str) -> None:
    hangs = f"{HANGS}{after}\nprint(os.getpid(), flush=True); time.sleep(60)"
    parent = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    command = [sys.executable, "-c", parent, hangs]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        number = int(process.stdout.readline())
        process.kill()
        try:
            wait_until_gone(number)
        finally:
            with suppress(OSError):
                os.kill(number, signal.SIGKILL)


def test_a_worker_that_hangs_is_killed_and_replaced(model: Path) -> None:
    with served(model, "count=1, silent_seconds=1") as app:
        os.kill(app.children()[0], signal.SIGSTOP)
        assert app.line().startswith("worker 1 said nothing for 1 s, and was killed; replaced in")
        assert app.status() == 200


@pytest.mark.parametrize(
    ("bounds", "why"),
    [
        ("memory_mb=10", r"held \d+ MB, more than 10"),
        ("lifetime_requests=3, jitter=0", r"had taken \d requests"),
        ("lifetime_seconds=0.1", r"had served for \d s"),
    ],
)
def test_a_worker_over_a_bound_serves_until_another_has_its_place(
    model: Path, bounds: str, why: str
) -> None:
    with served(model, f"count=1, {bounds}") as app:
        assert [app.status() for _ in range(3)] == [200, 200, 200]
        assert re.fullmatch(f"worker 1 {why}: another has its place", app.line())
        assert app.status() == 200


def test_sighup_brings_the_new_model(own_model: Path) -> None:
    with served(own_model, "count=2") as app:
        before = httpx.get(f"{app.url}/version").json()["digest"]
        write_linear_model(own_model.parent, -halves(), (1, 28, 28))
        app.process.send_signal(signal.SIGHUP)
        told = [app.line() for _ in range(3)]
        assert told[0] == "replacing the workers, one after the other"
        assert [line[9:] for line in told[1:]] == [
            "was replaced as asked: another has its place"
        ] * 2
        while httpx.get(f"{app.url}/version").json()["digest"] == before:
            pass  # the last of the old ones takes a moment to close its door


def test_a_model_that_cannot_be_loaded_replaces_nothing(own_model: Path) -> None:
    with served(own_model) as app:
        own_model.write_bytes(b"damaged")
        app.process.send_signal(signal.SIGHUP)
        assert app.line() == "replacing the workers, one after the other"
        line = app.line()
        assert line.startswith("the successor of worker 1 ended with exit code 1 (")
        assert line.endswith("): that one stays")
        assert app.status() == 200


def test_workers_that_die_at_their_start_are_started_ever_more_rarely(own_model: Path) -> None:
    with served(own_model) as app:
        kept = own_model.read_bytes()
        own_model.unlink()
        os.kill(app.children()[0], signal.SIGKILL)
        assert app.line().endswith("the next one starts in 0.5 s")
        assert app.line().endswith("the next one starts in 1.0 s")
        own_model.write_bytes(kept)
        assert app.line().startswith("worker 1 was killed (SIGKILL); replaced in")


def test_a_worker_that_the_system_has_no_place_for_is_started_later(model: Path) -> None:
    with served(model) as app:
        _, most = resource.prlimit(app.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(app.process.pid, resource.RLIMIT_NOFILE, (3, most))
        os.kill(app.children()[0], signal.SIGKILL)
        assert app.line().startswith("cannot start worker 1: too many open files; the next try is")
        resource.prlimit(app.process.pid, resource.RLIMIT_NOFILE, (most, most))
        while not (line := app.line()).startswith("worker 1 was killed (SIGKILL); replaced in"):
            assert line.startswith("cannot start worker 1")


def test_without_replacement_the_place_stays_empty(model: Path) -> None:
    with served(model, without=("restart",)) as app:
        os.kill(app.children()[0], signal.SIGKILL)
        assert app.line() == "worker 1 was killed (SIGKILL); its place stays empty"
        assert app.process.wait(timeout=10) != 0


def test_the_end_is_announced_then_what_is_under_way_is_finished(model: Path) -> None:
    with served(model, "count=1, notice_seconds=1.5") as app:
        (worker,), url = app.children(), httpx.URL(app.url)
        door = (url.host, url.port)
        with socket.create_connection(door) as asking, socket.create_connection(door) as silent:
            asking.sendall(HEAD)
            app.process.send_signal(signal.SIGTERM)
            while app.status("/readyz") == 200:
                pass
            assert (app.status("/readyz"), app.status("/livez")) == (503, 200)
            while is_open(url.port):
                pass
            for late, rest in ((silent, HEAD + bytes(784)), (asking, bytes(784))):
                late.sendall(rest)
                assert late.recv(4096).startswith(b"HTTP/1.1 200 OK")
        assert app.process.communicate(timeout=10) == ("ended\n", None)
        assert app.process.returncode == 0 and not Path(f"/proc/{worker}").exists()


def is_open(port: int) -> bool:
    """Whether the port takes a connection; one that waits while it is closed is reset."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except (ConnectionRefusedError, ConnectionResetError):
        return False
    return True


def test_no_worker_outlives_a_parent_that_is_killed(model: Path) -> None:
    with served(model) as app:
        (worker,) = app.children()
        app.process.kill()
        app.process.wait()
        until, stat = time.monotonic() + SECONDS, Path(f"/proc/{worker}/stat")
        while (
            left := stat.exists() and ") Z " not in stat.read_text()
        ) and time.monotonic() < until:
            pass
        assert not left


def test_systemd_is_told(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with served(model) as app:
            said = [systemd.recv(100) for _ in range(3)]
            assert said == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
            app.process.send_signal(signal.SIGTERM)
            while said[-1] == b"WATCHDOG=1":
                said.append(systemd.recv(100))
        assert said[-1] == b"STOPPING=1"


def test_a_first_worker_that_cannot_start_is_a_clear_error() -> None:
    with pytest.raises(PurpleError, match="unknown model 'nothing'"):
        serve("nothing", Settings(port=0, workers=Workers(count=1)))


def test_settings_reach_a_worker_as_they_are() -> None:
    settings = Settings(strip=Path("a"), allowed_hosts=("b",), workers=Workers(count=2))
    assert restored(Settings, json.loads(json.dumps(asdict(settings), default=str))) == settings


@pytest.mark.parametrize("wrong", [{"count": -1}, {"jitter": 2.0}, {"silent_seconds": 0.0}])
def test_a_bound_out_of_range_is_a_clear_error(wrong: dict[str, float]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name} must be .*, not {value}"):
        Workers(**wrong)
