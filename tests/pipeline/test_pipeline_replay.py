"""One number measured again: the same, or it is said that it is not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from purpleteam.cli import main
from purpleteam.core.errors import RunError, UsageError
from purpleteam.core.ledger import Ledger
from purpleteam.core.progress import SILENT
from purpleteam.core.records import record_from_json
from purpleteam.core.runfolder import RunFolder
from purpleteam.pipeline.replay import Replay, _compared, _made_again, replay
from purpleteam.report import render

WANTED: dict[str, dict[str, Any]] = {
    "clean accuracy": {"name": "clean_accuracy"},
    "confusion matrix": {"name": "confusion_matrix"},
    "trained accuracy": {"name": "validation_accuracy"},
    "robust accuracy": {"name": "robust_accuracy"},
    "backdoor": {"name": "attack_success_rate"},
    "mean over seeds": {"name": "attack_success_rate_mean"},
    "app": {"name": "served_accuracy"},
    "finding": {"kind": "finding"},
    "outcomes": {"kind": "artefact", "path": re.compile("outcomes/fgsm")},
    "model": {"kind": "artefact", "path": "models/hardened.safetensors"},
    "picture": {"kind": "artefact", "path": "images/class-0.png"},
    "note": {"name": "dataset"},
    "check": {"check": "code.secrets"},
    "threat": {"kind": "threat"},
}


def record_of(run: Path, wanted: dict[str, Any]) -> str:
    """Return the id of the first record with these values."""

    def fits(value: object, pattern: Any) -> bool:
        return (
            bool(pattern.match(str(value))) if isinstance(pattern, re.Pattern) else value == pattern
        )

    return next(
        one.id
        for one in RunFolder.open(run).records()
        if all(fits(one.metric().get(key), value) for key, value in wanted.items())
    )


@pytest.fixture(scope="module")
def again(finished: Path) -> dict[str, Replay]:
    """One record of every kind, all made again in one pass over the stages."""
    run = RunFolder.open(finished)
    known = {record.id: record for record in run.records()}
    chosen = {what: record_of(finished, wanted) for what, wanted in WANTED.items()}
    made = _made_again(run, set(chosen.values()), SILENT)
    return {what: _compared(known[one], made[one]) for what, one in chosen.items()}


@pytest.mark.parametrize("what", WANTED)
def test_a_record_of_every_kind_is_made_again_and_agrees(
    again: dict[str, Replay], what: str
) -> None:
    assert again[what].agrees and again[what].before == again[what].after


def test_replay_leaves_the_run_as_it_is(
    finished: Path, contents: Callable[[Path], dict[str, bytes]]
) -> None:
    before = contents(finished)
    replay(finished, record_of(finished, {"name": "robust_accuracy"}))
    assert contents(finished) == before


def forge(run: Path, name: str, *, keep_id: bool) -> str:
    """Move a recorded value and write the whole chain anew, as someone who knows how would.

    The first of that name, or the one with that id.
    """
    path, forged = run / "records.jsonl", ""
    lines = Ledger(path).read()
    for line in lines:
        if name in (line.get("name"), line["id"]) and not forged:
            end, value = ("low", 0.0) if line["value"]["value"] == 1 else ("high", 1.0)
            line["value"] = line["value"] | {"value": value, end: value}
            forged = line["id"] = line["id"] if keep_id else record_from_json(line).id
    path.unlink()
    Ledger(path).append(lines)
    return forged


@pytest.mark.parametrize("keep_id", [True, False])
def test_a_forged_value_is_found_though_its_chain_is_whole(
    copied: Path, capsys: pytest.CaptureFixture[str], keep_id: bool
) -> None:
    forged = forge(copied, "robust_accuracy", keep_id=keep_id)
    with pytest.raises(SystemExit) as ended:
        main(["replay", str(copied), forged, "--json"])
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert (ended.value.code, said.err) == (1, "")
    assert found["record"] == forged and found["agrees"] is False
    assert found["before"]["value"]["value"] == 1.0 > found["after"]["value"]["value"]


def test_an_edited_line_breaks_the_chain(copied: Path) -> None:
    path = copied / "records.jsonl"
    path.write_text(path.read_text("utf-8").replace('"seed":0', '"seed":1', 1), "utf-8")
    with pytest.raises(RunError, match="chain breaks at line"):
        replay(copied, "m-0000000000")


def test_an_exchanged_model_is_not_what_the_numbers_are_about(copied: Path) -> None:
    record = record_of(copied, {"name": "robust_accuracy"})
    weights = copied / "models" / "baseline.safetensors"
    weights.write_bytes(b"other" + weights.read_bytes()[5:])
    assert replay(copied, record).agrees  # the model is trained again from what is recorded


def test_an_unknown_record_is_refused_with_some_that_are_known(finished: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown record 'm-nosuch'.*known: .*-"):
        replay(finished, "m-nosuch")


def test_people_see_both_values(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = record_of(finished, {"name": "clean_accuracy"})
    with pytest.raises(SystemExit) as ended:
        main(["replay", str(finished), record])
    shown = capsys.readouterr().out.splitlines()
    assert (ended.value.code, shown[0]) == (0, f"{record} agrees")
    assert shown[1].removeprefix("before: ") == shown[2].removeprefix("after:  ")


def test_verify_measures_some_numbers_again_and_finds_the_one_that_was_forged(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(copied), "--replay", "2", "--json"])
    whole = json.loads(capsys.readouterr().out)
    assert (ended.value.code, [one["agrees"] for one in whole["replayed"]]) == (0, [True, True])

    forged = forge(copied, whole["replayed"][0]["record"], keep_id=False)
    info = json.loads((copied / "run.json").read_text("utf-8"))
    info["records"] = Ledger(copied / "records.jsonl").head()  # as an owner of both files would
    (copied / "run.json").write_text(json.dumps(info), "utf-8")
    render(copied)
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(copied), "--replay", "2", "--json"])
    found = json.loads(capsys.readouterr().out)
    (failed,) = [one for one in found["parts"] if one["verdict"] == "fail"]
    assert (ended.value.code, failed["name"], failed["found"]) == (1, "numbers", [forged])
