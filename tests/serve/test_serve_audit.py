"""The app with an audit log: no answer without a record, and no more in it than is needed."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

import purpleteam.serve.checks  # noqa: F401 - registers
from purpleteam.core.checks import CHECKS, Target, run_check
from purpleteam.core.errors import ConfigError, UsageError
from purpleteam.serve.audit.verify import verify_log
from purpleteam.serve.audit.writer import AuditClient, Writer
from purpleteam.serve.checks._web import STROKE
from purpleteam.serve.engine import Engine
from purpleteam.serve.guards.audit import Audit
from purpleteam.serve.main import running_app
from purpleteam.serve.settings import resolve

OCTETS = {"content-type": "application/octet-stream"}
SERVE = """
import sys
from functools import partial
from pathlib import Path
from purpleteam.serve.guards.audit import Audit
from purpleteam.serve.main import serve
from purpleteam.serve.settings import Settings
from purpleteam.serve.supervisor import Workers
audit = Audit(file=Path(sys.argv[2]), checkpoint_seconds=0.05)
workers, say = Workers(count=int(sys.argv[3])), partial(print, flush=True)
serve(sys.argv[1], Settings(port=0, audit=audit, workers=workers, without=("rate",)), say, say)
"""

FULL_DISK = """
import resource, signal
most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
def room(number, _):
    here = 2000 if number == signal.SIGUSR1 else most
    resource.setrlimit(resource.RLIMIT_FSIZE, (here, most))
signal.signal(signal.SIGUSR1, room), signal.signal(signal.SIGUSR2, room)
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def audited(engine: Engine, log: Path) -> Iterator[httpx.Client]:
    """The app with an audit log."""
    with running_app(engine, audit=Audit(file=log)) as url, httpx.Client(base_url=url) as client:
        yield client


def records(log: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    return [line for line in lines if line.get("kind") == kind]


def predict(client: httpx.Client, body: bytes) -> httpx.Response:
    return client.post("/predict", content=body, headers=OCTETS)


def test_an_answer_comes_after_its_record(
    audited: httpx.Client, log: Path, upper: bytes, engine: Engine
) -> None:
    for number in range(1, 4):
        assert predict(audited, upper).json() == {"label": 0}
        assert len(records(log, "predict")) == number
    record = records(log, "predict")[0]
    assert abs(record["time"] - time.time()) < 60
    assert (record["status"], record["label"], record["key"]) == (200, 0, None)
    assert record["model"] == engine.card.identity[7:23]


def test_an_abstention_is_recorded_with_its_reason(audited: httpx.Client, log: Path) -> None:
    predict(audited, bytes(784))
    (record,) = records(log, "predict")
    assert (record["label"], record["reason"]) == (None, "empty")


def test_a_record_tells_neither_the_drawing_nor_the_client(
    audited: httpx.Client, log: Path, upper: bytes
) -> None:
    predict(audited, upper)
    content = log.read_text("utf-8")
    guesses = [hashlib.new(name, upper).hexdigest() for name in ("sha256", "sha1", "md5")]
    guesses += [hashlib.blake2b(upper, digest_size=16).hexdigest(), upper.hex()]
    assert not any(guess in content for guess in [*guesses, "127.0.0.1", "python-httpx"])
    told = {"time", "kind", "id", "body", "key", "status", "model", "label"}
    assert set(records(log, "predict")[0]) == told


def test_one_drawing_has_one_digest_in_one_log(
    audited: httpx.Client, log: Path, upper: bytes
) -> None:
    for body in (upper, bytes(784), upper):
        predict(audited, body)
    first, other, same = (record["body"] for record in records(log, "predict"))
    assert first == same != other


def test_pages_are_not_recorded(audited: httpx.Client, log: Path) -> None:
    before = log.read_bytes()
    for path in ("/", "/livez", "/version", "/nothing"):
        audited.get(path)
    assert log.read_bytes() == before


def test_refusals_are_counted_so_that_they_cannot_fill_the_disk(
    engine: Engine, log: Path, upper: bytes
) -> None:
    settings: dict[str, Any] = {"audit": Audit(file=log), "without": ("rate",)}
    with running_app(engine, **settings) as url, httpx.Client(base_url=url) as client:
        for _ in range(50):
            assert predict(client, b"short").status_code == 400
        assert predict(client, upper).status_code == 200
    refused = records(log, "refused")
    assert sum(record["count"] for record in refused) == 50 and len(refused) < 5
    assert {record["status"] for record in refused} == {400}


def test_what_cannot_be_recorded_is_not_answered(
    audited: httpx.Client, log: Path, upper: bytes
) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size + 10, limit[1]))
    try:
        reply = predict(audited, upper)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert reply.status_code == 503 and reply.headers["retry-after"] == "5"
    assert reply.json()["detail"].startswith("The request could not be recorded")
    assert predict(audited, upper).status_code == 200
    assert len(records(log, "predict")) == 1


def test_without_its_writer_the_app_is_not_ready(engine: Engine, log: Path) -> None:
    near, far = socket.socketpair()
    ends = list[socket.socket]()

    def stand_in() -> None:
        _, (number,), *_ = socket.recv_fds(far, 1, 1)
        ends.append(socket.socket(fileno=number))
        ends[0].sendall(bytes(32))

    thread = threading.Thread(target=stand_in)
    thread.start()
    with far, running_app(engine, audit=Audit(file=log, writer=near.detach())) as url:
        thread.join()
        assert httpx.get(f"{url}/readyz").status_code == 200
        ends[0].close()
        deadline = time.monotonic() + 20
        while (reply := httpx.get(f"{url}/readyz")).status_code == 200:
            assert time.monotonic() < deadline
        assert reply.json()["detail"] == "No request can be recorded."


def test_a_log_that_ended_well_is_signed_to_its_end(
    engine: Engine, log: Path, upper: bytes
) -> None:
    for _ in range(2):
        with running_app(engine, audit=Audit(file=log)) as url:
            httpx.post(f"{url}/predict", content=upper, headers=OCTETS)
    found = verify_log(log)
    assert (found.verdict, found.lines, found.signed) == ("pass", 6, 5)


def test_two_apps_cannot_write_one_log(audited: httpx.Client, engine: Engine, log: Path) -> None:
    with (
        pytest.raises(UsageError, match="written by another server"),
        running_app(engine, audit=Audit(file=log)),
    ):
        pass


def test_settings_are_checked() -> None:
    asked = resolve(None, {}, ["audit.file=a.jsonl", "audit.checkpoint_seconds=2"])
    assert asked.audit == Audit(file=Path("a.jsonl"), checkpoint_seconds=2.0)
    with pytest.raises(ConfigError, match="checkpoint_seconds must be from"):
        resolve(None, {}, ["audit.checkpoint_seconds=0"])


class Load:
    """Four clients that ask until they are told to stop, whatever they are answered."""

    def __init__(self, url: str, body: bytes) -> None:
        self.answered, self.refused, self.stopped = [0] * 4, 0, False
        asking = [(url, body, number) for number in range(4)]
        self.threads = [threading.Thread(target=self.ask, args=a, daemon=True) for a in asking]
        for thread in self.threads:
            thread.start()

    def ask(self, url: str, body: bytes, number: int) -> None:
        with httpx.Client(base_url=url, timeout=20) as client:
            while not self.stopped:
                with suppress(httpx.TransportError):
                    answered = predict(client, body).status_code == 200
                    self.answered[number] += answered
                    self.refused += not answered

    def wait_for(self, more: int) -> None:
        until, deadline = sum(self.answered) + more, time.monotonic() + 60
        while sum(self.answered) < until:
            assert time.monotonic() < deadline, "the app answers no more"
            time.sleep(0.005)

    def stop(self) -> int:
        self.stopped = True
        for thread in self.threads:
            thread.join()
        return sum(self.answered)


@contextmanager
def served(
    model: Path, log: Path, workers: int = 0, before: str = ""
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-c", before + SERVE, str(model), str(log), str(workers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            lines = iter(server.stdout.readline, "")
            yield server, next(line.strip() for line in lines if line.startswith("http"))
        finally:
            server.kill()


def test_all_answers_of_a_server_that_was_killed_are_in_its_log(
    model: Path, log: Path, upper: bytes
) -> None:
    with served(model, log) as (server, url):
        load = Load(url, upper)
        load.wait_for(20)
        server.kill()
        answered = load.stop()
    Writer(log).close()  # as the next server does
    assert answered <= len(records(log, "predict")) <= answered + 4
    assert verify_log(log).verdict == "pass"


def test_workers_and_their_writer_may_be_killed_and_no_answer_is_lost(
    model: Path, log: Path, upper: bytes
) -> None:
    with served(model, log, workers=2) as (server, url):
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
        load = Load(url, upper)
        for kind in ("purpleteam.serve.worker", "-c"):
            load.wait_for(20)
            for number in children.read_text().split():
                if kind.encode() in Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0"):
                    os.kill(int(number), signal.SIGKILL)
                    break
            assert server.stdout
            assert "SIGKILL" in (said := server.stdout.readline()) or "started again" in said
            load.wait_for(20)
        answered = load.stop()
        server.terminate()
        assert server.wait(20) == 0
    assert answered <= len(records(log, "predict")) <= answered + load.refused + 2 * 4
    assert verify_log(log).verdict == "pass"


def test_a_full_disk_is_got_over_in_the_sandbox_too(model: Path, log: Path, upper: bytes) -> None:
    with (
        served(model, log, before=FULL_DISK) as (server, url),
        httpx.Client(base_url=url) as client,
    ):
        server.send_signal(signal.SIGUSR1)
        answered = 0
        while predict(client, upper).status_code == 200:
            answered += 1
        assert predict(client, upper).status_code == 503
        server.send_signal(signal.SIGUSR2)
        assert [predict(client, upper).status_code for _ in range(2)] == [200, 200]
        confined = client.get("/version").json()["sandbox"]
        server.terminate()
        server.wait(20)
    assert [line["lines"] for line in records(log, "unanswered")] == [1] * confined
    # The line that was not whole is a checkpoint where one was due just then, else a request's.
    assert 0 <= len(records(log, "predict")) - (answered + 2) <= confined
    assert verify_log(log).verdict == "pass"


def test_a_log_is_moved_away_under_load_and_another_begins(
    model: Path, log: Path, upper: bytes
) -> None:
    old = log.parent / "2026-11"
    old.mkdir()
    with served(model, log, workers=2) as (server, url):
        load = Load(url, upper)
        load.wait_for(20)
        for file in log.parent.glob(f"{log.name}*"):
            file.rename(old / file.name)
        server.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 60
        while not (log.exists() and records(log, "predict")):
            assert time.monotonic() < deadline, "no other log begins"
            time.sleep(0.02)
        load.wait_for(20)
        answered = load.stop()
        server.terminate()
        assert server.wait(20) == 0 and server.stdout
        assert "the audit log was moved: another begins\n" in server.stdout.readlines()
    logs = (old / log.name, log)
    assert answered <= sum(len(records(one, "predict")) for one in logs)
    assert [verify_log(one).verdict for one in logs] == ["pass", "pass"]


def test_a_moved_log_whose_checkpoints_stayed_goes_on_and_says_why(log: Path) -> None:
    writer = Writer(log, 0.01, process=True)
    assert writer.renew() == ""
    while not log.with_name(f"{log.name}.checkpoints").stat().st_size:
        time.sleep(0.005)
    log.rename(log.with_name("moved.jsonl"))
    assert "no other can begin: audit log" in writer.renew()
    assert writer.alive()
    writer.close()


def test_the_check_passes_on_the_app_and_fails_where_nothing_is_recorded(
    engine: Engine, log: Path
) -> None:
    audit = Audit(file=log, checkpoint_seconds=0.02)
    with running_app(engine, audit=audit) as url:
        result = run_check(CHECKS["web.audit"](), Target(url=url, audit=log))
    assert result.verdict == "pass", (result.measured, result.message)
    assert result.negative_control == {"ran": True, "failed_as_required": True}


def test_the_check_fails_where_the_log_tells_the_client(
    engine: Engine, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = Audit(file=log, checkpoint_seconds=0.02)
    monkeypatch.setattr(AuditClient, "digest", lambda _, body: hashlib.sha256(body).hexdigest())
    with running_app(engine, audit=audit) as url:
        seen = CHECKS["web.audit"]().examine(Target(url=url, audit=log))
    assert not seen.passed and seen.measured["told"] == [hashlib.sha256(STROKE).hexdigest()[:16]]
