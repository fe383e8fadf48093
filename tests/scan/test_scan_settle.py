"""What comments may silence, and how a fault that two tools see is told once."""

from __future__ import annotations

import os
import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest

from purpleteam.scan import scan
from purpleteam.scan.scanner import walk
from purpleteam.scan.settle import settle

TOMORROW = (datetime.now(UTC) + timedelta(days=1)).date()
YESTERDAY = TOMORROW - timedelta(days=2)
WHY = "because we wrote f ourselves"


def scanned(tmp_path, comment: str, **how):
    (tmp_path / "a.py").write_text(f"import pickle\npickle.load(f)  # {comment}\n")
    return scan([tmp_path / "a.py"], ["ml-code"], **how)


def test_a_comment_allows_a_rule_with_a_reason_until_a_day(tmp_path):
    result = scanned(tmp_path, f"purple: allow PT003 until {TOMORROW} {WHY}")
    assert result.findings == ()
    (silenced,) = result.to_json()["silenced"]
    assert silenced == {
        "path": "a.py",
        "line": 2,
        "rule": "PT003",
        "reason": "we wrote f ourselves",
        "until": str(TOMORROW),
    }


@pytest.mark.parametrize(
    ("comment", "why"),
    [
        (f"purple: allow PT003 {WHY}", "no `until"),
        (f"purple: allow PT003 until 2027-13-01 {WHY}", "no `until"),
        (f"purple: allow PT003 until {YESTERDAY} {WHY}", f"ended on {YESTERDAY}"),
        (f"purple: allow PT003 until {TOMORROW}", "no reason"),
        (f"purple: allow PT003 until {TOMORROW} because", "no reason"),
        (f"purple: allow PT001 until {TOMORROW} {WHY}", ""),
        ("nosec", ""),
    ],
)
def test_a_comment_that_lacks_something_silences_nothing_and_is_told(tmp_path, comment, why):
    (finding,) = scanned(tmp_path, comment).findings
    assert finding.rule == "PT003"
    assert why in finding.message


def test_comments_can_be_switched_off(tmp_path):
    comment = f"purple: allow PT003 until {TOMORROW} {WHY}"
    result = scanned(tmp_path, comment, inline_allow=False)
    assert [one.rule for one in result.findings] == ["PT003"]
    assert result.silenced == ()


def test_a_comment_allows_a_rule_of_bandit_and_a_secret_too(tmp_path):
    allow = f"# purple: allow B602, PT020 until {TOMORROW} as it is a drill"
    (tmp_path / "a.py").write_text(f"import subprocess\nsubprocess.call(x, shell=True)  {allow}\n")
    (tmp_path / "b.env").write_text(f"KEY=AKIA{'Q7' * 8}  {allow}\n")
    result = scan([tmp_path])
    assert {one.finding.rule for one in result.silenced} == {"B602", "PT020"}


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("import pickle; pickle.load(f)", "PT003"),
        ("import torch; torch.load(f)", "PT001"),
        ("eval(x)", "PT008"),
        ("import yaml; yaml.load(x)", "PT009"),
        ("import flask; app = flask.Flask('a'); app.run(debug=True)", "PT005"),
        ("pass" + "word = 'tr0ub4dor&3'", "PT020"),
    ],
)
def test_a_fault_that_two_tools_see_is_one_finding(tmp_path, line, rule):
    (tmp_path / "a.py").write_text(line + "\n")
    assert [one.rule for one in scan([tmp_path]).findings] == [rule]


def test_a_finding_without_a_line_has_its_file_not_read_again(tmp_path):
    model = tmp_path / "large.pkl"
    model.write_bytes(b"cos\nsystem\n.")
    found = scan([model], ["model-file"])
    assert found.findings and not any("line" in row.place for row in found.findings)
    os.truncate(model, 256 << 20)
    tracemalloc.start()
    try:
        settle(found, walk(model))
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


SAFE = "import torch\noptions = {'weights_only': True}\nstate = torch.load('a.pt', **options)\n"


@pytest.mark.parametrize(
    ("source", "said"), [(SAFE, []), (SAFE.replace("True", "False"), ["B614"])]
)
def test_bandits_word_on_a_load_gives_way_to_a_rule_that_followed_its_names(tmp_path, source, said):
    (tmp_path / "a.py").write_text(source)
    assert [one.rule for one in scan([tmp_path], ["bandit"]).findings] == said


def test_a_download_without_a_revision_is_low(tmp_path):
    code = "from transformers import AutoModel\nnet = AutoModel.from_pretrained('org/net')\n"
    (tmp_path / "a.py").write_text(code)
    (found,) = scan([tmp_path], ["bandit", "ml-code"]).findings
    assert (found.rule, found.severity) == ("B615", "low")


def test_a_comment_that_allows_bandits_rule_allows_its_twin_of_ours(tmp_path):
    allow = f"# purple: allow B202 until {TOMORROW} as it is a drill"
    (tmp_path / "a.py").write_text(f"import tarfile\ntarfile.open('a').extractall()  {allow}\n")
    result = scan([tmp_path], ["bandit", "ml-code"])
    assert [one.finding.rule for one in result.silenced] == ["PT024"] and result.findings == ()
