"""A scan against an older one: found again where a fault stays, wherever its line went."""

from __future__ import annotations

import json

import pytest

import purpleteam as pt
from purpleteam.core.errors import UsageError
from purpleteam.scan import scan, to_sarif
from purpleteam.scan.against import compare, read_baseline

BAD = "import torch\na = torch.load(x)\nb = torch.load(y)\n"


def counts(tmp_path, before: dict[str, str], after: dict[str, str]) -> dict[str, int]:
    for folder, files in (("before", before), ("after", after)):
        for name, text in files.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    log = to_sarif(scan([tmp_path / "before"], ["ml-code"]))
    (tmp_path / "old.sarif").write_text(json.dumps(log))
    result = scan([tmp_path / "after"], ["ml-code"])
    lists = compare(read_baseline(tmp_path / "old.sarif"), result).lists()
    return {name: len(rows) for name, rows in lists.items() if rows}


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ({"a.py": BAD}, {"not_fixed": 2}),
        ({"a.py": "\n\n" + BAD}, {"not_fixed": 2}),
        ({"b/moved.py": BAD}, {"not_fixed": 2}),
        ({"a.py": BAD.replace("(x)", "(x, weights_only=True)")}, {"fixed": 1, "not_fixed": 1}),
        ({"a.py": BAD.replace("(x)", "(x, map_location='cpu')")}, {"not_fixed": 2}),
        ({"a.py": BAD.replace("torch", "pickle")}, {"not_fixed": 2}),  # unsafe in another way
        ({"a.py": BAD + "eval(x)\n"}, {"not_fixed": 2, "new": 1}),
        ({"a.py": BAD.replace("(x)", "(x)  # nosec")}, {"not_fixed": 1, "silenced": 1}),
        (
            {"a.py": BAD.replace("(x)", "(x, weights_only=True)").replace("(y)", "(y)  # nosec")},
            {"fixed": 1, "silenced": 1},
        ),
        ({"a.py": "x = 1\n"}, {"fixed": 2}),
        ({"a.py": "def f(:\n", "b.py": ""}, {"not_scanned": 2, "new": 1}),  # its being unread
        ({"b.py": "x = 1\n"}, {"not_scanned": 2}),
    ],
)
def test_a_fix_is_one_only_where_the_fault_is_gone_from_a_file_that_was_read(
    tmp_path, after, expected
):
    assert counts(tmp_path, {"a.py": BAD}, after) == expected


ALLOW = "  # purple: allow PT001 until {} because we made the file\n"


@pytest.mark.parametrize(
    ("after", "code"),
    [
        ({"a.py": BAD}, 0),
        ({"a.py": "\n\n" + BAD}, 0),
        ({"a.py": BAD, "b.py": "x = 1\n"}, 0),
        ({"a.py": BAD + "eval(x)\n"}, 1),
        ({"a.py": BAD, "b.py": "eval(x)\n"}, 1),
        ({"a.py": BAD + "c = torch.load(z)\n"}, 1),
        ({"a.py": BAD + "c = torch.load(z)" + ALLOW.format("2999-01-01")}, 0),
        ({"a.py": BAD + "c = torch.load(z)" + ALLOW.format("2020-01-01")}, 1),
        ({"a.py": "def f(:\n"}, 1),  # nobody can read it any more
    ],
)
def test_only_what_is_new_decides_the_exit_code_where_that_is_asked_for(tmp_path, after, code):
    counts(tmp_path, {"a.py": BAD}, after)
    ended = pt.scan(tmp_path / "after", against=tmp_path / "old.sarif", only_new=True)
    assert ended.exit_code == code


def test_what_a_comment_silenced_and_no_longer_does_is_new(tmp_path):
    quiet = BAD.replace("(y)\n", "(y)" + ALLOW.format("2999-01-01"))
    found = counts(tmp_path, {"a.py": quiet}, {"a.py": quiet.replace("2999", "2020")})
    assert found == {"not_fixed": 1, "new": 1}


def test_a_file_of_the_same_name_elsewhere_is_another_file(tmp_path):
    before = {"a/__init__.py": BAD, "b/__init__.py": "x = 1\n"}
    after = {"b/__init__.py": "import torch\nc = torch.load(z)\n"}
    assert counts(tmp_path, before, after) == {"not_scanned": 2, "new": 1}


def test_a_file_that_one_scanner_did_not_read_shows_no_fix(tmp_path):
    for name, text in (("before", BAD), ("after", "print 'x'\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.py").write_text(text)
    (tmp_path / "old.sarif").write_text(json.dumps(to_sarif(scan([tmp_path / "before"]))))
    lists = compare(read_baseline(tmp_path / "old.sarif"), scan([tmp_path / "after"])).lists()
    assert (len(lists["fixed"]), len(lists["not_scanned"]), len(lists["new"])) == (0, 2, 1)


def test_a_log_of_another_tool_is_a_baseline_too(tmp_path):
    place = {"physicalLocation": {"artifactLocation": {"uri": "src/a%20b.py"}}}
    row = {"ruleId": "B614", "message": {"text": "load"}, "locations": [place]}
    (tmp_path / "old.sarif").write_text(
        json.dumps({"version": "2.1.0", "runs": [{"results": [row]}]})
    )
    (old,) = read_baseline(tmp_path / "old.sarif")
    assert (old.rule, old.path, old.line) == ("B614", "src/a b.py", None)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": "2.1.0", "runs": 3}', '{"version": "2.0.0", "runs": []}']
)
def test_what_is_no_sarif_is_a_clear_error(tmp_path, text):
    (tmp_path / "old.sarif").write_text(text)
    with pytest.raises(UsageError, match=r"old\.sarif' is no SARIF 2\.1\.0 log; make one with"):
        read_baseline(tmp_path / "old.sarif")
