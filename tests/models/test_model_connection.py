"""How a busy app is waited for, and for how long."""

from __future__ import annotations

import email.utils
import threading
import time

import pytest
import torch
from black_box_tiny import Script, labels_of, scripted
from hypothesis import given
from hypothesis import strategies as st

from purpleteam.core.address import Address
from purpleteam.core.errors import ModelError
from purpleteam.models.endpoint import LONGEST_PAUSE, App, Endpoint, Stopped, pause_before

ONE = torch.zeros(1, 1, 28, 28)


class Busy(Script):
    """Answers every second image with 429."""

    def __init__(self, status: int = 429, retry_after: str | None = "0", every: int = 2) -> None:
        super().__init__(lambda _: {"label": 4})
        self.status, self.retry_after, self.every = status, retry_after, every
        self.asked = 0

    def reply(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if path != "/predict":
            return super().reply(path, body)
        self.asked += 1
        if self.asked % self.every == 0:
            after = {} if self.retry_after is None else {"retry-after": self.retry_after}
            return self.status, after, b"slow down"
        return super().reply(path, body)


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_app_is_asked_again_and_every_image_is_answered(status):
    script = Busy(status)
    with scripted(script) as address:
        model = Endpoint(address, connections=1)
        assert labels_of(model, ONE.expand(6, -1, -1, -1)) == [4] * 6
        assert (model.calls, script.asked) == (7, 13)
        assert model.waited == 0.0
        model._app.close()


def test_what_the_app_asks_for_is_waited_and_reported():
    with scripted(Busy(retry_after=None)) as address:
        model = Endpoint(address)
        started = time.monotonic()
        model(ONE)
        assert 0.25 <= time.monotonic() - started < 5
        assert model.waited == pytest.approx(0.25, abs=0.01)
        model._app.close()


def test_all_connections_rest_while_the_app_is_busy_and_it_counts_once():
    with scripted(Busy(retry_after=None, every=7)) as address:
        model = Endpoint(address, connections=4)
        model(ONE.expand(9, -1, -1, -1))
        assert model.waited == pytest.approx(0.25, abs=0.02)
        model._app.close()


def test_an_app_that_wants_too_long_is_an_error_that_says_how_far_one_got():
    with scripted(Busy(retry_after="3600", every=4)) as address:
        model = Endpoint(address, connections=1)
        with pytest.raises(ModelError) as error:
            model(ONE.expand(9, -1, -1, -1))
    assert str(error.value) == (
        f"{address} is busy (status 429) and asks to wait 3600 s; "
        "the limit for one image is 300 s; 3 images were answered before"
    )


def test_an_app_that_is_always_busy_ends_the_patience():
    script = Busy(every=1)
    enough = pytest.raises(ModelError, match=r"busy .* the limit for one image is 1 s")
    with scripted(script) as address, enough:
        Endpoint(address, patience=1.2)  # at once, after 0.5 s, and 1 s more is too long
    assert script.asked == 3


def test_a_retry_after_may_be_a_date():
    hence = email.utils.formatdate(time.time() + 100, usegmt=True)
    assert 98 <= pause_before(hence, 0) <= 101
    assert pause_before("Wed, 21 Oct 2015 07:28:00 GMT", 0) == 0.0


@pytest.mark.parametrize("amiss", [None, "", "soon", "-3", "1.5", "²"])
def test_without_a_readable_retry_after_each_pause_is_twice_the_last(amiss):
    assert [pause_before(amiss, tries) for tries in range(4)] == [0.25, 0.5, 1.0, 2.0]


@given(st.integers(0, 10_000), st.integers(0, 2000))
def test_no_pause_is_shorter_than_asked_for(asked, tries):
    assert asked <= pause_before(str(asked), tries) <= max(asked, LONGEST_PAUSE)


def test_waits_that_overlap_count_once():
    app = App(Address.of("http://127.0.0.1"), 1, 1)
    app.hold(10)
    app.hold(4)
    app.hold(12)
    assert app.waited == pytest.approx(12, abs=0.05)


def test_who_waits_is_woken_when_nobody_wants_the_answer():
    app = App(Address.of("http://127.0.0.1"), 1, 1)
    app.hold(60)
    threading.Timer(0.05, app.stop.set).start()
    with pytest.raises(Stopped):
        app.wait()


def test_an_idle_connection_that_the_app_closed_is_opened_again():
    script = Script(lambda _: (200, {"connection": "close"}, b'{"label": 1}'))
    with scripted(script) as address:
        model = Endpoint(address)
        assert labels_of(model, ONE) == [1]
    hung_up = Script(lambda _: {"label": 1})
    with scripted(hung_up) as address:
        model = Endpoint(address, connections=1)
        hung_up.predict = _hangs_up_once()
        assert labels_of(model, ONE) == [1]
        assert model.calls == 2
        model._app.close()


def _hangs_up_once():
    answers = iter([(0, {}, b"")])
    return lambda _: next(answers, {"label": 1})


def test_an_app_that_hangs_up_on_a_fresh_connection_is_an_error():
    script = Script(lambda _: {"label": 1})
    with scripted(script) as address:
        model = Endpoint(address, connections=1)
        script.predict = lambda _: (0, {}, b"")
        with pytest.raises(ModelError, match="closed the connection without an answer; 1 images"):
            model(ONE)
    script.seen.clear()
    script.reply = lambda *_: (0, {}, b"")
    with scripted(script) as address, pytest.raises(ModelError, match="without an answer"):
        Endpoint(address)
    assert len(script.seen) == 1
