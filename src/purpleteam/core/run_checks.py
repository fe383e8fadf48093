"""What is proved about a run folder: its records are whole, and it says who did what with what."""

from __future__ import annotations

from pathlib import Path

from purpleteam.core.checks import CHECKS, Check, Outcome, Target
from purpleteam.core.errors import RunError
from purpleteam.core.records import Note
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.verification import verify_records

LINEAGE = ("actor", "asked", "versions", "machine")


@CHECKS.register("run.ledger")
class RunLedger(Check):
    """The hash chain of records.jsonl verifies, and ends where a finished run says it ended."""

    id = "run.ledger"
    proves = (
        "No record was lost, moved or damaged by accident: the hash chain verifies and ends where "
        "run.json says; without a key it shows nothing of someone who wrote both files anew."
    )
    needs = ("run",)

    def examine(self, target: Target) -> Outcome:
        try:
            found = verify_records(target.run or Path())
        except RunError as error:
            return Outcome(passed=False, message=str(error))
        wrong, unknown = found.of("fail"), found.of("unknown")
        if not wrong and unknown and found.status == "finished":
            raise RunError(unknown[0].message)
        return Outcome(
            passed=not wrong,
            measured="not whole" if wrong else "whole",
            threshold="whole",
            message=wrong[0].message if wrong else "",
        )

    def bad_example(self, folder: Path) -> Target:
        run = RunFolder.create(folder / "run", {"dataset": "digits"})
        run.cell("data", {}, lambda: [Note(name="one", facts={"value": 1})])
        path = run.path / "records.jsonl"
        path.write_text(path.read_text("utf-8").replace('"value":1', '"value":2'), "utf-8")
        return Target(run=run.path)


@CHECKS.register("run.lineage")
class RunLineage(Check):
    """run.json names the actor, the request with its seed, versions and machine."""

    id = "run.lineage"
    proves = (
        "The run says who asked for what, with which seed, versions, machine and data, "
        "in files that its owner can rewrite."
    )
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
