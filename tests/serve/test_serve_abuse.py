"""Who asks as an attacker asks is slowed down for a while; others are not."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from purpleteam.defences.detection.queries import Watch
from purpleteam.serve.engine import Engine
from purpleteam.serve.guards.abuse import SLOWED, Abuse, Suspicion
from purpleteam.serve.guards.visit import Refusal, Visit
from purpleteam.serve.main import running_app
from purpleteam.serve.settings import Settings, resolve

QUICK = Suspicion(watch=Watch(allowance=0.25, alarm=2.0))


def noise(count: int, seed: int = 0) -> list[bytes]:
    return [
        row.tobytes()
        for row in np.random.default_rng(seed).integers(0, 256, (count, 784), np.uint8)
    ]


class Clock:
    """Ask the guard at times of our choosing."""

    def __init__(self, suspicion: Suspicion, engine: Engine) -> None:
        async def nothing(*_: object) -> None:
            """Answer nothing."""

        self.guard = Abuse(nothing, Settings(abuse=suspicion), engine)
        self.images = iter(noise(5000))

    def ask(self, now: float, *, address: str = "192.0.2.1", key: str | None = None) -> Visit:
        visit = Visit({}, address, key=key, body=next(self.images))
        self.guard._look(visit, now)
        return visit

    def alarm(self, now: float) -> None:
        while "abuse" not in self.ask(now).told:
            pass


@pytest.fixture
def clock(engine: Engine) -> Iterator[Clock]:
    return Clock(QUICK, engine)


def test_an_attacker_is_refused_with_the_seconds_to_wait(engine: Engine) -> None:
    with running_app(engine, abuse=QUICK) as url, httpx.Client(base_url=url) as client:
        headers = {"content-type": "application/octet-stream"}
        replies = [client.post("/predict", content=one, headers=headers) for one in noise(6)]
    assert [reply.status_code for reply in replies] == [200, 200, 200, 429, 429, 429]
    assert replies[-1].json()["detail"] == SLOWED
    assert replies[-1].headers["retry-after"] == "1"


def test_one_answer_in_a_while_is_given_and_the_while_doubles(clock: Clock) -> None:
    clock.alarm(100.0)
    with pytest.raises(Refusal):
        clock.ask(100.9)
    clock.ask(101.1)
    with pytest.raises(Refusal):
        clock.ask(102.0)
    client = next(iter(clock.guard.clients.values()))
    pauses = []
    for minute in range(2, 400):
        clock.ask(100.0 + 60.1 * minute)
        pauses.append(client.pause)
    assert sorted(set(pauses)) == [1, 2, 4, 8, 16, 32, 60]


def test_who_stops_is_forgiven(clock: Clock) -> None:
    clock.alarm(100.0)
    for tenth in range(2):
        clock.ask(800.0 + tenth / 10)


def test_a_client_is_its_key_else_its_address(clock: Clock) -> None:
    clock.alarm(100.0)
    clock.ask(100.1, address="192.0.2.2")
    clock.ask(100.1, key="someone")
    with pytest.raises(Refusal):
        clock.ask(100.2)


def test_clients_are_kept_to_a_number(engine: Engine) -> None:
    clock = Clock(Suspicion(clients=10), engine)
    for number in range(50):
        clock.ask(1.0, address=f"192.0.2.{number}")
    assert len(clock.guard.clients) == 10


def test_the_log_names_the_sign_and_nobody(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "purpleteam.serve"):
        clock.alarm(100.0)
    (line,) = caplog.messages
    assert "no_drawing" in line
    assert "192.0.2.1" not in line


def test_images_of_a_batch_are_each_looked_at(clock: Clock) -> None:
    visit = Visit({}, "192.0.2.7", body=b"".join(noise(10)))
    clock.guard._look(visit, 5.0)
    assert visit.told["abuse"] == "no_drawing"


def test_settings_in_a_file_reach_the_watch() -> None:
    asked = resolve(None, {}, ["abuse.watch.alarm=50", "abuse.pause=2.5"])
    assert asked.abuse.watch.alarm == 50
    assert asked.abuse.pause == 2.5
