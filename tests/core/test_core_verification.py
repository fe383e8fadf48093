"""Is a run as it was left? Each way in which it is not is found, and told in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from purpleteam.core.errors import RunError
from purpleteam.core.ledger import Ledger
from purpleteam.core.records import Note, record_from_json
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.verification import verify, verify_records

ASKED = {"dataset": "digits", "seed": 0}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of two cells, the second with a file."""
    made = RunFolder.create(tmp_path / "run", ASKED)
    made.cell("data", {}, lambda: [Note(name="dataset", facts={"digest": "sha256:0"})])
    file = made.path / "models" / "one.safetensors"
    file.write_bytes(b"weights")
    made.cell(
        "models",
        {},
        lambda: [Note(name="trained", facts={"epochs": 3}), made.artefact(file, "n-1")],
    )
    made.finish("finished")
    return made.path


def write_anew(run: Path, *, change_id: bool = True) -> None:
    """Change a value and compute the whole chain again, as someone who knows how would."""
    path = run / "records.jsonl"
    lines = Ledger(path).read()
    for line in lines:
        if line.get("name") == "trained":
            line["facts"] = {"epochs": 4}
            line["id"] = record_from_json(line).id if change_id else line["id"]
    path.unlink()
    Ledger(path).append(lines)


def change_info(run: Path, **facts: object) -> None:
    info = json.loads((run / "run.json").read_text("utf-8")) | facts
    kept = {key: value for key, value in info.items() if value is not None}
    (run / "run.json").write_text(json.dumps(kept), "utf-8")


def edit(run: Path) -> None:
    path = run / "records.jsonl"
    path.write_text(path.read_text("utf-8").replace('"epochs":3', '"epochs":4'), "utf-8")


def swap(run: Path) -> None:
    path = run / "records.jsonl"
    first, second, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([second, first, *rest]))


def own_both_but_not_the_ids(run: Path) -> None:
    write_anew(run, change_id=False)
    change_info(run, records=Ledger(run / "records.jsonl").head())


def drop_a_record_of_both(run: Path) -> None:
    path = run / "records.jsonl"
    lines = [line for line in Ledger(path).read() if line.get("name") != "trained"]
    path.unlink()
    Ledger(path).append(lines)
    change_info(run, records=Ledger(path).head())


def append_torn(run: Path) -> None:
    with (run / "records.jsonl").open("ab") as file:
        file.write(b'{"kind": "no')


WEIGHTS = "models/one.safetensors"
DAMAGE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a value is edited": (edit, "chain", "the hash chain breaks at line 3"),
    "two lines are swapped": (swap, "chain", "breaks at line 1"),
    "the chain is written anew": (write_anew, "end", "a line was changed and the chain written"),
    "the end is cut off": (
        lambda run: Ledger(run / "records.jsonl").keep(3),
        "end",
        "run.json tells of 5 lines, records.jsonl holds 3",
    ),
    "lines are added": (
        lambda run: Ledger(run / "records.jsonl").append([Note(name="late", facts={}).to_json()]),
        "end",
        "records.jsonl holds 6",
    ),
    "half a line is added": (append_torn, "chain", "line 6 is torn"),
    "all lines are gone": (lambda run: (run / "records.jsonl").unlink(), "chain", "no record"),
    "an id is not its content's": (own_both_but_not_the_ids, "records", "line 3 says it is n-"),
    "a cell lacks a record": (drop_a_record_of_both, "records", "closes on 2 records, not 1"),
    "a file is exchanged": (lambda run: (run / WEIGHTS).write_bytes(b"x"), "changed", WEIGHTS),
    "a file is lost": (lambda run: (run / WEIGHTS).unlink(), "missing", WEIGHTS),
    "a file is added": (
        lambda run: (run / "models" / "two.onnx").write_bytes(b"x"),
        "unexpected",
        "models/two.onnx",
    ),
    "a file's digest is exchanged": (
        lambda run: change_info(run, artefacts={WEIGHTS: "sha256:0"}),
        "names",
        f"differ about {WEIGHTS}",
    ),
    "a file is said to be elsewhere": (
        lambda run: change_info(run, artefacts={"../../x": "sha256:0"}),
        "names",
        "../../x leads outside the run",
    ),
    "the end cannot be read": (lambda run: change_info(run, records=7), "end", "cannot be read"),
}


def test_a_finished_run_passes_and_says_what_that_proves(run: Path) -> None:
    found = verify(run)
    assert (found.verdict, found.status) == ("pass", "finished")
    assert "Whoever owns both" in found.to_json()["proves"]


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_not_as_the_run_left_it_fails_and_is_named(run: Path, what: str) -> None:
    damage, name, told = DAMAGE[what]
    damage(run)
    found = verify(run)
    (part,) = [one for one in found.of("fail") if one.name == name]
    assert found.verdict == "fail" and told in part.message


def test_whoever_owns_both_files_passes_which_is_why_numbers_are_measured_again(run: Path) -> None:
    write_anew(run)
    change_info(run, records=Ledger(run / "records.jsonl").head())
    assert verify(run).verdict == "pass"


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"records": None, "status": "running"}, "under way or was killed"),
        ({"status": "stopped"}, "was stopped before its end"),
        ({"records": None}, "run.json names no end of the records: it is older"),
        ({"status": "dancing"}, "status 'dancing' is not known"),
    ],
)
def test_too_little_to_tell_is_neither_pass_nor_fail(
    run: Path, facts: dict[str, object], told: str
) -> None:
    change_info(run, **facts)
    found = verify(run)
    assert found.verdict == "unknown"
    assert any(told in one.message for one in found.of("unknown"))


def test_what_a_stopped_run_left_half_done_is_no_fault(run: Path) -> None:
    change_info(run, status="stopped")
    (run / "models" / "half.safetensors").write_bytes(b"x")
    assert verify(run).verdict == "unknown"


def test_hidden_files_and_the_report_belong_to_no_record(run: Path) -> None:
    for name in (".DS_Store", "models/.two.checkpoint", "report.html", "report.md"):
        (run / name).write_text("x", "utf-8")
    assert verify(run).verdict == "pass"


def test_a_run_that_was_changed_is_not_gone_on_with(run: Path) -> None:
    write_anew(run)
    with pytest.raises(RunError, match=r"is not as it was left: run\.json ends the chain with"):
        RunFolder.resume(run, ASKED)


@pytest.mark.parametrize("schema", [3, "2", None, 1.5, True])
def test_a_run_of_another_version_is_refused_in_one_line(run: Path, schema: object) -> None:
    info = json.loads((run / "run.json").read_text("utf-8")) | {"schema": schema}
    (run / "run.json").write_text(json.dumps(info), "utf-8")
    with pytest.raises(
        RunError, match=r"has schema .*, this version reads 0 to 2; install"
    ) as refused:
        verify_records(run)
    assert "\n" not in str(refused.value)
