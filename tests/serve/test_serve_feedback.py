"""What visitors say of wrong answers: counted, and kept only where both sides agree."""

from __future__ import annotations

import base64
import json
import socket
from pathlib import Path

import httpx
import pytest

from purpleteam.core.errors import UsageError
from purpleteam.serve.engine import Engine
from purpleteam.serve.feedback import Feedback
from purpleteam.serve.guards.watch import Watching
from purpleteam.serve.main import running_app
from purpleteam.serve.settings import resolve

WRONG = {"said": "3", "meant": "8"}


def test_a_wrong_answer_is_counted_and_its_drawing_not_kept(
    client: httpx.Client, upper: bytes
) -> None:
    reply = client.post("/feedback", params=WRONG, content=upper)
    assert reply.status_code == 200 and reply.json() == {"kept": False}
    assert client.get("/version").json()["feedback"] == {"keeps": False}


def test_a_drawing_is_kept_where_operator_and_visitor_agree(
    engine: Engine, upper: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "wrong.jsonl"
    with running_app(engine, feedback=Feedback(file=file)) as address:
        assert httpx.get(f"{address}/version").json()["feedback"] == {"keeps": True}
        ask = f"{address}/feedback"
        assert httpx.post(ask, params=WRONG, content=upper).json() == {"kept": True}
        assert httpx.post(ask, params=WRONG).json() == {"kept": False}
    (line,) = file.read_text().splitlines()
    image = base64.b64encode(upper).decode()
    assert json.loads(line) == {"model": engine.card.digest, **WRONG, "image": image}
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_file_does_not_grow_beyond_its_bound(
    engine: Engine, upper: bytes, tmp_path: Path
) -> None:
    bounded = Feedback(file=tmp_path / "wrong.jsonl", most_bytes=2000)
    with running_app(engine, feedback=bounded) as address:
        asked = [httpx.post(f"{address}/feedback", params=WRONG, content=upper) for _ in range(2)]
    assert [reply.json()["kept"] for reply in asked] == [True, False]


@pytest.mark.parametrize(
    "query",
    ["", "said=3", "said=3&meant=3", "said=3&meant=10", "said=<b>&meant=1", "a=1&b=2&c=3", "%ff"],
)
def test_what_is_no_feedback_is_refused(client: httpx.Client, query: str) -> None:
    reply = client.post(f"/feedback?{query}")
    assert reply.status_code == 400 and reply.headers["content-type"] == "application/problem+json"


def test_a_drawing_of_another_size_is_refused(client: httpx.Client) -> None:
    assert client.post("/feedback", params=WRONG, content=b"7").status_code == 400
    assert client.get("/feedback").status_code == 405


def test_a_file_that_cannot_be_written_ends_the_start(engine: Engine, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    for file in (tmp_path / "none" / "wrong.jsonl", link):
        with (
            pytest.raises(UsageError, match=r"cannot write feedback\.file"),
            running_app(engine, feedback=Feedback(file=file)),
        ):
            pass
    assert not (tmp_path / "elsewhere").exists()


def test_it_is_set_like_all_else(tmp_path: Path) -> None:
    settings = resolve(None, {}, [f"feedback.file={tmp_path / 'wrong.jsonl'}"])
    assert settings.feedback == Feedback(file=tmp_path / "wrong.jsonl")


def test_wrong_answers_are_counted_by_what_was_said(engine: Engine) -> None:

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with running_app(engine, watch=Watching(metrics_port=port)) as address:
        for meant in ("8", "none"):
            httpx.post(f"{address}/feedback", params={"said": "3", "meant": meant})
        metrics = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    assert 'purple_wrong_total{said="3"} 2.0' in metrics.splitlines()
