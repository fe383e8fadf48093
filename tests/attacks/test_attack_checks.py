"""model.robust and model.backdoor-rate: what they pass, and all that they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from purpleteam.attacks.checks import BackdoorRate, ModelRobust
from purpleteam.core.checks import Target, run_check
from purpleteam.core.records import CheckResult, Measurement
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.schema import ROLES, model_note
from purpleteam.core.statistics import Rate


def robust(successes: int = 950, *, verdict: str = "sound", **how: Any) -> Measurement:
    return Measurement(
        name="robust_accuracy",
        value=Rate.of(successes, 1000),
        subject={"model": how.pop("model", "sha256:1"), "model_name": how.pop("name", "hardened")},
        how={"knowledge": "white-box", "norm": "linf", "epsilon": 0.3} | how,
        detail={"soundness": {"verdict": verdict}},
    )


def swept(successes: int) -> Measurement:
    return Measurement(
        name="trigger_sweep_rate", value=Rate.of(successes, 1000), subject={"model": "sha256:1"}
    )


def result(check: ModelRobust | BackdoorRate, folder: Path, *found: Measurement) -> CheckResult:
    run = RunFolder.create(folder / "run", {})
    pairs = {(one.subject["model"], one.subject.get("model_name")) for one in found}
    parts = [model_note(digest, name, name) for digest, name in sorted(pairs) if name in ROLES]
    run.cell("attacks", {}, lambda: [*found, *parts])
    return run_check(check, Target(run=run.path))


def test_a_hardened_model_that_withstood_sound_attacks_passes(tmp_path: Path) -> None:
    found = result(ModelRobust(), tmp_path, robust(950), robust(900, attack="apgd_ce"))
    assert found.verdict == "pass"
    assert found.measured["sound"] == 2 and found.measured["epsilon"] == [0.3]
    assert 0.87 < found.measured["lowest_lower_bound"] < 0.9  # the lower end, not the value


@pytest.mark.parametrize(
    "other",
    [
        robust(700),
        robust(700, verdict="weak"),
        robust(300, verdict="weak", attack="fgsm"),
        robust(820, attack="apgd_ce"),  # above the floor, its interval is not
    ],
)
def test_one_attack_that_breaks_it_is_enough_to_fail(tmp_path: Path, other: Measurement) -> None:
    assert result(ModelRobust(), tmp_path, robust(950), other).verdict == "fail"


@pytest.mark.parametrize(
    "only",
    [
        robust(verdict="weak"),
        robust(verdict="not_established"),
        robust(knowledge="transfer"),
        robust(norm="l2"),
        robust(curve=True),
    ],
)
def test_nothing_but_a_sound_white_box_attack_on_itself_passes(
    tmp_path: Path, only: Measurement
) -> None:
    found = result(ModelRobust(), tmp_path, only)
    assert found.verdict == "fail" and "no sound white-box attack" in found.message


def test_where_a_model_was_hardened_no_other_counts(tmp_path: Path) -> None:
    plain = robust(name="baseline", model="sha256:2")
    found = result(ModelRobust(), tmp_path, plain, robust(verdict="weak"))
    assert found.verdict == "fail" and "hardened" in found.message


def test_where_none_was_hardened_the_model_under_test_is_looked_at(tmp_path: Path) -> None:
    found = result(ModelRobust(), tmp_path, robust(950, name="baseline"))
    assert found.verdict == "pass" and set(found.inputs.values()) == {"sha256:1"}
    other = result(ModelRobust(), tmp_path / "other", robust(700, name="baseline"))
    assert other.verdict == "fail"


def test_where_nothing_was_attacked_nothing_is_said(tmp_path: Path) -> None:
    found = result(ModelRobust(), tmp_path, robust(name="served"))
    assert found.verdict == "skipped" and "no attack on the hardened" in found.message


def test_a_number_that_is_not_established_counts_for_nothing(tmp_path: Path) -> None:
    found = result(ModelRobust(), tmp_path, robust(950), robust(10, verdict="not_established"))
    assert found.verdict == "pass"


def test_a_sweep_that_found_nothing_passes(tmp_path: Path) -> None:
    found = result(BackdoorRate(), tmp_path, swept(10))
    assert found.verdict == "pass" and 0.01 < found.measured < 0.05


@pytest.mark.parametrize("successes", [45, 960])  # 4.5 % is below the ceiling, its interval not
def test_a_sweep_that_found_a_trigger_fails(tmp_path: Path, successes: int) -> None:
    assert result(BackdoorRate(), tmp_path, swept(2), swept(successes)).verdict == "fail"


def test_without_a_sweep_no_absence_is_claimed(tmp_path: Path) -> None:
    found = result(BackdoorRate(), tmp_path, robust())
    assert found.verdict == "skipped" and "no sweep" in found.message


@pytest.mark.parametrize("check", [ModelRobust(), BackdoorRate()], ids=["robust", "backdoor"])
def test_each_proves_first_that_it_can_fail(
    tmp_path: Path, check: ModelRobust | BackdoorRate
) -> None:
    assert not check.examine(check.bad_example(tmp_path)).passed
