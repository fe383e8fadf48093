"""The routes: what is answered to what."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from purpleteam.serve.app import ASSETS, Predict, read_assets
from purpleteam.serve.engine import Answer, Engine
from purpleteam.serve.main import running_app

OCTETS = {"content-type": "application/octet-stream"}


def predict(client: httpx.Client, body: bytes, **headers: str) -> httpx.Response:
    return client.post("/predict", content=body, headers={**OCTETS, **headers})


def test_784_bytes_are_answered_with_the_label_alone(client: httpx.Client, upper: bytes) -> None:
    reply = predict(client, upper)
    assert (reply.status_code, reply.json()) == (200, {"label": 0})
    assert reply.headers["cache-control"] == "no-store"


def test_no_ink_is_answered_with_empty(client: httpx.Client) -> None:
    assert predict(client, bytes(784)).json() == {"label": None, "reason": "empty"}


def test_a_white_page_is_answered_with_not_a_digit(client: httpx.Client) -> None:
    assert predict(client, b"\xff" * 784).json() == {"label": None, "reason": "not_a_digit"}


def test_confidences_come_only_where_they_are_exposed(engine: Engine, upper: bytes) -> None:
    with running_app(engine, expose_confidences=True) as url, httpx.Client(base_url=url) as client:
        answer = predict(client, upper).json()
        assert set(answer) == {"label", "confidences"}
        assert sum(answer["confidences"]) == pytest.approx(1, abs=1e-4)
        assert "confidences" not in predict(client, bytes(784)).json()


def test_images_that_come_together_are_looked_at_together(model: str, upper: bytes) -> None:
    class Watched(Engine):
        def classify_all(self, images: Sequence[bytes]) -> list[Answer]:
            looks.append(len(images))
            return super().classify_all(images)

    async def asked(number: int) -> list[Answer]:
        return await asyncio.gather(*[predicted.answer(upper) for _ in range(number)])

    async def all_asked() -> None:
        for number in (1, 20, 1, 1):
            assert [found.label for found in await asked(number)] == [0] * number

    looks: list[int] = []
    predicted = Predict(Watched.load(str(model)), expose_confidences=False)
    asyncio.run(all_asked())
    assert looks == [1, 8, 8, 4, 1, 1]


def test_one_look_that_fails_is_told_to_all_who_asked_and_the_next_is_none(
    model: str, upper: bytes
) -> None:
    async def asked() -> list[Answer | BaseException]:
        return await asyncio.gather(
            *[predicted.answer(upper) for _ in range(3)], return_exceptions=True
        )

    predicted = Predict(Engine.load(str(model)), expose_confidences=False)
    session, predicted.engine._session = predicted.engine._session, None
    assert [type(found) for found in asyncio.run(asked())] == [AttributeError] * 3
    predicted.engine._session = session
    assert [found.label for found in asyncio.run(asked())] == [0] * 3


@pytest.mark.parametrize("length", [0, 1, 783])
def test_a_short_body_is_400(client: httpx.Client, length: int) -> None:
    assert predict(client, bytes(length)).status_code == 400


@pytest.mark.parametrize("length", [785, 100_000])
def test_a_long_body_is_413(client: httpx.Client, length: int) -> None:
    assert predict(client, bytes(length)).status_code == 413


@pytest.mark.parametrize("kind", ["", "image/png", "application/json", "multipart/form-data"])
def test_another_type_is_415(client: httpx.Client, upper: bytes, kind: str) -> None:
    reply = client.post("/predict", content=upper, headers={"content-type": kind} if kind else {})
    assert reply.status_code == 415


def test_an_encoded_body_is_415(client: httpx.Client, upper: bytes) -> None:
    assert predict(client, upper, **{"content-encoding": "gzip"}).status_code == 415


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/predict", 405),
        ("POST", "/", 405),
        ("PUT", "/predict", 405),
        ("TRACE", "/", 405),
        ("DELETE", "/nothing", 404),
        ("GET", "/secrets", 404),
        ("GET", "/static/", 404),
        ("GET", "/static/../app.py", 404),
        ("GET", "/static/%2e%2e/app.py", 404),
        ("GET", "/predict/", 404),
    ],
)
def test_errors_are_problem_documents_of_constant_text(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    reply = client.request(method, path)
    assert reply.status_code == status
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json()["status"] == status and path not in reply.json()["detail"].split()


def test_live_ready_and_version(client: httpx.Client, engine: Engine) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}
    facts = client.get("/version").json()
    assert (facts["model"], facts["digest"]) == ("tiny", engine.card.digest)
    assert facts["classes"] == [str(digit) for digit in range(10)]


def test_not_ready_where_the_model_answers_otherwise_than_at_the_start(model: str) -> None:
    engine = Engine.load(str(model))
    engine._golden = engine._golden + 1
    with running_app(engine) as url:
        assert httpx.get(f"{url}/readyz").status_code == 503


def test_a_route_that_crashes_is_a_problem_document_and_the_last_answer(model: str) -> None:
    engine = Engine.load(str(model))
    engine._session = None
    with running_app(engine) as url:
        reply = httpx.get(f"{url}/readyz")
    assert reply.status_code == 500 and reply.headers["connection"] == "close"
    assert reply.json()["detail"] == "The server could not answer."


@pytest.mark.parametrize("path", sorted(ASSETS))
def test_files_come_with_type_and_tag_and_are_sent_once(client: httpx.Client, path: str) -> None:
    first = client.get(path)
    assert first.content == read_assets()[path]
    assert first.headers["content-type"] == ASSETS[path][1]
    again = client.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_whole_page_is_below_80_kilobytes() -> None:
    assert sum(len(content) for content in read_assets().values()) < 80_000


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=1600), kind=st.sampled_from([*OCTETS.values(), "text/plain", ""]))
def test_no_body_brings_a_5xx(client: httpx.Client, body: bytes, kind: str) -> None:
    reply = client.post("/predict", content=body, headers={"content-type": kind})
    assert reply.status_code in (200, 400, 413, 415)
