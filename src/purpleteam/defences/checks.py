"""What is proved about backdoors: checks that read the verdicts of the run's scans."""

from __future__ import annotations

from pathlib import Path

from purpleteam.core.checks import CHECKS, Check, Outcome, Target
from purpleteam.core.records import Note
from purpleteam.core.runfolder import RunFolder

MODEL_SCAN, TRAINING_SET_SCAN = "model-scan", "training-set-scan"
"""Names of the notes that hold a scan's result."""


class _NothingFound(Check):
    """A scan of that name ran on a model or set of this run, and found nothing."""

    needs = ("run",)
    scan = ""

    def examine(self, target: Target) -> Outcome:
        records = RunFolder.open(target.run or Path()).records()
        notes = [
            record
            for record in records
            if isinstance(record, Note) and record.name == self.scan and record.facts.get("own")
        ]
        found = [note for note in notes if note.facts.get("backdoored")]
        unsure = [note for note in notes if note.facts.get("backdoored") is None]
        reasons = [reason for note in unsure for reason in note.facts.get("reasons", [])]
        message = "" if notes else f"no {self.scan} of what is served was recorded"
        if unsure and not found:  # not found is not the same as nothing there
            message = f"not established: {'; '.join(reasons) or 'the scan gave no verdict'}"
        return Outcome(
            passed=bool(notes) and not found and not unsure,
            measured={
                "looked_into": len(notes),
                "backdoored": len(found),
                "not_established": len(unsure),
            },
            threshold=0,
            message=message,
            inputs={note.id: str(note.facts.get("subject")) for note in notes},
        )

    def bad_example(self, folder: Path) -> Target:
        run = RunFolder.create(folder / "run", {})
        facts = {"own": True, "backdoored": True, "subject": "sha256:0"}
        run.cell("control", {}, lambda: [Note(name=self.scan, facts=facts)])
        return Target(run=run.path)


@CHECKS.register("model.backdoor-scan")
class BackdoorScan(_NothingFound):
    """A scan of the served model with trusted images alone found no backdoor."""

    id = "model.backdoor-scan"
    proves = "Trigger inversion on the served model found no label that is too easy to reach."
    scan = MODEL_SCAN


@CHECKS.register("data.poison-search")
class PoisonSearch(_NothingFound):
    """A scan of the training set that the baseline learned from found no poison."""

    id = "data.poison-search"
    proves = "A search of the training images found no group that teaches a backdoor."
    scan = TRAINING_SET_SCAN
