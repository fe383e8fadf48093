"""The crowd: who goes when there is no room, and whose request is answered next."""

from dataclasses import dataclass, field
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purpleteam.serve.crowd import Crowd
from purpleteam.serve.settings import Limits


@dataclass(eq=False)
class Client:
    crowd: Crowd
    address: object
    idle: bool = True
    age: float = 0.0
    waits_since: float = 0.0
    gone: list = field(default_factory=list)

    def is_idle(self):
        return self.idle

    def cut(self):
        self.crowd.leave(self)
        self.gone.append(self)


class Loop:
    """Calls back when it is told to, once for each turn."""

    def __init__(self):
        self.due = []

    def call_soon(self, call, *given):
        self.due.append((call, given))

    def turn(self):
        due, self.due = self.due, []
        for call, arguments in due:
            call(*arguments)


AGES = st.floats(0, 3).filter(lambda age: abs(age - Limits().at_work_seconds) > 0.1)
"""Not at the very bound, which the clock passes while the test runs."""
CLIENTS = st.lists(st.tuples(st.integers(0, 3), st.booleans(), AGES), max_size=12)


def expected(limits, clients, new):
    """Return who goes, as the rule says it: nobody, or `new` itself where nobody else may."""
    count = {one.address: sum(o.address == one.address for o in clients) for one in clients}
    if count[new.address] > limits.connections_each:
        crowd = [one for one in clients if one.address == new.address]
    elif len(clients) > limits.connections:
        crowd = [one for one in clients if count[one.address] == max(count.values())]
    else:
        return None
    may_go = [o for o in crowd if o is not new and (o.idle or o.age > limits.at_work_seconds)]
    return min(may_go, key=lambda o: (not o.idle, -o.age), default=new)


@given(CLIENTS, st.integers(0, 3), st.integers(1, 5), st.integers(1, 8))
def test_the_longest_waiting_of_those_with_too_many_goes(rows, address, each, most):
    limits = Limits(connections_each=each, connections=most)
    crowd, now = Crowd(limits), monotonic()
    rows = sorted(
        {age: (number, idle, age) for number, idle, age in rows}.values(), key=lambda r: -r[2]
    )
    clients = [Client(crowd, number, idle, age) for number, idle, age in rows]
    for one in [*clients, new := Client(crowd, address)]:
        crowd.enter(one)
        crowd.wait(one)
        one.waits_since = now - one.age
    stays = crowd.make_room(new)
    gone = [one for one in clients if one.gone]
    goes = expected(limits, [*clients, new], new)
    assert stays == (goes is not new)
    assert gone == ([] if goes in (None, new) else [goes])


def test_whoever_begins_to_wait_anew_is_the_last_to_go():
    crowd = Crowd(Limits(connections=2))
    first, second, third = (Client(crowd, "a") for _ in range(3))
    for one in (first, second):
        crowd.enter(one)
        crowd.wait(one)
    crowd.wait(first)
    crowd.enter(third)
    assert crowd.make_room(third)
    assert (first.gone, second.gone) == ([], [second])


def test_who_has_left_counts_no_longer_however_often_it_says_so():
    crowd = Crowd(Limits(connections=1))
    first, second = Client(crowd, "a"), Client(crowd, "b")
    crowd.enter(first)
    crowd.leave(first)
    crowd.leave(first)
    crowd.wait(first)
    crowd.enter(second)
    assert crowd.make_room(second)
    assert not first.gone


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=20))
def test_each_turn_of_the_loop_answers_one_request_and_addresses_take_turns(addresses):
    crowd, loop, answered = Crowd(Limits()), Loop(), []
    for number, address in enumerate(addresses):
        crowd.queue(loop, address, lambda found=(address, number): answered.append(found))
    for turn in range(1, len(addresses) + 1):
        loop.turn()
        assert len(answered) == turn
    assert not loop.due
    assert sorted(answered, key=lambda found: found[1]) == list(
        zip(addresses, range(len(addresses)), strict=True)
    )
    present = len(set(addresses))
    assert len({address for address, _ in answered[:present]}) == present


def test_one_request_waits_for_one_of_a_flood_and_not_for_all():
    crowd, loop, answered = Crowd(Limits()), Loop(), []
    for _ in range(500):
        crowd.queue(loop, "flood", lambda: answered.append("flood"))
    loop.turn()
    crowd.queue(loop, "polite", lambda: answered.append("polite"))
    loop.turn()
    loop.turn()
    assert answered == ["flood", "flood", "polite"]


def test_what_fails_in_an_answer_does_not_stop_the_next():
    crowd, loop, answered = Crowd(Limits()), Loop(), []
    crowd.queue(loop, "a", lambda: 1 / 0)
    crowd.queue(loop, "b", lambda: answered.append("b"))
    with pytest.raises(ZeroDivisionError):
        loop.turn()
    loop.turn()
    assert answered == ["b"]
