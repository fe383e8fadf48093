"""Checks of who may ask, and how much; each asks from an address that no other check uses."""

import http.client
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from purpleteam.core.address import USER
from purpleteam.core.checks import CHECKS, Outcome, Target
from purpleteam.core.scratch import scratch
from purpleteam.serve.checks._web import (
    OCTETS,
    STROKE,
    Reply,
    WebCheck,
    ask,
    credentials,
    endpoint,
    left_out,
    line_to,
    must_answer,
    web_check,
)
from purpleteam.serve.guards.client import Proxies
from purpleteam.serve.guards.rate import RateLimit

MOST_AT_ONCE = 200  # questions; whoever lets more through at once has no limit worth the name
LONGEST_PAUSE = 5  # seconds until a client that asked too fast is served again
LEFT_TODAY = re.compile(r'"day";r=(\d+)')
ANYBODY = Proxies(trusted=("0.0.0.0/0", "::/0"))


class Client:
    """Somebody who asks on one connection, from an address of its own where the app is local."""

    def __init__(self, line: http.client.HTTPConnection, headers: Mapping[str, str]) -> None:
        self._line, self._headers = line, {**OCTETS, **headers}

    def ask(self, path: str = "/predict", body: bytes = STROKE, /, **headers: str) -> Reply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._line.request("POST", path, body, self._headers | named)
        with self._line.getresponse() as response:
            told = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, told, response.read())


@contextmanager
def client_at(address: str, url: str) -> Iterator[Client]:
    """Yield a client; for an app elsewhere, or where this machine lacks the address, our own."""
    line = line_to(url)
    if endpoint(url)[0].startswith("127."):
        own = line_to(url, (address, 0))
        with suppress(OSError):
            own.connect()
            line = own
    with closing(line):
        yield Client(line, credentials(url))


@web_check("web.rate-limit", left_out("rate"))
def rate_limit(url: str) -> Outcome:
    """Whoever asks too fast is refused alone, told when to come again, and served then."""
    must_answer(url)
    with client_at("127.0.0.11", url) as hasty:
        last = _until_refused(hasty)
        pause = _pause(last)
        is_other = not credentials(url)  # a key is one client wherever it asks from
        other = ask(url, "POST", "/predict", STROKE).status if is_other else "not asked"
        if last.status == 429 and pause <= LONGEST_PAUSE:
            time.sleep(pause)
        after = hasty.ask().status
    return Outcome(
        passed=last.status == 429
        and pause <= LONGEST_PAUSE
        and other in (200, "not asked")
        and after == 200,
        measured={
            "at last": last.status,
            "retry-after": last.headers.get("retry-after", ""),
            "another client": other,
            "after the pause": after,
        },
        threshold=f"429 within {MOST_AT_ONCE} questions, then 200 and, in {LONGEST_PAUSE} s, 200",
    )


def _pause(last: Reply) -> int:
    """Return how many seconds a refusal asks for."""
    asked = last.headers.get("retry-after", "")
    return int(asked) if asked.isdigit() else LONGEST_PAUSE + 1


def rest(url: str, last: Reply) -> None:
    """Wait until one may ask again, where the next check is the same client: by its key."""
    if credentials(url) and last.status == 429:
        time.sleep(min(_pause(last), LONGEST_PAUSE))


def _until_refused(client: Client, **headers: str) -> Reply:
    """Ask until a question is not answered; return what was told, which no clock changes."""
    for number in range(MOST_AT_ONCE):
        named = {name: value.format(number % 250) for name, value in headers.items()}
        if (reply := client.ask(**named)).status != 200:
            break
    return reply


@web_check("web.forwarded-ignored", left_out(proxies=ANYBODY))
def forwarded_ignored(url: str) -> Outcome:
    """A client that claims another address with each question is limited all the same."""
    must_answer(url)
    with client_at("127.0.0.12", url) as liar:
        last = _until_refused(
            liar, x_forwarded_for="192.0.2.{}", forwarded="for=192.0.2.{}", x_real_ip="192.0.2.{}"
        )
    rest(url, last)
    measured = {"at last": last.status}
    threshold = f"429 within {MOST_AT_ONCE} questions"
    return Outcome(passed=last.status == 429, measured=measured, threshold=threshold)


@web_check("web.budget", left_out("rate"))
def budget(url: str) -> Outcome:
    """What is left of the day is told with each answer, counted down, and refused once spent."""
    must_answer(url)
    from purpleteam.serve.main import running_app

    with client_at("127.0.0.13", url) as client:
        told = [client.ask().headers.get("ratelimit", "") for _ in range(3)]
    left = [int(match[1]) if (match := LEFT_TODAY.search(text)) else -1 for text in told]
    with running_app(rate=RateLimit(per_day=2)) as own:
        replies = [ask(own, "POST", "/predict", STROKE) for _ in range(3)]
    statuses = [reply.status for reply in replies]
    counted = left[0] - 1 == left[1] == left[2] + 1
    return Outcome(
        passed=counted and statuses == [200, 200, 429] and "retry-after" in replies[-1].headers,
        measured={"left": left, "with a budget of 2": statuses},
        threshold="one less each time; 200, 200, 429 with Retry-After",
    )


@CHECKS.register("web.keys")
class Keys(WebCheck):
    """With a file of keys, a question needs one that is known, valid and meant for it.

    An app that is reached from elsewhere than loopback must ask for one, too.
    """

    _without: tuple[str, ...] = ()

    def examine(self, target: Target) -> Outcome:
        from purpleteam.serve import keys
        from purpleteam.serve.main import running_app

        url = str(target.url)
        anonymous = ask(USER.sub("", url), "POST", "/predict", STROKE).status
        is_local = endpoint(url)[0] in ("127.0.0.1", "::1", "localhost")
        with tempfile.TemporaryDirectory(prefix="purple-keys-", dir=scratch()) as folder:
            file = Path(folder) / "keys.jsonl"
            right, revoked = keys.add(file)[1], keys.add(file)
            keys.revoke(file, revoked[0].id)
            tokens = {
                "right": right,
                "wrong": right[:-4] + "AAAA",
                "unknown": f"unknown.{right.partition('.')[2]}",
                "expired": keys.add(file, expires="2026-01-01")[1],
                "revoked": revoked[1],
                "of another scope": keys.add(file, scopes=["metrics"])[1],
            }
            given = {name: OCTETS | {"Authorization": f"Bearer {tokens[name]}"} for name in tokens}
            with running_app(keys=file, without=self._without) as own:
                measured: dict[str, Any] = {"none": ask(own, "POST", "/predict", STROKE).status}
                for name, headers in given.items():
                    measured[name] = ask(own, "POST", "/predict", STROKE, headers).status
        wanted = dict.fromkeys(measured, 401) | {"right": 200, "of another scope": 403}
        return Outcome(
            passed=measured == wanted and (is_local or anonymous == 401),
            measured=measured | {"here, without a key": anonymous},
            threshold="200 for the right one, 403 for another scope, else 401",
        )

    @contextmanager
    def bad_target(self, folder: Path) -> Iterator[Target]:
        self._without = ("keys",)
        try:
            with left_out("keys")() as url:
                yield Target(url=url)
        finally:
            self._without = ()
