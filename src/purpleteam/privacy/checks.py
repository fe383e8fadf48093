"""What is proved about what a model gives away: checks that read what was measured in the run."""

from pathlib import Path

from purpleteam.core.checks import CHECKS, Check, Outcome, Target
from purpleteam.core.errors import Absent
from purpleteam.core.records import Measurement, notes_of
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.schema import MODEL, model_note
from purpleteam.core.statistics import Estimate, Rate

MEMBERSHIP_CEILING = 0.05
"""Of the training images, at one false alarm in a hundred: five times what guessing finds."""
FALSE_POSITIVES = 0.01
BUDGET_CEILING = 8.0
"""Epsilon, beyond which differential privacy says little."""
COPY_CEILING = 0.9
"""Agreement of a copy with the model, above which it is as good as the model for most uses."""
UNDER_TEST = ("baseline", "brought")


def _measured(target: Target, name: str) -> list[Measurement]:
    """Return what was measured under that name of the models under test."""
    records = RunFolder.open(target.run or Path()).records()
    notes = [note for note in notes_of(records, MODEL) if note.facts.get("role") in UNDER_TEST]
    models = {str(note.facts["model"]) for note in notes}
    found = [row for row in records if isinstance(row, Measurement) and row.name == name]
    return [row for row in found if row.subject["model"] in models]


def _upper_end(record: Measurement) -> float:
    """Return the upper end of a rate, of where its threshold lies too where that is known."""
    bounds = record.detail.get("bounds", {})
    return max(float(bounds.get("high", 0.0)), _rate(record).high)


def _rate(record: Measurement) -> Rate:
    if not isinstance(record.value, Rate):
        raise TypeError(f"{record.id} is no rate")
    return record.value


def _inputs(records: list[Measurement]) -> dict[str, str]:
    return {record.id: str(record.subject["model"]) for record in records}


@CHECKS.register("privacy.membership")
class Membership(Check):
    """No membership inference recognises the training images much better than guessing does.

    At one false alarm in a hundred the upper end of each rate stays below five in a hundred, under
    attacks of which one at least compares with shadow models.
    """

    needs = ("run",)

    def examine(self, target: Target) -> Outcome:
        found = [
            record
            for record in _measured(target, "membership_rate")
            if record.how.get("false_positive_rate") == FALSE_POSITIVES
        ]
        if not found:
            raise Absent("no membership inference at one false alarm in a hundred was recorded")
        worst = max(found, key=_upper_end)
        shadowed = any(record.how.get("shadows") for record in found)
        trusted = all(record.detail.get("trusted", True) for record in found)
        message = "" if shadowed else "no attack compared with shadow models"
        if not trusted:
            message = "members and others come from sets that differ without any training"
        high = _upper_end(worst)
        if not message and high > MEMBERSHIP_CEILING >= _rate(worst).value:
            message = "too few images to tell: what was found is less than that"
        return Outcome(
            passed=shadowed and trusted and high <= MEMBERSHIP_CEILING,
            measured={"upper_end": round(high, 4), "attack": worst.how.get("attack")},
            threshold=MEMBERSHIP_CEILING,
            message=message,
            inputs=_inputs(found),
        )

    def bad_example(self, folder: Path) -> Target:
        how = {"attack": "lira", "false_positive_rate": FALSE_POSITIVES, "shadows": 8}
        return _run_with(folder, "membership_rate", how, Rate.of(300, 1000))


@CHECKS.register("privacy.copy")
class Copy(Check):
    """No copy that was trained on the model's answers agrees with it on nine images in ten.

    The questions are as many as were asked in this run: its records say how many.
    """

    needs = ("run",)

    def examine(self, target: Target) -> Outcome:
        found = _measured(target, "copy_agreement")
        if not found:
            raise Absent("no copy of the model was tried")
        best = max(found, key=lambda record: _rate(record).high)
        high = _rate(best).high
        return Outcome(
            passed=high < COPY_CEILING,
            measured={"upper_end": round(high, 4), "queries": best.how.get("queries")},
            threshold=COPY_CEILING,
            inputs=_inputs(found),
        )

    def bad_example(self, folder: Path) -> Target:
        how = {"strategy": "natural", "queries": 1000, "answers": "scores"}
        return _run_with(folder, "copy_agreement", how, Rate.of(970, 1000))


@CHECKS.register("privacy.budget")
class Budget(Check):
    """The model was trained with differential privacy in a small budget, and an audit agrees.

    The accountant's epsilon is at most 8, and no canary proves that more was spent.
    """

    needs = ("run",)

    def examine(self, target: Target) -> Outcome:
        found = _measured(target, "epsilon_audited")
        if not found:
            raise Absent("no training with differential privacy was audited")
        spent = [float(record.detail["epsilon_upper"]) for record in found]
        broken = [record for record in found if not record.detail.get("holds")]
        return Outcome(
            passed=not broken and max(spent) <= BUDGET_CEILING,
            measured={
                "epsilon": round(max(spent), 4),
                "at_least": round(max(record.value.low for record in found), 4),  # type: ignore[union-attr]
            },
            threshold=BUDGET_CEILING,
            message="canaries prove that more was spent" if broken else "",
            inputs=_inputs(found),
        )

    def bad_example(self, folder: Path) -> Target:
        detail: dict[str, object] = {"epsilon_upper": 3.0, "holds": False}
        proved = Estimate(value=4.2, n=1000, low=4.2, high=9.0, method="one-run")
        return _run_with(folder, "epsilon_audited", {}, proved, detail)


def _run_with(
    folder: Path,
    name: str,
    how: dict[str, object],
    value: Rate | Estimate,
    detail: dict[str, object] | None = None,
) -> Target:
    run = RunFolder.create(folder / "run", {})
    subject = {"model": "sha256:0", "model_name": "net"}
    bad = Measurement(name=name, value=value, subject=subject, how=how, detail=detail or {})
    run.cell("control", {}, lambda: [bad, model_note("sha256:0", "net", "baseline")])
    return Target(run=run.path)
