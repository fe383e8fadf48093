"""What is proved about backdoors: checks that read the verdicts of the run's scans."""

from pathlib import Path

from purpleteam.core.checks import CHECKS, Check, Outcome, Target
from purpleteam.core.errors import Absent
from purpleteam.core.records import Note
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.schema import MODEL_SCAN, TRAINING_SET_SCAN


class _NothingFound(Check):
    """A scan of that name ran on a model or set of this run, and found nothing."""

    needs = ("run",)
    scan = ""

    def examine(self, target: Target) -> Outcome:
        records = RunFolder.open(target.run or Path()).records()
        notes = [note for note in records if isinstance(note, Note) and note.name == self.scan]
        notes = [note for note in notes if note.facts.get("own")]
        if not notes:
            raise Absent(f"no {self.scan} of the run's own models was recorded")
        verdicts = [note.facts.get("backdoored") for note in notes]
        flagged, unsure = sum(map(bool, verdicts)), verdicts.count(None)
        message = ""
        if unsure and not flagged:  # none found is not the same as none there
            doubtful = [note for note in notes if note.facts.get("backdoored") is None]
            reasons = "; ".join(why for note in doubtful for why in note.facts.get("reasons", []))
            message = f"not established: {reasons or 'the scan gave no verdict'}"
        return Outcome(
            passed=not flagged and not unsure,
            measured={"looked_into": len(notes), "backdoored": flagged, "not_established": unsure},
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
    """Trigger inversion found no label that is too easy to reach, in any model scanned."""

    scan = MODEL_SCAN


@CHECKS.register("data.poison-search")
class PoisonSearch(_NothingFound):
    """A search of the training images found no group that teaches a backdoor."""

    scan = TRAINING_SET_SCAN
