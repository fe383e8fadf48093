"""Checks: only a check that is known to fail where it must can pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from purpleteam.core.checks import Check, Outcome, Target, run_check
from purpleteam.core.errors import Absent, DataError
from purpleteam.core.records import record_from_json

RAN = {"ran": True, "failed_as_required": True}
USELESS = {"ran": True, "failed_as_required": False}
NOT_RUN = {"ran": False, "failed_as_required": False}


@dataclass
class Said(Check):
    """Says what it was told to of the real target (`good`) and of its bad example (`bad`)."""

    good: Any = True
    bad: Any = False

    id = "test.said"
    proves = "What was said is so."
    needs = ("data",)

    def examine(self, target: Target) -> Outcome:
        said = self.bad if target.data == Path("bad") else self.good
        if isinstance(said, Exception):
            raise said
        return said if isinstance(said, Outcome) else Outcome(passed=said)

    def bad_example(self, folder: Path) -> Target:
        return Target(data=Path("bad"))


@pytest.mark.parametrize(
    ("good", "bad", "verdict", "control"),
    [
        (True, False, "pass", RAN),
        (False, False, "fail", RAN),
        (OSError("no"), False, "error", RAN),
        (True, True, "broken", USELESS),
        (False, True, "broken", USELESS),
        (OSError("no"), True, "broken", USELESS),
        (True, OSError("no"), "broken", NOT_RUN),
        (False, OSError("no"), "broken", NOT_RUN),
        (OSError("no"), OSError("no"), "broken", NOT_RUN),
    ],
)
def test_a_verdict_follows_from_target_and_negative_control(good, bad, verdict, control):
    found = run_check(Said(good=good, bad=bad), Target(data=Path("real")))
    assert (found.verdict, found.negative_control) == (verdict, control)
    assert (found.check, found.proves) == ("test.said", "What was said is so.")
    assert found.cost["seconds"] >= 0


def test_a_check_without_its_target_is_skipped_and_says_what_it_needs():
    found = run_check(Said(), Target(code=Path("src")))
    assert (found.verdict, found.message) == ("skipped", "needs data")
    assert found.negative_control == NOT_RUN


def test_a_check_that_finds_nothing_of_its_kind_is_skipped_and_says_why():
    found = run_check(Said(good=Absent("no model was scanned")), Target(data=Path("real")))
    assert (found.verdict, found.message) == ("skipped", "no model was scanned")
    assert found.negative_control == RAN
    useless = run_check(Said(good=Absent("none"), bad=True), Target(data=Path("real")))
    assert useless.verdict == "broken"


def test_a_result_holds_what_was_seen():
    outcome = Outcome(
        passed=False, measured={"lines": 3}, threshold=4, message="one short", inputs={"f": "sha"}
    )
    found = run_check(Said(good=outcome), Target(data=Path("real")))
    assert (found.measured, found.threshold) == ({"lines": 3}, 4)
    assert (found.message, found.inputs) == ("one short", {"f": "sha"})
    assert record_from_json(found.to_json()) == found


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DataError("the file is\n  torn"), "the file is torn"),
        (KeyError("x"), "KeyError: 'x'"),
        (ValueError("long " * 100), "ValueError: " + ("long " * 58)[:288]),
    ],
)
def test_an_error_is_told_in_one_short_line(error, message):
    assert run_check(Said(good=error), Target(data=Path("real"))).message == message


@pytest.mark.parametrize("measured", [float("inf"), float("nan"), {1, 2}, object()])
def test_a_measurement_that_no_record_can_hold_is_an_error(measured):
    outcome = Outcome(passed=True, measured=measured)
    found = run_check(Said(good=outcome), Target(data=Path("real")))
    assert found.verdict == "error"
    assert found.id.startswith("c-")
    assert found.message


def test_an_interrupt_is_not_swallowed():
    class Interrupted(Said):
        def examine(self, target: Target) -> Outcome:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_check(Interrupted(), Target(data=Path("real")))


def test_the_bad_example_is_made_in_an_empty_folder_that_is_removed():
    seen: list[Path] = []

    class Looks(Said):
        def bad_example(self, folder: Path) -> Target:
            assert list(folder.iterdir()) == []
            seen.append(folder)
            return super().bad_example(folder)

    assert run_check(Looks(), Target(data=Path("real"))).verdict == "pass"
    assert not seen[0].exists()


def test_a_bad_target_is_stopped_again_before_the_real_one_is_examined():
    events: list[str] = []

    class Started(Said):
        @contextmanager
        def bad_target(self, folder: Path) -> Iterator[Target]:
            events.append("started")
            yield Target(data=Path("bad"))
            events.append("stopped")

        def examine(self, target: Target) -> Outcome:
            events.append(f"examined {target.data}")
            return super().examine(target)

    assert run_check(Started(), Target(data=Path("real"))).verdict == "pass"
    assert events == ["started", "examined bad", "stopped", "examined real"]
