"""Who asks, how often, and with which key: the guards client, rate and keys around the app."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import purpleteam.serve.checks  # noqa: F401 - registers them
from purpleteam.core.checks import CHECKS, Target
from purpleteam.core.errors import Absent, ConfigError, UsageError
from purpleteam.serve import keys
from purpleteam.serve.checks import _web
from purpleteam.serve.engine import Engine
from purpleteam.serve.guards.client import Client, Proxies
from purpleteam.serve.guards.rate import RateLimit
from purpleteam.serve.guards.visit import Visit
from purpleteam.serve.guards.watch import Watching
from purpleteam.serve.main import listen, running_app
from purpleteam.serve.settings import Settings, resolve

TLS = ssl.create_default_context()  # made once: it takes longer than a request
OCTETS = {"content-type": "application/octet-stream"}
THREE = RateLimit(at_once=3, per_second=0.01, per_day=100)
DAY_OF_3 = RateLimit(per_day=3)
ASKING = (  # in the order in which they run
    *("web.budget", "web.errors-clean", "web.fair-share", "web.feedback"),
    *("web.forwarded-ignored", "web.method-not-allowed", "web.no-confidences", "web.rate-limit"),
    "web.size-cap",
)
BEHIND = Proxies(trusted=("127.0.0.0/8", "10.0.0.0/8", "2001:db8:ffff::/48"))


def ask(url: str, pixels: bytes, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(f"{url}/predict", content=pixels, headers=OCTETS | named, verify=TLS)


def from_elsewhere(url: str, pixels: bytes) -> int:
    transport = httpx.HTTPTransport(local_address="127.0.0.9")
    with httpx.Client(transport=transport) as client:
        return client.post(f"{url}/predict", content=pixels, headers=OCTETS).status_code


def seen(proxies: Proxies, **headers: str) -> str:
    """Return the address that is counted of what comes from loopback with these headers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    visit = Visit(named, "127.0.0.1")

    async def app(*_: object) -> None:
        """Answer nothing."""

    guard = Client(app, Settings(proxies=proxies), engine=None)  # type: ignore[arg-type]
    asyncio.run(guard({"visit": visit}, None, None))  # type: ignore[arg-type]
    return visit.address


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.jsonl"


def test_more_than_at_once_is_429_that_says_when(engine: Engine, upper: bytes) -> None:
    with running_app(engine, rate=THREE) as url:
        replies = [ask(url, upper) for _ in range(4)]
    assert [reply.status_code for reply in replies] == [200, 200, 200, 429]
    *_, last = replies
    told = [f'"burst";r={left}, "day";r={97 + left}' for left in (2, 1, 0)]
    assert [reply.headers["ratelimit"] for reply in replies[:3]] == told
    assert 90 < int(last.headers["retry-after"]) <= 100
    assert last.headers["ratelimit"] == f'"burst";r=0;t={last.headers["retry-after"]}'
    assert last.headers["ratelimit-policy"] == '"burst";q=3;w=300, "day";q=100;w=86400'
    assert last.headers["content-type"] == "application/problem+json"
    assert last.json()["title"] == "Too Many Requests"


def test_the_days_budget_ends_at_midnight(engine: Engine, upper: bytes) -> None:
    with running_app(engine, rate=DAY_OF_3) as url:
        *_, before, last = [ask(url, upper) for _ in range(4)]
    assert before.status_code == 200 and last.status_code == 429
    assert 0 < int(last.headers["retry-after"]) <= 86_400
    assert last.headers["ratelimit"].startswith('"day";r=0;t=') and "0:00 UTC" in last.text


def test_an_address_is_limited_alone_and_pages_are_free(engine: Engine, upper: bytes) -> None:
    with running_app(engine, rate=THREE) as url:
        assert [ask(url, upper).status_code for _ in range(4)][-1] == 429
        assert from_elsewhere(url, upper) == 200
        assert {httpx.get(f"{url}/livez").status_code for _ in range(6)} == {200}


def test_without_the_guard_nobody_is_limited(engine: Engine, upper: bytes) -> None:
    with running_app(engine, rate=THREE, without=("rate",)) as url:
        assert {ask(url, upper).status_code for _ in range(6)} == {200}


def test_a_stranger_who_claims_other_addresses_gains_nothing(engine: Engine, upper: bytes) -> None:
    with running_app(engine, rate=THREE) as url:
        replies = [ask(url, upper, x_forwarded_for=f"192.0.2.{n}") for n in range(4)]
    assert replies[-1].status_code == 429


@pytest.mark.parametrize(
    ("told", "as_if"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:8080", "192.0.2.1"),
        ("198.51.100.7, 192.0.2.1", "192.0.2.1"),  # the left one is what the client says
        ("192.0.2.1, 10.1.2.3", "192.0.2.1"),  # two proxies of ours
        ("192.0.2.1, junk, 10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3::4, 2001:db8:ffff::1", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::9]:80", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("junk", "127.0.0.1"),
        ("", "127.0.0.1"),
    ],
)
def test_a_trusted_proxy_is_believed_from_the_right(told: str, as_if: str) -> None:
    assert seen(BEHIND, x_forwarded_for=told) == as_if


@pytest.mark.parametrize(
    ("told", "as_if"),
    [
        ("for=192.0.2.1;proto=https", "192.0.2.1"),
        ('for=198.51.100.7, By=x;FOR="[2001:db8:1:2::9]:80"', "2001:db8:1:2::/64"),
        ("for=198.51.100.7, for=_hidden", "127.0.0.1"),
        ('for="a,b"', "127.0.0.1"),
    ],
)
def test_forwarded_is_read_where_proxies_write_it(told: str, as_if: str) -> None:
    behind = Proxies(trusted=BEHIND.trusted, header="forwarded")
    assert seen(behind, forwarded=told, x_forwarded_for="203.0.113.9") == as_if


def test_only_a_trusted_proxy_is_believed() -> None:
    assert seen(Proxies(trusted=("10.0.0.0/8",)), x_forwarded_for="192.0.2.1") == "127.0.0.1"


def test_the_header_that_the_proxy_does_not_write_is_the_clients_own() -> None:
    assert seen(BEHIND, forwarded="for=203.0.113.9") == "127.0.0.1"


@pytest.mark.parametrize("trusted", ["everybody", "10.0.0.1/8", ""])
def test_a_proxy_that_is_no_network_is_refused(trusted: str) -> None:
    with pytest.raises(ConfigError, match=f"trusted '{trusted}' is no address or network"):
        resolve(None, {}, [f'proxies.trusted=["{trusted}"]'])


def test_with_keys_each_question_needs_one(engine: Engine, upper: bytes, file: Path) -> None:
    _, token = keys.add(file)
    _, metrics = keys.add(file, scopes=["metrics"])
    _, ended = keys.add(file, expires="2026-01-01")
    with running_app(engine, keys=file) as url:
        replies = {
            "none": ask(url, upper),
            "right": ask(url, upper, authorization=f"Bearer {token}"),
            "in small letters": ask(url, upper, authorization=f"bearer {token}"),
            "wrong": ask(url, upper, authorization=f"Bearer {token[:-3]}abc"),
            "ended": ask(url, upper, authorization=f"Bearer {ended}"),
            "password": ask(url, upper, authorization="Basic YTpi"),
            "no base64": ask(url, upper, authorization="Basic ID:SECRET"),
            "of metrics": ask(url, upper, authorization=f"Bearer {metrics}"),
        }
        with_key = url.replace("//", f"//{token.replace('.', ':')}@")
        assert ask(with_key, upper).status_code == 200
        assert httpx.get(url).status_code == httpx.get(f"{url}/livez").status_code == 200
    statuses = {name: reply.status_code for name, reply in replies.items()}
    told = {name: reply.headers.get("www-authenticate") for name, reply in replies.items()}
    wrong = (401, 'Bearer error="invalid_token"')
    assert {name: (statuses[name], told[name]) for name in replies} == {
        "none": (401, "Bearer"),
        "right": (200, None),
        "in small letters": (200, None),
        "wrong": wrong,
        "ended": wrong,
        "password": wrong,
        "no base64": wrong,
        "of metrics": (403, 'Bearer error="insufficient_scope", scope="predict"'),
    }
    assert replies["wrong"].content == replies["ended"].content == replies["none"].content


def test_without_the_guard_a_file_of_keys_keeps_nobody_out(
    engine: Engine, upper: bytes, file: Path
) -> None:
    keys.add(file)
    with running_app(engine, keys=file, without=("keys",)) as url:
        assert ask(url, upper).status_code == 200


def test_wrong_keys_are_limited_and_right_ones_are_not_held_up(
    engine: Engine, upper: bytes, file: Path
) -> None:
    _, token = keys.add(file)
    _, own = keys.add(file, at_once=5)
    with running_app(engine, keys=file, rate=THREE) as url:
        guesses = [ask(url, upper, authorization=f"Bearer a.{n}").status_code for n in range(4)]
        by_key = [ask(url, upper, authorization=f"Bearer {token}").status_code for _ in range(4)]
        by_own = [ask(url, upper, authorization=f"Bearer {own}").status_code for _ in range(6)]
    assert guesses == [401, 401, 401, 429]
    assert by_key == [200, 200, 200, 429]
    assert by_own == [200] * 5 + [429]


def test_an_app_with_keys_can_be_checked_with_one(engine: Engine, file: Path) -> None:
    id, _, secret = keys.add(file)[1].partition(".")
    with running_app(engine, keys=file) as url:
        with_key = url.replace("//", f"//{id}:{secret}@")
        for name in (*ASKING, "web.headers", "web.keys", "web.request-ids"):
            outcome = CHECKS[name]().examine(Target(url=with_key))
            assert outcome.passed, (name, outcome.measured)
            assert secret not in str(outcome)
        with pytest.raises(Absent, match="would slow down all other checks"):
            CHECKS["web.abuse"]().examine(Target(url=with_key))


@pytest.mark.parametrize("scope", [None, "metrics"])
def test_what_a_check_has_no_key_for_it_does_not_judge(
    engine: Engine, file: Path, scope: str | None
) -> None:
    id, _, secret = keys.add(file, scopes=[scope or "predict"])[1].partition(".")
    with running_app(engine, keys=file) as url:
        given = url.replace("//", f"//{id}:{secret}@") if scope else url
        for name in ("web.abuse", "web.audit", *ASKING):
            with pytest.raises(Absent, match="asks for a key: put one"):
                CHECKS[name]().examine(Target(url=given, audit=file))


def test_metrics_need_a_key_of_their_own_scope(engine: Engine, file: Path) -> None:
    tokens = {"metrics": keys.add(file, scopes=["metrics"])[1], "predict": keys.add(file)[1]}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with running_app(engine, keys=file, watch=Watching(metrics_port=port)):
        metrics = f"http://127.0.0.1:{port}/metrics"
        statuses = [httpx.get(metrics).status_code]
        for token in tokens.values():
            headers = {"authorization": f"Bearer {token}"}
            statuses.append(httpx.get(metrics, headers=headers).status_code)
    assert statuses == [401, 200, 403]


def test_beyond_loopback_it_wants_keys_or_an_explicit_yes(engine: Engine, file: Path) -> None:
    with pytest.raises(UsageError, match="--keys FILE, or allow anybody: --allow-remote"):
        listen("0.0.0.0", 0, False)
    keys.add(file)
    for allowed in (Settings(keys=file), Settings(allow_remote=True)):
        assert allowed.lets_others_in
    assert not Settings().lets_others_in


def test_a_file_of_keys_that_is_none_is_refused_at_the_start(engine: Engine, file: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; make one: purple keys add"):
        running_app(engine, keys=file).__enter__()


def test_a_password_of_redis_is_in_no_repr() -> None:
    settings = resolve(None, {}, ["rate.redis=redis://:secret@127.0.0.1"])
    assert settings.rate.redis and "secret" not in repr(settings)


def test_two_apps_on_one_redis_count_together(engine: Engine, upper: bytes, redis_url: str) -> None:
    shared = RateLimit(at_once=4, per_second=0.01, redis=redis_url)
    with running_app(engine, rate=shared) as first, running_app(engine, rate=shared) as second:
        replies = [ask(url, upper).status_code for url in (first, second) * 3]
    assert replies == [200] * 4 + [429] * 2


def test_an_app_goes_on_by_its_own_count_when_redis_is_away(engine: Engine, upper: bytes) -> None:
    alone = RateLimit(at_once=2, per_second=0.01, redis="redis://127.0.0.1:1")
    with running_app(engine, rate=alone) as url:
        assert [ask(url, upper).status_code for _ in range(3)] == [200, 200, 429]


ASKERS = 4
SERVED = """
from purpleteam.serve.guards.rate import RateLimit
from purpleteam.serve.main import serve
from purpleteam.serve.settings import Settings
from purpleteam.serve.supervisor import Workers
rate = RateLimit(at_once=20, per_second=50, per_day=10**6)
settings = Settings(port=0, rate=rate, workers=Workers(count={count}))
serve({model!r}, settings, lambda url: print(url, flush=True))
"""


@contextmanager
def served(model: Path, count: int) -> Iterator[str]:
    program = SERVED.format(model=str(model), count=count)
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
            process.communicate(timeout=20)


def answered(url: str, pixels: bytes, seconds: float) -> int:
    """Ask on ever new connections, which workers share; return how often there was an answer."""
    until, count = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        count += _web.ask(url, "POST", "/predict", pixels).status == 200
        time.sleep(0.02)
    return count


@pytest.mark.parametrize("count", [1, 4])
def test_the_limit_holds_within_5_percent_however_many_workers(
    model: Path, upper: bytes, count: int
) -> None:
    with served(model, count) as url, ThreadPoolExecutor(ASKERS) as askers:

        def all_ask(seconds: float) -> int:
            asking = [askers.submit(answered, url, upper, seconds) for _ in range(ASKERS)]
            return sum(each.result() for each in asking)

        all_ask(1)  # all workers are there then, and what may be asked at once is spent
        began = time.monotonic()
        assert all_ask(3) == pytest.approx(50 * (time.monotonic() - began), rel=0.05)
