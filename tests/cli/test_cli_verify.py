"""`purple verify`, and what report, ls and threats say of a run that was changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_values import Purple

from purpleteam.core.ledger import Ledger
from purpleteam.core.records import Measurement, Note, record_from_json
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.statistics import Rate
from purpleteam.report import render

RUN = Path("runs/one")


@pytest.fixture
def run(here: Path) -> Path:
    """A finished run with one number, and its report."""
    made = RunFolder.create(RUN, {"dataset": "digits", "seed": 0})
    about = {"model": "sha256:0", "model_name": "baseline", "dataset": "sha256:1"}
    rate = Measurement(name="clean_accuracy", value=Rate.of(9, 10), subject=about)
    made.cell("data", {}, lambda: [Note(name="dataset", facts={"digest": "sha256:1"}), rate])
    made.finish("finished")
    render(RUN)
    return RUN


def better(run: Path) -> None:
    """Raise the number and write the whole chain anew."""
    path = run / "records.jsonl"
    lines = Ledger(path).read()
    for line in lines:
        if line.get("name") == "clean_accuracy":
            line["value"] |= {"value": 1.0, "high": 1.0}
            line["id"] = record_from_json(line).id
    path.unlink()
    Ledger(path).append(lines)


def test_a_whole_run_is_told_as_one(purple: Purple, run: Path) -> None:
    ended = purple("verify", run, "--json")
    assert (ended.code, ended.err) == (0, "")
    assert {"run", "verdict", "status", "parts", "proves", "replayed"} <= set(ended.json)
    assert ended.json["verdict"] == "pass"
    assert "finished, records whole" in purple("ls").out


def test_an_edited_run_looks_edited_to_every_verb(purple: Purple, run: Path) -> None:
    better(run)
    told = "a line was changed and the chain written anew"
    for verb in ("verify", "report"):
        ended = purple(verb, run)
        assert ended.code == 1 and told in ended.out, verb
    assert "This run fails its verification" in (run / "report.html").read_text("utf-8")
    assert purple("ls", "--json").json["verification"][str(run)]["verdict"] == "fail"
    Path("empty.py").write_text("", "utf-8")
    checks = purple("threats", "--run", run, "--code", "empty.py", "--json")
    ledger = next(one for one in checks.json["checks"] if one["check"] == "run.ledger")
    assert checks.code == 1 and ledger["verdict"] == "fail" and told in ledger["message"]


def test_a_page_that_was_edited_is_found(purple: Purple, run: Path) -> None:
    page = run / "report.html"
    page.write_text(page.read_text("utf-8").replace('value="0.9"', 'value="1.0"'), "utf-8")
    ended = purple("verify", run)
    assert ended.code == 1 and "report.html: not what the records render to" in ended.out


@pytest.mark.parametrize("status", ["running", "stopped"])
def test_a_run_that_has_not_ended_is_not_green(purple: Purple, run: Path, status: str) -> None:
    info = json.loads((run / "run.json").read_text("utf-8")) | {"status": status}
    (run / "run.json").write_text(json.dumps(info), "utf-8")
    assert purple("report", run).code == 0
    assert purple("verify", run).code == 2
    assert f"{status}, the run" in purple("ls").out


def test_a_number_that_nothing_makes_again_is_not_green(purple: Purple, run: Path) -> None:
    ended = purple("verify", run, "--replay", 3, "--json")
    (again,) = ended.json["replayed"]
    assert ended.code == 2 and again["agrees"] is None and again["reason"]


def test_a_run_json_that_cannot_be_read_is_one_line(purple: Purple, run: Path) -> None:
    (run / "run.json").write_text("{", "utf-8")
    ended = purple("verify", run)
    assert ended.code == 2 and ended.err.count("\n") == 1 and "run.json" in ended.err
    assert "cannot be read" in purple("ls").out
