"""The description of the app, what is described beside predictions, and batches."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path

import httpx
import numpy as np
import pytest

from purpleteam.core.errors import ConfigError
from purpleteam.serve.app import ASSETS, routes_of
from purpleteam.serve.disclosure import Disclosure
from purpleteam.serve.engine import Engine
from purpleteam.serve.guards.rate import RateLimit
from purpleteam.serve.main import running_app
from purpleteam.serve.settings import Limits, Settings, resolve

OCTETS = {"content-type": "application/octet-stream"}
FILE = resources.files("purpleteam.serve") / "static" / "openapi.json"
DESCRIPTION = json.loads(FILE.read_bytes())
FREE = RateLimit(at_once=10**6, per_second=10.0**6, per_day=10**9)
SOON = (datetime.now(UTC) + timedelta(days=90)).date().isoformat()


def test_all_routes_and_no_others_are_described(engine: Engine) -> None:
    static = DESCRIPTION["paths"]["/static/{file}"]["parameters"][0]["schema"]["enum"]
    assert {f"/static/{name}" for name in static} == set(ASSETS) - {"/"}
    described = {
        (path, method.upper())
        for path, methods in DESCRIPTION["paths"].items()
        for method in methods
        if method != "parameters" and path != "/static/{file}"
    }
    served = {
        (route.path, method)
        for route in routes_of(engine, Settings())
        for method in (route.methods or ()) - {"HEAD"}
        if not route.path.startswith("/static/")
    }
    assert served == described


def test_bounds_are_those_of_the_app() -> None:
    of = {name: DESCRIPTION["paths"][name]["post"] for name in ("/predict", "/predict/batch")}
    schemas = {
        name: post["requestBody"]["content"]["application/octet-stream"]["schema"]
        for name, post in of.items()
    }
    assert schemas["/predict"]["maxLength"] == Limits().body_bytes
    assert schemas["/predict/batch"]["maxLength"] == 784 * Limits().batch_images


def test_the_description_is_served(client: httpx.Client) -> None:
    assert client.get("/openapi.json").json() == DESCRIPTION


def test_schemathesis_finds_no_failure(engine: Engine, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file"]
    command += [str(Path(__file__).with_name("schemathesis.toml")), "run"]
    command += ["--no-color", "--generation-deterministic", "--max-examples", "3"]
    if not Path(command[0]).exists():
        pytest.skip("needs schemathesis")
    how = {"cwd": tmp_path, "capture_output": True, "text": True}
    known = Disclosure(contact="tel:1", expires=SOON)
    with running_app(engine, rate=FREE, disclosure=known, without=("abuse",)) as url:
        asking = subprocess.run([*command, "--url", url, str(FILE)], check=False, **how)
    assert asking.returncode == 0, asking.stdout
    assert "11 selected / 11 total" in asking.stdout and "Failures:" not in asking.stdout


def test_search_engines_are_asked_to_stay_away(client: httpx.Client) -> None:
    assert client.get("/robots.txt").text == "User-agent: *\nDisallow: /\n"


def test_security_txt_is_there_where_a_contact_is_set(engine: Engine, client: httpx.Client) -> None:
    assert client.get("/.well-known/security.txt").status_code == 404
    told = Disclosure(contact="mailto:a@example.org", expires=SOON)
    with running_app(engine, disclosure=told) as url:
        reply = httpx.get(f"{url}/.well-known/security.txt")
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.text == f"Contact: mailto:a@example.org\nExpires: {SOON}T00:00:00+00:00\n"


def test_security_txt_ends_with_its_day(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Disclosure(contact="mailto:a@example.org", expires=SOON)
    assert told.text()
    object.__setattr__(told, "expires", "2020-01-01")
    assert told.text() is None


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"contact": "a@example.org", "expires": SOON}, "is not https://, mailto: or tel:"),
        ({"contact": "mailto:a@example.org\nX: y", "expires": SOON}, "is not https://"),
        ({"contact": "mailto:a@example.org"}, "expires is needed"),
        ({"contact": "mailto:a@example.org", "expires": "2020-01-01"}, "is not in the future"),
        ({"contact": "mailto:a@example.org", "expires": "soon"}, "is no day such as"),
        ({"expires": SOON}, "contact is needed"),
        ({"contact": "tel:1", "expires": SOON, "policy": "http://a"}, "is not https://"),
    ],
)
def test_a_wrong_contact_is_a_clear_error(values: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        resolve(None, {"disclosure": values})


def images(count: int) -> bytes:
    """Strokes in the upper and lower half, empty and full pages, again and again."""
    kinds = np.zeros((4, 28, 28), np.uint8)
    kinds[0, 5:8, 6:22] = kinds[1, 20:23, 6:22] = kinds[3] = 255
    return b"".join(kinds[number % 4].tobytes() for number in range(count))


def batch(url: str, body: bytes) -> httpx.Response:
    return httpx.post(f"{url}/predict/batch", content=body, headers=OCTETS)


@pytest.mark.parametrize("exposed", [False, True])
def test_a_batch_is_answered_as_its_images_alone(engine: Engine, exposed: bool) -> None:
    body = images(64)
    with running_app(engine, rate=FREE, expose_confidences=exposed) as url:
        reply = batch(url, body)
        alone = [
            httpx.post(f"{url}/predict", content=body[at : at + 784], headers=OCTETS).json()
            for at in range(0, 8 * 784, 784)
        ]
    assert reply.status_code == 200
    answers = reply.json()["answers"]
    assert len(answers) == 64 and answers[:8] == answers[56:] == alone
    assert [answer["label"] for answer in alone[:4]] == [0, 1, None, None]


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (bytes(783), 400), (bytes(785), 400), (bytes(65 * 784), 413), (bytes(10**6), 413)],
)
def test_another_size_is_refused(url: str, body: bytes, status: int) -> None:
    assert batch(url, body).status_code == status


def test_single_images_keep_their_cap(url: str) -> None:
    assert httpx.post(f"{url}/predict", content=images(2), headers=OCTETS).status_code == 413


def test_a_batch_of_n_counts_as_n(engine: Engine) -> None:
    with running_app(engine, rate=RateLimit(at_once=5, per_second=0.01)) as url:
        assert [batch(url, images(3)).status_code for _ in range(2)] == [200, 429]
