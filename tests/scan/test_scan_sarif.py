"""The SARIF log has what the standard requires, and what code hosts read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema_rs
import pytest

from purpleteam.core.records import Finding
from purpleteam.scan import ScanResult, scan, to_sarif
from purpleteam.scan.scanner import Silenced

# Of OASIS, errata 01, without its descriptions.
SCHEMA = json.loads((Path(__file__).parent / "examples/sarif-schema-2.1.0.json").read_text())

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
QUIET = replace(THEIRS, place={"path": "d.py", "line": 2})


@pytest.fixture
def run():
    result = ScanResult(
        findings=(OURS, THEIRS),
        scanned=("b.py",),
        skipped=(("c.py", "broken"),),
        errors=("bandit ended",),
        silenced=(Silenced(QUIET, "we made it", "2027-01-31"),),
    )
    log = json.loads(json.dumps(to_sarif(result)))
    assert (log["version"], len(log["runs"])) == ("2.1.0", 1)
    return log["runs"][0]


def test_every_result_points_at_its_rule_and_place(run):
    ours, theirs, _ = run["results"]
    assert run["tool"]["driver"]["rules"][ours["rule"]["index"]]["id"] == "PT001"
    assert ours["level"] == "error"
    place = ours["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "a%20folder/a.py"
    assert place["region"] == {"startLine": 3}
    extension = run["tool"]["extensions"][theirs["rule"]["toolComponent"]["index"]]
    assert (extension["name"], extension["version"]) == ("bandit", "1.9.4")
    assert extension["rules"][theirs["rule"]["index"]]["id"] == "B101"
    assert theirs["locations"][0]["physicalLocation"]["region"] == {"startLine": 1}


def test_weaknesses_are_a_taxonomy(run):
    (taxonomy,) = run["taxonomies"]
    assert [one["id"] for one in taxonomy["taxa"]] == ["502", "703"]
    assert run["results"][0]["taxa"][0]["id"] == "502"


def test_what_is_silenced_is_a_suppressed_result(run):
    suppressions = [result.get("suppressions") for result in run["results"]]
    told = {"kind": "inSource", "justification": "we made it (until 2027-01-31)"}
    assert suppressions == [None, None, [told]]


def test_skipped_files_and_errors_are_notifications(run):
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] is False
    told = [
        (one["level"], one["message"]["text"]) for one in invocation["toolExecutionNotifications"]
    ]
    assert told == [("error", "bandit ended"), ("warning", "skipped: broken")]


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


def prints(path) -> dict[str, int]:
    """The lines of a scan's results, by fingerprint."""
    (run,) = to_sarif(scan([path], ["ml-code"]))["runs"]
    return {
        row["partialFingerprints"]["purpleteam/v2"]: row["locations"][0]["physicalLocation"][
            "region"
        ]["startLine"]
        for row in run["results"]
    }


def test_fingerprints_are_unique_and_stay_when_lines_move(tmp_path):
    code = "import pickle\npickle.load(f)\npickle.load(f)\npickle.load(g)\n"
    (tmp_path / "a.py").write_text(code)
    before = prints(tmp_path / "a.py")
    (tmp_path / "a.py").write_text(
        "x = 1\n\n" + code.replace("pickle.load(g)", "  \npickle.load(g)")
    )
    after = prints(tmp_path / "a.py")
    assert list(before.values()) == [2, 3, 4] and list(after.values()) == [4, 5, 7]
    assert before.keys() == after.keys()


def test_a_log_of_everything_fits_the_schema_of_the_standard(tmp_path):
    (tmp_path / "a.py").write_text("import torch, os\ntorch.load(x)\nos.system(x)\n")
    (tmp_path / "b.py").write_text("def f(:\n")
    (tmp_path / "c.env").write_text("TOKEN=ghp" + "_" + "a1" * 18)
    (tmp_path / "m.pkl").write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    cell = {"cell_type": "code", "source": "eval(x)", "outputs": []}
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": [cell]}))
    result = scan([tmp_path])
    quiet = (Silenced(result.findings[0], "a drill", "2027-01-31"),)
    result = replace(result, silenced=quiet, findings=result.findings[1:], errors=("bad",))
    states = dict.fromkeys((row.id for row in result.findings), "unchanged")
    log = json.loads(json.dumps(to_sarif(result, ["a b"], states)))
    jsonschema_rs.validator_for(SCHEMA).validate(log)
    run = log["runs"][0]
    assert len(run["results"]) >= 5
    assert run["automationDetails"]["id"] == "purpleteam/scan/a%20b/"
    for part in (run["tool"]["driver"], *run["tool"]["extensions"]):
        for rule in part["rules"]:
            assert rule["fullDescription"]["text"] and rule["helpUri"].startswith("https://")
            assert rule["relationships"][0]["target"]["toolComponent"]["name"] == "CWE"


def test_places_are_relative_to_the_root_and_lead_nowhere_else(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.py").write_text("eval(x)\n")
    monkeypatch.chdir(tmp_path / "here")
    result = scan(["../there"], ["ml-code"])
    assert result.findings[0].place["path"] == "there/a.py"
    (run,) = to_sarif(result)["runs"]
    place = run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]
    assert place == {"uri": "there/a.py", "uriBaseId": "%SRCROOT%"}
    assert "%SRCROOT%" in run["originalUriBaseIds"]
    (run,) = to_sarif(ScanResult(findings=(replace(OURS, place={"path": "../../x.py"}),)))["runs"]
    assert (
        run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "x.py"
    )


def test_control_characters_are_escaped_in_messages_and_names():
    odd = replace(OURS, message="un\x1b[31msafe\u202e", place={"path": "a\x1b[2J\n.py"})
    (run,) = to_sarif(ScanResult(findings=(odd,), errors=("\x1b[2J",)))["runs"]
    text = json.dumps(run, ensure_ascii=False)
    assert text.isprintable() and "\\\\x1b[31m" in text and "a%1B%5B2J%0A.py" in text


def test_a_place_in_a_notebook_is_told_by_cell():
    cell = replace(OURS, place={"path": "a.ipynb", "cell": 3, "line": 2})
    (run,) = to_sarif(ScanResult(findings=(cell,)))["runs"]
    place = run["results"][0]["locations"][0]["logicalLocations"][0]
    assert place["fullyQualifiedName"] == "cell 3, line 2"
    assert run["results"][0]["message"]["text"] == "unsafe load (cell 3, line 2)"
