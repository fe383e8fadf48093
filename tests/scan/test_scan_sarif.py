"""The SARIF log has what the standard requires, and what code hosts read."""

from __future__ import annotations

import json

import pytest

from purpleteam.core.records import Finding
from purpleteam.scan import ScanResult, to_sarif

OURS = Finding(
    tool="purpleteam rules",
    rule="PT001",
    severity="critical",
    confidence="high",
    message="unsafe load",
    place={"path": "a folder/a.py", "line": 3},
    cwe="CWE-502",
    fix="load safely",
)
THEIRS = Finding(
    tool="bandit 1.9.4",
    rule="B101",
    severity="low",
    confidence="high",
    message="assert",
    place={"path": "b.py"},
    cwe="CWE-703",
)


@pytest.fixture
def run():
    result = ScanResult(
        findings=(OURS, THEIRS),
        scanned=("b.py",),
        skipped=(("c.py", "broken"),),
        errors=("bandit ended",),
        silenced=(("d.py", "line 2"),),
    )
    log = json.loads(json.dumps(to_sarif(result)))
    assert (log["version"], len(log["runs"])) == ("2.1.0", 1)
    return log["runs"][0]


def test_every_result_points_at_its_rule_and_place(run):
    ours, theirs = run["results"]
    assert run["tool"]["driver"]["rules"][ours["rule"]["index"]]["id"] == "PT001"
    assert ours["level"] == "error"
    place = ours["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "a%20folder/a.py"
    assert place["region"] == {"startLine": 3}
    extension = run["tool"]["extensions"][theirs["rule"]["toolComponent"]["index"]]
    assert (extension["name"], extension["version"]) == ("bandit", "1.9.4")
    assert extension["rules"][theirs["rule"]["index"]]["id"] == "B101"
    assert "region" not in theirs["locations"][0]["physicalLocation"]


def test_weaknesses_are_a_taxonomy(run):
    (taxonomy,) = run["taxonomies"]
    assert [one["id"] for one in taxonomy["taxa"]] == ["502", "703"]
    assert run["results"][0]["taxa"][0]["id"] == "502"


def test_skipped_silenced_and_errors_are_notifications(run):
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] is False
    told = [
        (one["level"], one["message"]["text"]) for one in invocation["toolExecutionNotifications"]
    ]
    assert told == [
        ("error", "bandit ended"),
        ("warning", "skipped: broken"),
        ("note", "silenced: line 2"),
    ]


def test_required_properties_are_there(run):
    assert run["tool"]["driver"]["name"] == "purpleteam"
    for component in (run["tool"]["driver"], *run["tool"]["extensions"]):
        assert component["name"]
        assert all(rule["id"] and rule["shortDescription"]["text"] for rule in component["rules"])
    assert all(one["message"]["text"] for one in run["results"])


def test_an_empty_scan_is_a_log_too():
    (run,) = to_sarif(ScanResult())["runs"]
    assert run["results"] == []
    assert run["invocations"][0]["executionSuccessful"]


def test_a_fingerprint_stays_when_the_line_moves():
    moved = Finding(**{**OURS.__dict__, "place": {"path": "a folder/a.py", "line": 9}})
    first, second = (
        to_sarif(ScanResult(findings=(one,)))["runs"][0]["results"][0]["partialFingerprints"]
        for one in (OURS, moved)
    )
    assert first == second
