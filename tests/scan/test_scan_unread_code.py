"""Code that nobody can parse is not clean: it is a finding, and its text is still searched."""

from __future__ import annotations

import pytest

import purpleteam as pt
from purpleteam.scan import scan

KEY = "AKIA" + "Q7" * 8
UNREADABLE = {
    "Python 2": f"print 'hello {KEY}'\n".encode(),
    "Python 3.14": f"try:\n    '{KEY}'\nexcept A, B:\n    pass\n".encode(),
    "a zero byte": f"x = 1\nkey = '{KEY}'\n\0".encode(),
    "Latin-1 without saying so": f"x = '\xe9'\nkey = '{KEY}'\n".encode("latin-1"),
    "UTF-16": f"key = '{KEY}'\n".encode("utf-16"),
    "another's encoding": f"# -*- coding: rot13 -*-\nkey = '{KEY}'\n".encode(),
    "half a merge": f"<<<<<<< HEAD\nkey = '{KEY}'\n=======\n".encode(),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_code_that_nobody_can_parse_is_not_green_and_its_secrets_are_found(tmp_path, what):
    (tmp_path / "a.py").write_bytes(UNREADABLE[what])
    result = scan([tmp_path])
    (unread,) = [one for one in result.findings if one.rule == "PT022"]
    assert (unread.severity, unread.place["line"]) == ("medium", 1)
    assert "bandit: " in unread.message and "rules: " in unread.message
    assert "PT020" in {one.rule for one in result.findings}
    assert result.errors == ()


def test_a_script_without_suffix_is_code_by_its_first_line(tmp_path):
    (tmp_path / "train").write_text("#!/usr/bin/env python3\neval(text)\n")
    (tmp_path / "old").write_text("#!/usr/bin/python2.7 -u\nprint 'x'\n")
    (tmp_path / "run").write_text("#!/bin/sh\neval x\n")
    found = scan([tmp_path], ["bandit", "ml-code"])
    told = [(one.rule, one.place["path"].rpartition("/")[2]) for one in found.findings]
    assert told == [("PT022", "old"), ("PT008", "train")]
    assert scan([tmp_path / "train"], ["bandit"]).findings[0].rule == "B307"


def test_a_file_that_says_its_encoding_is_read(tmp_path):
    (tmp_path / "a.py").write_bytes("# coding: latin-1\nx = '\xe9'\n".encode("latin-1"))
    assert scan([tmp_path]).findings == ()


def test_the_exit_code_counts_what_was_not_read(tmp_path):
    (tmp_path / "a.py").write_text("print 'hello'\n")
    assert [pt.scan(tmp_path, fail_on=how).exit_code for how in ("unread", "high")] == [1, 0]


def test_what_is_unread_on_purpose_is_allowed_in_its_first_line(tmp_path):
    why = "# purple: allow PT022 until 2999-01-01 because it tests our parser\n"
    (tmp_path / "a.py").write_text(why + "print 'hello'\n")
    result = scan([tmp_path])
    assert result.findings == () and len(result.silenced) == 1
