"""Each rule on example files whose lines say what must, and what must not, trigger it."""

from __future__ import annotations

import ast
import re
import shutil
import time
from pathlib import Path

import pytest

from purpleteam.scan import scan
from purpleteam.scan.rules import RULES, parse
from purpleteam.scan.scanners.ml_code import scan_ml_code

EXAMPLES = sorted((Path(__file__).parent / "examples").glob("*.py.example"))


def expected(path: Path) -> set[tuple[int, str]]:
    lines = enumerate(path.read_text().splitlines(), 1)
    told = ((number, re.search(r"must trigger((?: PT\d{3})+)", line)) for number, line in lines)
    return {(number, rule) for number, match in told if match for rule in match[1].split()}


def found(tmp_path: Path, source: str) -> list[tuple[int, str]]:
    path = tmp_path / "code.py"
    path.write_text(source)
    return [(one.place["line"], one.rule) for one in scan([path], ["ml-code"]).findings]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_marked_lines_and_no_others_trigger(tmp_path, example):
    findings = scan([shutil.copy(example, tmp_path / "code.py")], ["ml-code"]).findings
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


def test_the_examples_name_three_hundred_sinks_and_as_many_harmless_lines():
    text = "".join(example.read_text() for example in EXAMPLES)
    assert sum(len(expected(example)) for example in EXAMPLES) >= 300
    assert text.count("must not trigger") >= 300


@pytest.mark.parametrize("source", [b"def f(:\n", b"x = '\x00'", b"(" * 5000, b"\xff\xfe x"])
def test_a_file_that_is_no_python_is_skipped_and_said(tmp_path, source):
    (tmp_path / "broken.py").write_bytes(source)
    result = scan_ml_code(tmp_path)
    assert result.scanned == ()
    assert "no Python" in result.skipped[0][1]


@pytest.mark.parametrize("link", [".f('a')", ".b", " + b"])
def test_deep_expressions_cost_the_file_and_no_crash(tmp_path, link):
    (tmp_path / "deep.py").write_text(f"import flask\ndef f():\n    return a{link * 20_000}\n")
    result = scan_ml_code(tmp_path)
    assert len(result.scanned) + len(result.skipped) == 1 and result.errors == ()


def test_lines_that_only_an_encoding_makes_are_lines(tmp_path):
    code = b"# coding: utf-7\nimport torch+AAo-def f(x):+AAo- torch.load(x)+AAo-f(1)\n"
    (tmp_path / "code.py").write_bytes(code)
    result = scan_ml_code(tmp_path)
    assert [one.rule for one in result.findings] == ["PT001"] and result.errors == ()


def test_names_that_grow_from_line_to_line_cost_no_more_than_others(tmp_path):
    lines = "".join(f"a{number + 1} = a{number}.x\n" for number in range(5000))
    started = time.process_time()
    assert found(tmp_path, f"import torch\na0 = torch.load\n{lines}torch.load(x)\n")
    assert time.process_time() - started < 5


def test_a_rule_finds_nothing_in_a_file_without_what_it_needs():
    found, lonely = 0, set()
    for example in EXAMPLES:
        body = ast.parse(example.read_bytes()).body
        imports = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
        for node in body:  # each alone, so that no neighbour holds what it lacks
            names = {row.id for row in ast.walk(node) if isinstance(row, ast.Name)}
            used = [row for row in imports if names & {bound(alias) for alias in row.names}]
            module = parse(ast.unparse(ast.Module([*used, node], [])).encode())
            for rule, look in RULES.values():
                hits = len(list(look.__wrapped__(module)))
                assert len(list(look(module))) == hits, (rule.id, ast.unparse(node))
                found += hits
                held = [text for text in look.needs if module.holds(text)]
                lonely |= {(rule.id, text) for text in held if hits and len(held) == 1}
    assert found > 200
    needed = {(name, text) for name in RULES for text in RULES[name][1].needs}
    missing = ", ".join(f"{name} {text}" for name, text in sorted(needed - lonely))
    assert missing == ""  # without such a word, some line of an example would be missed


def bound(alias: ast.alias) -> str:
    return alias.asname or alias.name.partition(".")[0]
