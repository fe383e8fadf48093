"""Each rule on example files whose lines say what must, and what must not, trigger it."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import pytest

from purpleteam.scan.rules import RULES
from purpleteam.scan.scanners.ml_code import scan_ml_code

EXAMPLES = sorted((Path(__file__).parent / "examples").glob("*.py.example"))


def expected(path: Path) -> set[tuple[int, str]]:
    lines = enumerate(path.read_text().splitlines(), 1)
    told = ((number, re.search(r"must trigger((?: PT\d{3})+)", line)) for number, line in lines)
    return {(number, rule) for number, match in told if match for rule in match[1].split()}


def found(tmp_path: Path, source: str) -> list[tuple[int, str]]:
    path = tmp_path / "code.py"
    path.write_text(source)
    return [(one.place["line"], one.rule) for one in scan_ml_code(path).findings]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_marked_lines_and_no_others_trigger(tmp_path, example):
    path = shutil.copy(example, tmp_path / "code.py")
    findings = scan_ml_code(Path(path)).findings
    assert {(one.place["line"], one.rule) for one in findings} == expected(example)


def test_every_rule_has_a_line_that_triggers_it():
    told = {rule for example in EXAMPLES for _, rule in expected(example)}
    assert told == set(RULES)


def test_every_rule_says_what_it_is_and_what_to_do():
    for name in RULES:
        rule, look = RULES[name]
        assert rule.id == name
        assert look.__doc__
        assert rule.fix
        assert re.fullmatch(r"CWE-\d+", rule.cwe)


def test_a_comment_allows_a_rule_only_with_a_reason(tmp_path):
    line = "import pickle\npickle.load(f)  # purple: allow PT003"
    assert found(tmp_path, line) == [(2, "PT003")]
    assert found(tmp_path, f"{line} because we wrote f ourselves") == []


def test_what_a_comment_allows_is_said(tmp_path):
    path = tmp_path / "code.py"
    path.write_text("import pickle\npickle.load(f)  # purple: allow PT003 as we wrote f\n")
    assert scan_ml_code(path).silenced == ((str(path.name), "line 2: PT003 allowed by comment"),)


@pytest.mark.parametrize("source", [b"def f(:\n", b"x = '\x00'", b"(" * 5000, b"\xff\xfe x"])
def test_a_file_that_is_no_python_is_skipped_and_said(tmp_path, source):
    (tmp_path / "broken.py").write_bytes(source)
    result = scan_ml_code(tmp_path)
    assert result.scanned == ()
    assert "no Python" in result.skipped[0][1]


def test_a_notebook_is_skipped_and_said(tmp_path):
    (tmp_path / "a.ipynb").write_text("{}")
    assert "notebook" in scan_ml_code(tmp_path).skipped[0][1]


def test_names_that_grow_from_line_to_line_cost_no_more_than_others(tmp_path):
    lines = "".join(f"a{number + 1} = a{number}.x\n" for number in range(5000))
    started = time.process_time()
    assert found(tmp_path, f"import torch\na0 = torch.load\n{lines}torch.load(x)\n")
    assert time.process_time() - started < 5
