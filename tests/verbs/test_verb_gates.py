"""Requirements: the interval's worse end counts; and the files for build servers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from purpleteam.core.errors import UsageError
from purpleteam.core.records import CheckResult, Finding, Measurement, Record
from purpleteam.core.statistics import Rate
from purpleteam.verbs.gate import junit, parse_requirement, require, sarif
from purpleteam.verbs.result import Result

Purple = Callable[..., tuple[int, str, str]]
ATTACK = ("attack", "--model", "net.py:build", "--dataset", "digits", "--limit", 20)
FGSM = (*ATTACK, "--attack", "fgsm", "--epsilon", 0.1)


def measured(name: str, right: int, of: int, **detail: Any) -> Measurement:
    return Measurement(
        name=name,
        value=Rate.of(right, of),
        subject={"model": "sha256:00"},
        how={"norm": "linf", "epsilon": 0.1},
        detail=detail,
    )


ROBUST = measured("robust_accuracy", 90, 100)  # 90 % (82.4 to 95.1)
SUCCESS = measured("attack_success_rate", 10, 100)  # 10 % (4.9 to 17.6)


def passes(text: str, *records: Record) -> bool:
    (verdict,) = require([parse_requirement(text)], records)
    return verdict.passed


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("robust_accuracy>=0.8", True),
        ("robust_accuracy >= 80%", True),
        ("robust_accuracy>=4/5", True),
        ("robust_accuracy>=0.85", False),  # 90 % is above, the lower end of its interval is not
        ("robust_accuracy>0.9", False),
        ("attack_success_rate<=0.2", True),
        ("attack_success_rate<=0.15", False),  # 10 % is below, the upper end is not
        ("attack_success_rate<20%", True),
    ],
)
def test_the_end_of_the_interval_that_is_worse_counts(text: str, passed: bool) -> None:
    assert passes(text, ROBUST, SUCCESS) is passed


def test_every_number_of_that_name_must_reach_it() -> None:
    assert not passes("robust_accuracy>=0.8", ROBUST, measured("robust_accuracy", 50, 100))


def test_what_is_not_established_does_not_pass() -> None:
    sound = {"verdict": "not_established", "reasons": ["the gradient is zero"]}
    record = measured("robust_accuracy", 100, 100, soundness=sound)
    (verdict,) = require([parse_requirement("robust_accuracy>=0.1")], [record])
    assert not verdict.passed
    assert verdict.message == "robust_accuracy is not established: the gradient is zero"


def test_what_was_not_measured_does_not_pass_and_it_is_said_what_was() -> None:
    (verdict,) = require([parse_requirement("certified_accuracy>=0")], [ROBUST, SUCCESS])
    assert not verdict.passed
    assert verdict.message == (
        "certified_accuracy was not measured; measured: attack_success_rate, robust_accuracy"
    )


@pytest.mark.parametrize("text", ["", "robust_accuracy", "robust_accuracy=0.8", ">=1", "a>=b"])
def test_a_requirement_that_is_none_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not of the form metric>=value") as refused:
        parse_requirement(text)
    assert "\n" not in str(refused.value) and repr(text) in str(refused.value)


def test_the_command_ends_with_1_where_one_is_not_reached(purple: Purple) -> None:
    code, out, _ = purple(*FGSM, "--require", "robust_accuracy>=0.99")
    assert code == 1 and "NOT REACHED: robust_accuracy>=0.99: " in out


def test_the_command_ends_with_0_where_all_are_reached(purple: Purple) -> None:
    wanted = ("--require", "robust_accuracy>=0", "--require", "robust_accuracy<=100%")
    code, out, _ = purple(*FGSM, *wanted, "--json")
    assert code == 0
    assert [row["passed"] for row in json.loads(out)["required"]] == [True, True]


def test_a_bad_requirement_is_refused_before_the_work(purple: Purple, here: Path) -> None:
    code, _, err = purple(*FGSM, "--require", "robust accuracy")
    assert code == 2 and err.count("\n") == 1 and "metric>=value" in err
    assert not (here / "runs").exists()


CHECK = CheckResult(check="model.digest", proves="It is the one.", verdict="fail", message="is not")
FINDING = Finding(
    tool="bandit",
    rule="B614",
    severity="high",
    confidence="high",
    message="torch.load \x07 < & >",
    place={"path": "a.py", "line": 3},
)


@dataclass(frozen=True, kw_only=True, repr=False)
class Answer(Result):
    """What a verb returns that has an answer of its own."""

    stage = "defences"
    code: int = 0

    @property
    def exit_code(self) -> int:
        return self.code

    def lines(self) -> list[str]:
        return ["verdict  backdoored", "because  of a patch"]


def test_junit_has_a_test_for_each_requirement_number_check_and_finding() -> None:
    wanted = [parse_requirement("robust_accuracy>=0.8"), parse_requirement("nothing>=1")]
    records = (ROBUST, CHECK, FINDING)
    text = junit("attack", Answer(records=records), require(wanted, records))
    root = ElementTree.fromstring(text)  # noqa: S314
    (suite,) = root.findall("testsuite")
    cases = suite.findall("testcase")
    failed = [case.get("name") for case in cases if case.find("failure") is not None]
    assert (suite.get("tests"), suite.get("failures"), len(cases)) == ("5", "3", 5)
    assert failed == ["require nothing>=1", f"model.digest [{CHECK.id}]", f"B614 [{FINDING.id}]"]
    assert suite.get("name") == "purple attack" and {*map(str, root.attrib)} >= {"tests"}


def test_sarif_holds_findings_failed_checks_and_requirements_not_reached() -> None:
    records = (ROBUST, CHECK, FINDING)
    verdicts = require([parse_requirement("robust_accuracy>=0.9")], records)
    log = json.loads(sarif(Result(records=records), verdicts))
    results = [result for run in log["runs"] for result in run["results"]]
    assert log["version"] == "2.1.0" and len(results) == 3
    assert {result["ruleId"] for result in results} == {"require", "check", "B614"}
    for result in results:
        assert result["level"] in ("note", "warning", "error") and result["message"]["text"]
        assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    for run in log["runs"]:
        tools = [run["tool"]["driver"], *run["tool"]["extensions"]]
        rules = {rule["id"] for tool in tools for rule in tool["rules"]}
        assert {result["ruleId"] for result in run["results"]} <= rules


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_answer_of_a_verb_without_numbers_is_in_both_files(code: int) -> None:
    result = Answer(code=code)
    root = ElementTree.fromstring(junit("detect", result, []))  # noqa: S314
    log = json.loads(sarif(result, []))
    assert (root.get("tests"), root.get("failures")) == ("1", str(int(code > 0)))
    assert [one["ruleId"] for run in log["runs"] for one in run["results"]] == ["answer"] * (
        code > 0
    )
    if code:
        (failure,) = root.iter("failure")
        assert failure.get("message") == "verdict  backdoored; because  of a patch"


def test_both_files_are_written_by_the_command(purple: Purple, here: Path) -> None:
    files = ("--junit", "out/tests.xml", "--sarif", "out/log.sarif")
    code, _, _ = purple(*FGSM, "--require", "robust_accuracy>=0.99", *files)
    root = ElementTree.fromstring((here / "out/tests.xml").read_text("utf-8"))  # noqa: S314
    log = json.loads((here / "out/log.sarif").read_text("utf-8"))
    assert (code, root.get("failures"), root.get("tests")) == (1, "1", "2")
    assert [result["ruleId"] for run in log["runs"] for result in run["results"]] == ["require"]
