"""What is proved about a run folder: its records are whole, and it says who did what with what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from purpleteam.core.checks import CHECKS, Check, Outcome, Target
from purpleteam.core.errors import RunError
from purpleteam.core.ledger import Ledger
from purpleteam.core.records import Note
from purpleteam.core.runfolder import RunFolder

__all__ = ["RunLedger", "RunLineage"]

LINEAGE = ("actor", "asked", "versions", "machine")


@CHECKS.register("run.ledger")
class RunLedger(Check):
    """The hash chain of records.jsonl verifies, and ends where a finished run says it ended."""

    id = "run.ledger"
    proves = "No recorded line was edited, removed or put elsewhere: the hash chain verifies."
    needs = ("run",)

    def examine(self, target: Target) -> Outcome:
        folder = target.run or Path()
        try:
            head = Ledger(folder / "records.jsonl").head()
        except RunError as error:
            return Outcome(passed=False, message=str(error).rsplit("/", 1)[-1])
        ended = _head_at_end(folder, head)
        if head != ended:
            told = f"run.json tells of {ended['lines']} lines, records.jsonl holds {head['lines']}"
            return Outcome(passed=False, measured=head, threshold=ended, message=told)
        return Outcome(passed=head["lines"] > 0, measured="whole", threshold="whole")

    def bad_example(self, folder: Path) -> Target:
        Ledger(folder / "records.jsonl").append([Note(name="one", facts={"value": 1}).to_json()])
        path = folder / "records.jsonl"
        path.write_text(path.read_text("utf-8").replace('"value":1', '"value":2'), "utf-8")
        return Target(run=folder)


def _head_at_end(folder: Path, head: dict[str, Any]) -> dict[str, Any]:
    """Return the head that run.json names; a run that has not ended names none yet."""
    if not (folder / "run.json").exists():
        return head
    ended: dict[str, Any] = RunFolder.open(folder).info.get("records", head)
    return ended


@CHECKS.register("run.lineage")
class RunLineage(Check):
    """run.json names the actor, the request with its seed, versions and machine."""

    id = "run.lineage"
    proves = "The run names who asked for what, with which seed, versions, machine and data."
    needs = ("run",)

    def examine(self, target: Target) -> Outcome:
        run = RunFolder.open(target.run or Path())
        info = run.info
        missing = [key for key in LINEAGE if not info.get(key)]
        missing += [key for key in ("seed", "dataset") if key not in info.get("asked", {})]
        if not any(isinstance(one, Note) and one.name == "dataset" for one in run.records()):
            missing.append("data digest")
        return Outcome(
            passed=not missing,
            measured=sorted(set(LINEAGE) - set(missing)),
            threshold=sorted(LINEAGE),
            message=f"missing: {', '.join(missing)}" if missing else "",
        )

    def bad_example(self, folder: Path) -> Target:
        run = RunFolder.create(folder / "run", {"dataset": "digits"})
        return Target(run=run.path)
