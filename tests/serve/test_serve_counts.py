"""How much each client has asked, in memory and in Redis: the same rules, within 5 percent."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator
from subprocess import PIPE, Popen

import pytest

from purpleteam.core.errors import UsageError
from purpleteam.serve.counts import PLACES, Allowance, Counts, SharedCounts, Told, away, new_file

Take = Callable[[str, Allowance, int], Told]
SLOW = Allowance(at_once=5, per_second=0.001, per_day=100)
FAST = Allowance(at_once=10**6, per_second=10**6, per_day=12)
WORKER = """
import asyncio, sys, time
from purpleteam.serve.counts import Allowance, Counts, SharedCounts
where = sys.argv[1]
local = Counts(int(where)) if where.isdigit() else Counts()
shared = None if where.isdigit() else SharedCounts(where, local)
asked = "crowd", Allowance(at_once=20, per_second=50, per_day=10**6)
async def take():
    return local.take(*asked) if shared is None else await shared.take(*asked)
async def ask():
    passed = 0
    await take()
    print("ready", flush=True)
    begin = float(sys.stdin.readline())
    end = begin + 2
    while (now := time.monotonic()) < end:
        told = await take()
        passed += told.wait == 0 and now > begin
        await asyncio.sleep(0.002)
    return passed
print(asyncio.run(ask()))
"""


@pytest.fixture(params=["memory", "redis"])
def take(request: pytest.FixtureRequest) -> Iterator[Take]:
    """What takes (client, allowance, images) of either store."""
    if request.param == "memory":
        yield Counts().take
        return
    shared = SharedCounts(request.getfixturevalue("redis_url"), Counts())
    with asyncio.Runner() as runner:
        yield lambda *asked: runner.run(shared.take(*asked))
        runner.run(shared.close())


def test_so_many_are_let_through_at_once(take: Take) -> None:
    waits = [take("one", SLOW, 1).wait for _ in range(7)]
    assert waits[:5] == [0] * 5 and 0 < waits[5] <= 1000 and waits[6] > 0


def test_it_is_told_what_is_left(take: Take) -> None:
    assert take("told", SLOW, 2) == (0, 3, 98)
    assert take("told", SLOW, 3) == (0, 0, 95)
    assert take("told", SLOW, 1)[1:] == (0, 95)


def test_who_waits_as_long_as_was_said_is_let_through(take: Take) -> None:
    brisk = Allowance(at_once=2, per_second=20, per_day=100)
    while not (wait := take("brisk", brisk, 1).wait):
        pass
    time.sleep(wait)
    assert take("brisk", brisk, 1).wait == 0


def test_the_day_ends_at_midnight(take: Take) -> None:
    assert [take("day", FAST, 4).wait for _ in range(3)] == [0] * 3
    told = take("day", FAST, 1)
    assert told.wait == pytest.approx(86_400 - time.time() % 86_400, abs=2) and told.today == 0


def test_a_new_day_begins_a_new_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, now = Counts(), time.time()
    assert [counts.take("one", FAST, 12).wait > 0 for _ in range(2)] == [False, True]
    monkeypatch.setattr(time, "time", lambda: now + 86_400)
    assert counts.take("one", FAST, 12) == (0, FAST.at_once - 12, 0)


def test_a_refused_request_costs_nothing(take: Take) -> None:
    take("refused", SLOW, 5)
    first, second = take("refused", SLOW, 1), take("refused", SLOW, 1)
    assert second.wait == pytest.approx(first.wait, abs=1) and second.today == 95


def test_one_request_for_more_than_at_once_is_owed_for(take: Take) -> None:
    assert take("batch", SLOW, 50).wait == 0
    assert take("batch", SLOW, 1).wait == pytest.approx(46_000, abs=1)


def test_clients_do_not_share_what_they_may_ask(take: Take) -> None:
    assert take("first", SLOW, 5).wait == take("second", SLOW, 5).wait == 0


@pytest.mark.parametrize("store", ["table", "redis"])
def test_four_workers_keep_the_rate_within_5_percent(
    store: str, request: pytest.FixtureRequest
) -> None:
    file = new_file()
    where = str(file) if store == "table" else request.getfixturevalue("redis_url")
    command, pipes = [sys.executable, "-c", WORKER, where], {"stdin": PIPE, "stdout": PIPE}
    workers = [Popen(command, text=True, pass_fds=[file], **pipes) for _ in range(4)]
    assert [worker.stdout and worker.stdout.readline() for worker in workers] == ["ready\n"] * 4
    begin = f"{time.monotonic() + 0.5}\n"  # until then they spend what may be asked at once
    for worker in workers:
        assert worker.stdin
        worker.stdin.write(begin)
        worker.stdin.flush()
    passed = [int(worker.communicate()[0]) for worker in workers]
    os.close(file)
    assert sum(passed) == pytest.approx(2 * 50, rel=0.05) and min(passed) > 0


def test_a_full_table_forgets_only_who_has_paid() -> None:
    counts, busy = Counts(), Allowance(at_once=1000, per_second=0.001, per_day=10**6)
    for number in range(8):
        counts.take(f"busy {number}", busy, 1000)
    for number in range(PLACES // 4):
        counts.take(str(number), SLOW, 1)
    assert all(counts.take(f"busy {number}", busy, 1).wait > 0 for number in range(8))


def test_counts_go_on_in_memory_while_redis_is_away(caplog: pytest.LogCaptureFixture) -> None:
    async def ask() -> list[float]:
        shared = SharedCounts("redis://:secret@127.0.0.1:1", Counts())
        waits = [(await shared.take("one", SLOW)).wait for _ in range(6)]
        await shared.close()
        return waits

    waits = asyncio.run(ask())
    assert waits[:5] == [0] * 5 and waits[5] > 0
    assert len(caplog.messages) == 1 and "redis://127.0.0.1:1 does not answer" in caplog.text


def test_at_the_start_it_is_said_that_redis_is_away(redis_url: str) -> None:
    assert away(redis_url) == ""
    why = away("redis://:secret@127.0.0.1:1")
    assert why == "redis 'redis://127.0.0.1:1' does not answer: ConnectionError"
    with pytest.raises(UsageError, match="redis 'http://there' is no redis://HOST:PORT"):
        away("http://:secret@there")


def test_a_password_of_redis_is_not_shown() -> None:
    with pytest.raises(UsageError, match="redis 'http://there'") as error:
        SharedCounts("http://:secret@there", Counts())
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("name", ["at_once", "per_second", "per_day"])
def test_a_limit_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be"):
        Allowance(**{name: 0})
