"""Ids, log lines and metrics."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from purpleteam.core.errors import ConfigError, UsageError
from purpleteam.serve import loglines
from purpleteam.serve.engine import Engine
from purpleteam.serve.guards.watch import Watching
from purpleteam.serve.loglines import LogLines
from purpleteam.serve.main import running_app
from purpleteam.serve.settings import resolve
from purpleteam.serve.tally import DAY, Tally, new_file

OCTETS = {"content-type": "application/octet-stream"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def lines_of(engine: Engine, log: Path, upper: bytes, **settings: Any) -> list[dict[str, Any]]:
    """What is logged of a page, a digit, a refusal and a foreign path."""
    with (
        running_app(engine, watch=Watching(log=str(log), **settings)) as url,
        httpx.Client(base_url=url, headers={"user-agent": "Secret/1"}) as client,
    ):
        client.get("/?name=hidden")
        client.post("/predict", content=upper, headers={**OCTETS, "x-request-id": "mine"})
        client.post("/predict", content=b"short", headers=OCTETS)
        client.get("/no/such/secret/path")
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_a_line_says_how_a_request_ended(engine: Engine, upper: bytes, tmp_path: Path) -> None:
    page, answer, short, path = lines_of(engine, tmp_path / "log", upper)
    assert set(answer) == {"time", "id", "method", "route", "status", "ms", "bytes", "client"}
    assert (answer["method"], answer["route"], answer["status"]) == ("POST", "/predict", 200)
    assert answer["bytes"] == len('{"label":0}') and 0 < answer["ms"] < 1000
    assert (short["status"], short["refused"]) == (400, "app")
    assert (path["route"], path["status"]) == ("other", 404)
    assert len({line["id"] for line in (page, answer, short, path)}) == 4


def test_no_line_holds_what_identifies_or_was_drawn(
    engine: Engine, upper: bytes, tmp_path: Path
) -> None:
    lines_of(engine, tmp_path / "log", upper)
    text = (tmp_path / "log").read_text()
    for secret in ("127.0.0.1", "Secret", "hidden", "secret", "mine", "label", "short"):
        assert secret not in text
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_answers_are_told_where_it_is_asked_for(
    engine: Engine, upper: bytes, tmp_path: Path
) -> None:
    _, answer, *_ = lines_of(engine, tmp_path / "log", upper, answers=True)
    assert answer["label"] == 0


def test_the_id_of_a_line_is_that_of_its_response(engine: Engine, tmp_path: Path) -> None:
    with running_app(engine, watch=Watching(log=str(tmp_path / "log"))) as url:
        reply = httpx.get(f"{url}/livez", headers={"x-request-id": "mine"})
    assert json.loads((tmp_path / "log").read_text())["id"] == reply.headers["x-request-id"]


def test_a_client_is_the_same_all_day_and_another_one_tomorrow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = new_file()
    first, second = Tally([("a",)], file), Tally([("a",)], file)
    today = first.secret()
    assert second.secret() == today == first.secret() and len(set(today)) > 8
    tomorrow = time.time() + DAY
    monkeypatch.setattr(time, "time", lambda: tomorrow)
    assert second.secret() == first.secret() != today
    os.close(file)


def test_totals_are_those_of_all_processes_and_outlive_them() -> None:
    file, key = new_file(), ("requests", "/")
    counting = f"from purpleteam.serve.tally import Tally; Tally([{key}], {file}).add({key}, 3)"
    subprocess.run([sys.executable, "-c", counting], pass_fds=(file,), check=True)
    mine = Tally([key], file)
    mine.add(key)
    mine.add(("unknown",))
    assert mine.totals() == {key: 4}
    os.close(file)


def test_a_log_that_cannot_be_written_is_a_clear_error(engine: Engine, tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"watch\.log: cannot write to .*: no such file"),
        running_app(engine, watch=Watching(log=str(tmp_path / "absent" / "log"))),
    ):
        pass


def test_a_log_that_nobody_reads_drops_lines_and_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loglines, "MOST_WAITING", 3)
    log = LogLines(str(tmp_path / "log"))
    with log._writing:  # as a disk that does not answer
        for number in range(10):
            log.add(str(number))
    log.close()
    assert (tmp_path / "log").read_text().splitlines() == ["0", "1", "2", '{"dropped": 7}']


def test_lines_are_written_while_the_app_runs(engine: Engine, tmp_path: Path) -> None:
    log, written = tmp_path / "log", threading.Event()
    with running_app(engine, watch=Watching(log=str(log))) as url:
        httpx.get(f"{url}/livez")
        until = time.monotonic() + 5
        while not log.read_text() and time.monotonic() < until:
            written.wait(0.01)
        assert json.loads(log.read_text())["route"] == "/livez"


def metrics_of(engine: Engine, upper: bytes, **settings: Any) -> tuple[dict[Any, float], str]:
    port = free_port()
    with running_app(engine, watch=Watching(metrics_port=port, **settings)) as url:
        for body in (upper, upper, bytes(784), b"short"):
            httpx.post(f"{url}/predict", content=body, headers=OCTETS)
        assert httpx.get(f"{url}/metrics").status_code == 404
        reply = httpx.get(f"http://127.0.0.1:{port}/metrics")
        assert httpx.get(f"http://127.0.0.1:{port}/").status_code == 404
        evil = httpx.get(f"http://127.0.0.1:{port}/metrics", headers={"host": "evil.example"})
        assert evil.status_code == 400
    families = text_string_to_metric_families(reply.text)
    samples = [sample for family in families for sample in family.samples]
    found = {(one.name, *dict(sorted(one.labels.items())).values()): one.value for one in samples}
    return found, reply.text


def test_metrics_count_requests_answers_refusals_and_seconds(engine: Engine, upper: bytes) -> None:
    found, text = metrics_of(engine, upper)
    assert found["purple_requests_total", "/predict", "200"] == 3
    assert found["purple_requests_total", "/predict", "400"] == 1
    assert found["purple_requests_total", "other", "404"] == 1
    assert found["purple_answers_total", "a label"] == 2
    assert found["purple_answers_total", "empty"] == 1
    assert found["purple_refusals_total", "app"] == 2
    assert found["purple_request_seconds_bucket", "+Inf", "/predict"] == 4
    assert 0 < found["purple_request_seconds_sum", "/predict"] < 5
    assert engine.card.digest in text and "purple_labels_total{" not in text


PROGRAM = """
from purpleteam.serve.guards.watch import Watching
from purpleteam.serve.main import serve
from purpleteam.serve.settings import Settings
from purpleteam.serve.supervisor import Workers
settings = Settings(port=0, workers=Workers(count=2), watch=Watching(metrics_port={port}))
serve({model!r}, settings, lambda url: print(url, flush=True))
"""


def test_workers_are_counted_together(model: Path, upper: bytes) -> None:
    port = free_port()
    command = [sys.executable, "-c", PROGRAM.format(model=str(model), port=port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        for _ in range(16):
            httpx.post(f"{url}/predict", content=upper, headers=OCTETS)
        told = [httpx.get(f"http://127.0.0.1:{port}/metrics").text for _ in range(4)]
        process.terminate()
        process.communicate(timeout=20)
    assert all('purple_requests_total{route="/predict",status="200"} 16.0' in text for text in told)


def test_labels_are_counted_where_answers_are_told(engine: Engine, upper: bytes) -> None:
    found, _ = metrics_of(engine, upper, answers=True)
    assert found["purple_labels_total", "0"] == 2


def test_a_port_that_is_none_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match="metrics_port must be from 0 to 65535, not 99999"):
        resolve(None, {}, ["watch.metrics_port=99999"])
