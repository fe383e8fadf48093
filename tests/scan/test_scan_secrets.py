"""Planted secrets of every kind are found, and what only looks like one is left alone.

The planted ones are random; a `~` keeps each from being a secret of our own tree.
"""

from __future__ import annotations

import ast
import time
from pathlib import Path

import pytest

from purpleteam.scan import scan
from purpleteam.scan.scanners.secrets import FORMS, SURROUNDINGS, in_small, scan_for_secrets

EXAMPLES = Path(__file__).parent / "examples"
ROWS = [row.split("\t") for row in (EXAMPLES / "secrets.txt").read_text().splitlines()]
PLANTED = [(name, ast.literal_eval(text).replace("~", "")) for name, text in ROWS]
HARMLESS = (EXAMPLES / "no_secrets.txt").read_text().splitlines()
SUFFIXES = (".env", ".py", ".yaml")


@pytest.mark.parametrize(
    ("name", "text"), PLANTED, ids=[str(number) for number in range(len(ROWS))]
)
def test_a_planted_secret_is_one_finding(tmp_path, name, text):
    (tmp_path / name).write_text(text + "\n")
    findings = scan_for_secrets(tmp_path).findings
    assert len(findings) == 1, [one.message for one in findings]
    assert max(text.split(), key=len) not in str(findings)


def test_forty_are_planted():
    assert len(PLANTED) >= 40


def test_no_form_fits_a_text_without_what_it_must_hold():
    texts = [text for _, text in PLANTED]
    odd = [text.replace("s", "\u017f").replace("K", "\u212a") for text in texts]
    fits = 0
    for text in (*texts, *map(str.upper, texts), *odd, *map(str.title, texts)):
        whole = [(held, form, text) for held, form in FORMS.values()]
        small = [(held, form, in_small(text)) for held, form in SURROUNDINGS.values()]
        for held, form, looked_at in (*whole, *small):
            if form.search(text):
                fits += 1
                assert any(one in looked_at for one in held), (form.pattern, text)
        for one in (match[0] for _, form in FORMS.values() for match in form.finditer(text)):
            assert "-----" in one or len(one.split()[0]) == len(one) > 14  # what `_tokens` looks at
    assert fits > 100


@pytest.mark.parametrize("line", HARMLESS)
def test_what_is_no_secret_is_left_alone(tmp_path, line):
    for suffix in SUFFIXES:
        (tmp_path / f"a{suffix}").write_text(line + "\n")
    assert [one.message for one in scan_for_secrets(tmp_path).findings] == []


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "latin-1"])
def test_a_secret_is_found_in_any_encoding(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes(f"one\r\n{PLANTED[0][1]}\r\n".encode(encoding))
    assert [one.place["line"] for one in scan_for_secrets(tmp_path).findings] == [2]


def test_the_content_decides_and_not_the_name(tmp_path):
    (tmp_path / "notes.unheard").write_text(PLANTED[0][1])
    (tmp_path / "picture.txt").write_bytes(b"\x89PNG\x00\x01" + PLANTED[0][1].encode())
    assert [one.place["path"][-7:] for one in scan_for_secrets(tmp_path).findings] == ["unheard"]


def test_every_secret_of_a_line_is_found_with_its_own_fingerprint_and_none_is_repeated(tmp_path):
    values = [PLANTED[0][1], PLANTED[2][1]]
    (tmp_path / "a.env").write_text(" ".join(values))
    result = scan([tmp_path], ["secrets"])
    assert len({one.message for one in result.findings}) == 2
    assert not any(value.split("'")[1 if "'" in value else 0] in str(result) for value in values)


def test_an_edited_secret_keeps_the_context_of_its_line(tmp_path):
    seen = set()
    for text in (PLANTED[31][1], PLANTED[31][1][:-1] + "7"):
        (tmp_path / "a.env").write_text(text)
        (finding,) = scan([tmp_path / "a.env"], ["secrets"]).findings
        seen.add(finding.place["context"])
    assert len(seen) == 1


def test_our_own_tree_holds_none():
    root = Path(__file__).parents[2]
    for part in ("src", "tests", "docs", "benchmarks", "README.md", "CHANGELOG.md"):
        assert scan_for_secrets(root / part).findings == ()


@pytest.mark.parametrize("piece", ["a", "password", "a-", "a=", "://", "eyJ", "x:y@", "'", "key: "])
def test_hostile_lines_take_no_more_time_than_others(tmp_path, piece):
    (tmp_path / "a.env").write_text("password" + piece * (100_000 // len(piece)))
    started = time.process_time()
    scan_for_secrets(tmp_path)
    assert time.process_time() - started < 1
