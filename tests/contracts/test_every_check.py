"""What every executed check promises: it names itself, and its bad example makes it fail."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from pathlib import Path

import pytest

from purpleteam.core.checks import CHECKS, Target, run_check
from purpleteam.verbs.threats import load_checks

load_checks()
FIELDS = {field.name for field in dataclasses.fields(Target)}
pytestmark = pytest.mark.parametrize("name", list(CHECKS))


def test_it_is_registered_under_its_own_id(name: str) -> None:
    room, separator, rest = CHECKS[name].id.partition(".")
    assert CHECKS[name].id == name
    assert separator and room.islower() and rest == rest.lower()


def test_it_proves_one_sentence(name: str) -> None:
    proves = CHECKS[name].proves
    assert proves[0].isupper() and proves.endswith(".") and "\n" not in proves
    assert CHECKS[name].__doc__


def test_it_needs_parts_that_a_target_has(name: str) -> None:
    needs = CHECKS[name].needs
    assert needs and set(needs) <= FIELDS


def test_without_what_it_needs_it_is_skipped_and_says_so(name: str) -> None:
    found = run_check(CHECKS[name](), Target())
    assert found.verdict == "skipped" and found.message == f"needs {', '.join(CHECKS[name].needs)}"
    assert found.negative_control == {"ran": False, "failed_as_required": False}


def test_its_bad_example_makes_it_fail(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = CHECKS[name]()
    with check.bad_target(tmp_path) as bad:
        # It is its own negative control: what is slow to start is started once.
        monkeypatch.setattr(check, "bad_target", lambda _: nullcontext(bad))
        found = run_check(check, bad)
    assert found.negative_control == {"ran": True, "failed_as_required": True}
    assert found.verdict == "fail", found.message
    assert found.proves == check.proves and found.check == name
