"""What the page says in a real browser: of every answer, and of a server that gives none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from serve_browser import BOTTOM, answer, draw, on_screen, opened, says

from purpleteam.serve.engine import Engine
from purpleteam.serve.feedback import Feedback
from purpleteam.serve.main import running_app

pytestmark = pytest.mark.browser
expect = pytest.importorskip("playwright.sync_api", reason="needs Playwright").expect


def test_the_old_answer_greys_until_the_new_one_is_there(tiny: Any) -> None:
    draw(tiny)
    says(tiny, "Read as 0.")
    result = tiny.locator("#result")
    expect(result).not_to_have_class(re.compile("stale"))
    held: list[Any] = []
    tiny.route("**/predict", lambda route: held.append(route))
    tiny.mouse.move(*on_screen(tiny, [(140, 200)])[0])
    tiny.mouse.down()
    expect(result).to_have_class(re.compile("stale"))
    tiny.mouse.up()
    says(tiny, "Waiting for the server …")
    held[0].fulfill(json={"label": 1})
    says(tiny, "Read as 1.")
    expect(result).not_to_have_class(re.compile("stale"))


def test_an_answer_to_an_older_drawing_is_never_shown(tiny: Any) -> None:
    held: list[Any] = []
    tiny.route("**/predict", lambda route: held.append(route))
    with tiny.expect_request("**/predict"):
        draw(tiny)
    with tiny.expect_event("requestfailed", timeout=4000):  # sooner than it is given up
        draw(tiny, [(140, 140), (140, 240)])
    says(tiny, "Waiting for the server …")
    held[1].fulfill(json={"label": 7})
    says(tiny, "Read as 7.")


NO_SENSE = "The answer of the server makes no sense."
ANSWERS: list[tuple[dict[str, Any], str, str]] = [
    ({"json": {"label": None, "reason": "unsure", "nearest": 7}}, "Nearest 7, not sure.", ""),
    ({"json": {"label": None, "reason": "unsure"}}, "Not sure what this is.", ""),
    ({"json": {"label": None, "reason": "empty"}}, "There is too little ink to read.", ""),
    ({"json": {"label": 12}}, NO_SENSE, "So it is not shown."),
    ({"json": {"label": "<b>3</b>"}}, NO_SENSE, "So it is not shown."),
    ({"json": {"label": 3, "confidences": 7}}, NO_SENSE, "So it is not shown."),
    ({"json": None}, NO_SENSE, "So it is not shown."),
    ({"body": "<p>Welcome"}, NO_SENSE, "So it is not shown."),
    ({"status": 403, "json": {"detail": "<i>No.</i>"}},
     "The server refused the drawing (403).", "<i>No.</i>"),
    ({"status": 500, "body": ""}, "The server is in trouble (500).", "Your drawing is fine."),
]  # fmt: skip


def test_each_answer_has_its_words_and_each_failure_a_way_on(tiny: Any) -> None:
    retry = tiny.locator("#retry")
    for given, words, more in ANSWERS:
        answer(tiny, **given)
        draw(tiny)
        says(tiny, words)
        if more:
            expect(tiny.locator("#hint")).to_have_text(more)
        assert retry.is_visible() == bool(more), given
        tiny.locator("#clear").click()
    tiny.unroute_all()
    draw(tiny)
    says(tiny, "Read as 0.")
    answer(tiny, status=500, body="")
    draw(tiny, [(60, 60)])
    says(tiny, "The server is in trouble (500).")
    tiny.unroute_all()
    retry.click()
    says(tiny, "Read as 0.")


def test_a_hanging_server_is_given_up_after_five_seconds(tiny: Any) -> None:
    tiny.route("**/predict", lambda _: None)
    with tiny.expect_request("**/predict"):
        draw(tiny)
    with tiny.expect_event("requestfailed"):
        tiny.clock.run_for(5000)
    says(tiny, "No answer within 5 seconds.")
    tiny.unroute_all(behavior="ignoreErrors")
    tiny.locator("#retry").click()
    says(tiny, "Read as 0.")


def test_a_limit_is_counted_down_and_nothing_asked_meanwhile(tiny: Any) -> None:
    answer(tiny, status=429, headers={"retry-after": "30"}, json={})
    draw(tiny)
    says(tiny, "Too many questions for now.")
    tiny.clock.run_for(9500)
    expect(tiny.locator("#countdown")).to_have_text(re.compile(r"Asking again in (19|2\d) s\."))
    asked = len(tiny.asked)
    draw(tiny, BOTTOM)
    tiny.clock.run_for(1000)
    assert len(tiny.asked) == asked
    tiny.unroute_all()
    tiny.clock.run_for(20000)
    says(tiny, "Read as 1.")


def test_a_key_is_asked_for_sent_and_forgotten(tiny: Any) -> None:
    def locked(route: Any) -> None:
        if route.request.headers.get("authorization") == "Bearer right":
            route.continue_()
        else:
            route.fulfill(status=401, json={})

    tiny.route("**/predict", locked)
    draw(tiny)
    says(tiny, "This server asks for an API key.")
    for key, words in [("wrong", "That key was not accepted."), ("right", "Read as 0.")]:
        tiny.keyboard.type(key)  # the field has the focus
        tiny.keyboard.press("Enter")
        says(tiny, words)
    assert tiny.locator("#key").input_value() == ""


def test_a_server_that_was_gone_and_is_another_now_is_said(tiny: Any) -> None:
    tiny.context.set_offline(True)
    draw(tiny)
    says(tiny, "The server does not answer.")
    facts = {"model": "other", "digest": "sha256:0", "classes": list("0123456789")}
    tiny.route("**/version", lambda route: route.fulfill(json=facts))
    tiny.context.set_offline(False)
    says(tiny, "Read as 0.")
    expect(tiny.locator("#news")).to_have_text(
        "The server was restarted, and its model is now other."
    )


def test_that_is_wrong_sends_two_labels_and_no_drawing(tiny: Any) -> None:
    draw(tiny)
    says(tiny, "Read as 0.")
    tiny.locator("#wrong").click()
    with tiny.expect_request("**/feedback*") as sent:
        tiny.locator("#choices").get_by_text("8", exact=True).click()
    assert sent.value.url.endswith("/feedback?said=0&meant=8")
    assert sent.value.post_data_buffer is None
    thanks = tiny.locator("#thanks")
    expect(thanks).to_have_text("Counted; the drawing is not kept. Thank you.")


def test_a_drawing_is_kept_only_where_the_visitor_ticks(
    desk: Any, engine: Engine, tmp_path: Path
) -> None:
    settings = {"feedback": Feedback(file=tmp_path / "wrong.jsonl"), "without": ("rate",)}
    with running_app(engine, **settings) as address, opened(desk, address):
        for ticked in (False, True):
            draw(desk)
            says(desk, "Read as 0.")
            desk.locator("#wrong").click()
            desk.locator("#keep").set_checked(ticked)
            desk.get_by_role("button", name="no digit").click()
            expect(desk.locator("#thanks")).to_contain_text("is kept" if ticked else "is not kept")
            desk.locator("#clear").click()
    assert len((tmp_path / "wrong.jsonl").read_text().splitlines()) == 1


def test_confidences_are_shown_only_where_they_are_exposed(desk: Any, engine: Engine) -> None:
    for exposed in (False, True):
        with (
            running_app(engine, expose_confidences=exposed, without=("rate",)) as address,
            opened(desk, address),
        ):
            draw(desk)
            says(desk, "Read as 0.")
            assert desk.locator("#bars li").count() == (10 if exposed else 0)
            assert desk.locator("#confidences").is_visible() == exposed
