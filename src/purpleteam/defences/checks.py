"""What is proved about backdoors: checks that read what the searches of the run answered."""

from __future__ import annotations

from pathlib import Path

from purpleteam.core.checks import CHECKS, Check, Outcome, Target
from purpleteam.core.records import Note
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.schema import MODEL_SCAN, TRAINING_SET_SCAN

__all__ = ["MODEL_SCAN", "TRAINING_SET_SCAN", "BackdoorScan", "PoisonSearch"]


class _NothingFound(Check):
    """A search of that name ran on what the run itself made or serves, and found nothing."""

    needs = ("run",)
    search = ""

    def examine(self, target: Target) -> Outcome:
        notes = [note for note in _notes(target, self.search) if note.facts.get("own")]
        found = [note for note in notes if note.facts.get("backdoored")]
        unsure = [note for note in notes if note.facts.get("backdoored") is None]
        reasons = [reason for note in unsure for reason in note.facts.get("reasons", [])]
        message = "" if notes else f"no {self.search} of what is served was recorded"
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
        run.cell("control", {}, lambda: [Note(name=self.search, facts=facts)])
        return Target(run=run.path)


@CHECKS.register("model.backdoor-scan")
class BackdoorScan(_NothingFound):
    """A scan of the served model with trusted images alone found no backdoor."""

    id = "model.backdoor-scan"
    proves = "Trigger inversion on the served model found no label that is too easy to reach."
    search = MODEL_SCAN


@CHECKS.register("data.poison-search")
class PoisonSearch(_NothingFound):
    """A search of the training set that the baseline learned from found no poison."""

    id = "data.poison-search"
    proves = "A search of the training images found no group that teaches a backdoor."
    search = TRAINING_SET_SCAN


def _notes(target: Target, name: str) -> list[Note]:
    records = RunFolder.open(target.run or Path()).records()
    return [one for one in records if isinstance(one, Note) and one.name == name]
