"""evaluate: accuracy, loss, per-class scores, confusion matrix, calibration, time per image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

from purpleteam.core.records import Measurement, Record
from purpleteam.verbs.options import Images, Measuring, Model
from purpleteam.verbs.result import LISTED, Result, percent, table
from purpleteam.verbs.verb import verb

if TYPE_CHECKING:
    from purpleteam.models.inference import Evaluation

SHOWN = ("clean_accuracy", "loss", "calibration_error")


@dataclass(frozen=True, kw_only=True, repr=False)
class Evaluated(Result):
    """What a model does on unchanged images."""

    stage = "models"

    evaluation: Evaluation
    classes: tuple[str, ...]

    def lines(self) -> list[str]:
        numbers, values = self.evaluation, self.values
        beside = values.get("without_ramp", {}).values()
        lines = table(
            [(k.replace("_", " "), getattr(numbers, k)) for k in SHOWN]
            + [("without the ramp", percent(accuracy)) for accuracy in beside]
            + [("seconds per image", f"{numbers.seconds_per_image:.2e}")]
        )
        if len(self.classes) > LISTED:
            lines += ["", f"confusion matrix of {len(self.classes)} classes: in --json"]
        else:
            matrix = zip(self.classes, values["confusion_matrix"], strict=True)
            rows = [("true \\ read", *self.classes), *((name, *row) for name, row in matrix)]
            lines += ["", *table(rows)]
        scores: list[tuple[str, ...]] = [("class", "precision", "recall", "F1")]
        named = list(zip(self.classes, values["per_class"], strict=True))
        if len(named) > LISTED:
            scored = [pair for pair in named if pair[1]["recall"] is not None]
            named = sorted(scored, key=lambda pair: pair[1]["recall"]["value"])[:LISTED]
            lines += [f"the {len(named)} classes of least recall, of {len(self.classes)}:"]
        for name, row in named:
            scores.append((name, *(percent(row[key]) for key in ("precision", "recall", "f1"))))
        return [*lines, "", *table(scores)]


@verb(answers=True)
def evaluate(
    model: Model = "standard",
    images: Images = "digits",
    labels: Any = None,
    **given: Unpack[Measuring],
) -> Evaluated:
    """Accuracy, loss, per-class scores, confusion matrix, calibration and time per image."""
    from purpleteam.models.inference import evaluate as measure
    from purpleteam.verbs._subject import open_subject

    subject = open_subject(images, labels, model=model, measured=True, **given)
    names, about = subject.dataset.classes, subject.about()
    numbers = measure(subject.loaded.module, subject.images, classes=len(names), seed=subject.seed)
    values = numbers.to_json() | {"subject": about, "data": subject.data(subject.split)}
    records: list[Record] = [*numbers.measurements(about, names), subject.part()]
    if (bare := subject.without_ramp) is not None:
        rate = measure(bare.loaded.module, bare.images, classes=len(names)).clean_accuracy
        values["without_ramp"] = {"clean_accuracy": rate.to_json()}
        name = "clean_accuracy_without_ramp"
        records.append(Measurement(name=name, value=rate, subject=bare.about()))
    return Evaluated(
        evaluation=numbers,
        classes=names,
        values=values,
        records=tuple(records),
        notes=subject.notes,
    )
