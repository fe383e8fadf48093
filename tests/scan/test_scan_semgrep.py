"""Semgrep as a second engine: the same rules, the same lines, and what it did not read is said."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from purpleteam.core.errors import UsageError
from purpleteam.scan import scan
from purpleteam.scan.rules import RULES
from purpleteam.scan.semgrep import RULE_FILE, semgrep

EXAMPLES = sorted((Path(__file__).parent / "examples").glob("*.py.example"))
NAME = os.environ.get("SEMGREP", "semgrep")
PLACES = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
INSTALLED = shutil.which(NAME, path=PLACES) is not None
SEVERITIES = {"high": "ERROR", "medium": "WARNING", "low": "INFO"}


def test_both_lists_have_the_same_rules():
    listed = yaml.safe_load(RULE_FILE.read_text("utf-8"))["rules"]
    theirs = {
        row["id"]: (row["metadata"]["cwe"], row["severity"], row["message"]) for row in listed
    }
    ours = {
        name: (rule.cwe, SEVERITIES[rule.severity], look.__doc__.partition("\n")[0])
        for name, (rule, look) in ((name, RULES[name]) for name in RULES)
    }
    assert theirs == ours and len(listed) == len(ours)


def pretended(tmp_path, **report):
    """A program in the place of Semgrep that says this of the first file."""
    text = json.dumps({"version": "1", "errors": [], "results": [], **report})
    program = tmp_path / "semgrep"
    program.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"assert {{'--metrics', '--disable-version-check'}} <= set(sys.argv)\n"
        f"print({text!r}.replace('AT', sys.argv[-1]))\n"
    )
    program.chmod(0o755)
    return semgrep(str(program))


def row(rule, line):
    return {
        "check_id": f"a.b.{rule}", "path": "AT/0.py", "start": {"line": line},
        "extra": {"message": "said"},
    }  # fmt: skip


def test_a_fault_that_both_find_is_one_finding_and_what_one_alone_finds_stays(tmp_path):
    scanner = pretended(
        tmp_path, paths={"scanned": ["AT/0.py"]}, results=[row("PT008", 1), row("PT003", 2)]
    )
    (tmp_path / "a.py").write_text("eval(text)\nx = 1\n")
    findings = scan([tmp_path / "a.py"], ["ml-code", scanner]).findings
    told = [(one.tool, one.rule, one.place["line"], one.cwe) for one in findings]
    assert told == [
        ("purpleteam rules", "PT008", 1, "CWE-95"),
        ("semgrep 1", "PT003", 2, "CWE-502"),
    ]


def test_a_finding_in_a_notebook_has_its_cell(tmp_path):
    cells = [{"cell_type": "code", "source": text} for text in ("x = 1", "y = 2\neval(x)")]
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))
    scanner = pretended(tmp_path, paths={"scanned": ["AT/0.py"]}, results=[row("PT008", 3)])
    (found,) = scan([tmp_path / "a.ipynb"], [scanner]).findings
    assert (found.place["cell"], found.place["line"]) == (2, 2)


@pytest.mark.parametrize(
    ("report", "why"),
    [
        ({"paths": {"scanned": []}}, "left out"),
        (
            {
                "paths": {"scanned": ["AT/0.py"]},
                "errors": [{"type": ["PartialParsing", []], "path": "AT/0.py"}],
            },
            "PartialParsing",
        ),
    ],
)
def test_what_it_did_not_read_is_unread_and_not_green(tmp_path, report, why):
    (tmp_path / "a.py").write_text("x = 1\n")
    (found,) = scan([tmp_path / "a.py"], ["ml-code", pretended(tmp_path, **report)]).findings
    assert (found.rule, found.severity) == ("PT022", "medium") and why in found.message


def test_a_rule_that_it_cannot_read_and_its_own_end_are_errors_of_the_scan(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    error = {"type": "Rule parse error", "message": "no such\nkey"}
    broken = pretended(tmp_path, paths={"scanned": ["AT/0.py"]}, errors=[error])
    errors = scan([tmp_path / "a.py"], [broken]).errors
    assert errors == ("semgrep: Rule parse error: no such key",)
    (tmp_path / "semgrep").write_text(f"#!{sys.executable}\nraise SystemExit('no core')\n")
    assert "semgrep ended with 1 and said: no core" in scan([tmp_path / "a.py"], [broken]).errors


def test_where_it_is_not_installed_the_error_says_how_to_get_it():
    with pytest.raises(UsageError, match=r"'nosuch' is no executable; install it \(pipx"):
        semgrep("nosuch")


@pytest.mark.skipif(not INSTALLED, reason="semgrep is not installed (SEMGREP names another)")
def test_it_finds_nine_of_ten_marked_lines_and_falsely_one_of_fifty(tmp_path):
    wanted, harmless = set(), 0
    for example in EXAMPLES:
        name = f"{example.name.partition('.')[0]}.py"
        text = example.read_text("utf-8")
        (tmp_path / name).write_text(text, "utf-8")
        harmless += text.count("must not trigger")
        for number, line in enumerate(text.splitlines(), 1):
            for rules in re.findall(r"must trigger((?: PT\d{3})+)", line):
                wanted |= {(name, number, rule) for rule in rules.split()}
    result = scan([tmp_path], [semgrep(NAME)])
    found = {(Path(one.place["path"]).name, one.place["line"], one.rule) for one in result.findings}
    assert result.errors == () and len(result.scanned) == len(EXAMPLES)
    assert len(found & wanted) >= 0.9 * len(wanted), sorted(wanted - found)
    assert len(found - wanted) <= 0.02 * harmless, sorted(found - wanted)
