"""repair: take a backdoor out of a model, with what a scan of it or of its training set finds."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Unpack

from purpleteam.core.errors import UsageError
from purpleteam.core.records import Record
from purpleteam.verbs.detect import detect_model, detect_training_set
from purpleteam.verbs.options import Epochs, Images, Model, OnModel, Trusted
from purpleteam.verbs.result import Result
from purpleteam.verbs.trained import part, store_measured
from purpleteam.verbs.verb import verb

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from purpleteam.core.cards import StoredModel
    from purpleteam.data.images import ImageSet
    from purpleteam.defences.detection.recovered import RecoveredTrigger
    from purpleteam.defences.repair import Repair
    from purpleteam.models.recipes import Recipe
    from purpleteam.verbs._subject import Subject


@dataclass(frozen=True, kw_only=True, repr=False)
class RepairedModel(Result):
    """A repaired, stored model, and its accuracy before and after."""

    stage = "defences"

    stored: StoredModel


@verb()
def repair(
    model: Model,
    images: Images = "digits",
    labels: Any = None,
    *,
    method: Annotated[Any, "unlearn, retrain, ..., with [:field=value,...]."] = "unlearn",
    detection: Annotated[
        Path | str | None, "What purple detect --training-set --out wrote."
    ] = None,
    recipe: Annotated[Any, "For retrain: training recipe."] = "plain",
    epochs: Epochs = None,
    trusted: Trusted = 1000,
    **given: Unpack[OnModel],
) -> RepairedModel:
    """Take a backdoor out of a model; --dataset is what it learned, validation is trusted."""
    from purpleteam.defences.repair import REPAIRS
    from purpleteam.models.inference import correct
    from purpleteam.models.recipes import RECIPES
    from purpleteam.verbs._subject import open_subject
    from purpleteam.verbs.outputs import stem_to_write

    chosen = part(REPAIRS, method, "--method")
    taught = part(RECIPES, recipe, "recipe", epochs=epochs)
    subject = open_subject(images, labels, model=model, training=True, **given)
    stem = stem_to_write(given["out"], f"{subject.dataset.name}-{chosen.name}")
    started = time.perf_counter()
    flagged, trigger, notes = None, None, list[str]()
    if "flagged" in chosen.needs:
        subject, flagged, notes = _flagged(subject, detection)
    if "trigger" in chosen.needs:
        detected = detect_model(replace(subject, run=None), trusted)
        if (trigger := detected.trigger) is None:
            scan = detected.scan
            score = f"score {scan.score or 0:.3g}, flagged from {scan.threshold:.3g}"
            why = f"{scan.verdict.replace('_', ' ')}: {'; '.join(scan.reasons) or score}"
            remedy = "--method retrain needs none"
            raise UsageError(f"the scan recovered no trigger to unlearn ({why}); {remedy}")
    clean, few = subject.trusted(trusted)
    before = float(correct(subject.loaded.module, subject.dataset.validation).mean())
    card = subject.loaded.card
    stored, records = repair_and_store(
        subject,
        chosen,
        stem,
        str(model) if card is None else given["arch"] or card.architecture,
        train=subject.dataset.train,
        trusted=clean,
        recipe=taught,
        flagged=flagged,
        trigger=trigger,
    )
    values = {
        "model": str(stored.weights),
        "digest": stored.card.digest,
        "validation_accuracy": stored.card.validation_accuracy,
        "method": chosen.name,
        "validation_accuracy_before": before,
        "target_label": None if trigger is None else trigger.target_label,
        "seconds": round(time.perf_counter() - started, 2),
        "data": subject.data(),
    }
    told = (*subject.notes, *notes, *few)
    return RepairedModel(stored=stored, values=values, records=tuple(records), notes=told)


def repair_and_store(
    subject: Subject,
    chosen: Repair,
    stem: Path,
    arch: str,
    *,
    train: ImageSet,
    trusted: ImageSet,
    recipe: Recipe,
    flagged: NDArray[np.int64] | None = None,
    trigger: RecoveredTrigger | None = None,
    name: str | None = None,
    lab: bool = False,
) -> tuple[StoredModel, list[Record]]:
    """Repair the subject's model, store it, and return the records of it."""
    from purpleteam.defences.evaluate import run_repair
    from purpleteam.defences.repair import Repairing

    given = Repairing(
        model=subject.loaded.module,
        net=lambda: subject.net(arch),
        train=train,
        flagged=flagged,
        trusted=trusted,
        trigger=trigger,
        target_label=None if trigger is None else trigger.target_label,
        recipe=recipe,
        validation=subject.dataset.validation,
        seed=subject.seed,
        device=subject.device,
        progress=subject.progress,
    )
    made = run_repair(chosen, given)
    facts = {"name": chosen.name, **asdict(chosen)}
    return store_measured(
        subject,
        made.module,
        stem,
        arch,
        "repaired",
        train,
        how={"repair": facts},
        recipe=facts | {"repair": chosen.name},
        cost={"seconds": made.seconds, "cpu_seconds": made.cpu_seconds},
        parent=subject.loaded.digest,
        name=name,
        lab=lab,
    )


def _flagged(
    subject: Subject, detection: Path | str | None
) -> tuple[Subject, NDArray[np.int64], list[str]]:
    """Return the places of flagged training images, from the file or by a scan, and notes.

    Where a set without splits was scanned whole, flagged validation images no longer validate.
    """
    import numpy as np

    dataset, notes = subject.dataset, list[str]()
    scanned = dataset.split(dataset.searched)
    if detection is not None:
        flagged = np.array(_read(Path(detection), scanned), np.int64)
    else:
        flagged = np.array(detect_training_set(subject).values["flagged"], np.int64)
        notes.append(f"the scan flagged {len(flagged)} of {len(scanned)} images")
    if dataset.whole is None:
        return subject, flagged, notes

    def contents(images: ImageSet) -> list[tuple[bytes, int]]:  # the same in another order
        pairs = zip(images.images, images.labels, strict=True)
        return [(pixels.tobytes(), int(label)) for pixels, label in pairs]

    suspects = set(contents(scanned.take(flagged)))
    train, validation = (
        np.array([content in suspects for content in contents(images)], np.bool_)
        for images in (dataset.train, dataset.validation)
    )
    kept = dataset.validation.take(np.flatnonzero(~validation))
    if not len(kept):
        raise UsageError(
            f"all {len(validation)} validation images are flagged: none is left to "
            "trust; bring clean images in validation/<class>/"
        )
    notes.append(
        f"of {len(flagged)} flagged images, {train.sum()} are left out of training and "
        f"{validation.sum()} of validation"
    )
    subject = replace(subject, dataset=replace(dataset, validation=kept))
    return subject, np.flatnonzero(train), notes


def _read(path: Path, images: ImageSet) -> list[int]:
    """Return the flagged places in what `purple detect --training-set --out` wrote."""
    name = f"--detection {str(path)!r}"
    try:
        answer = json.loads(path.read_text(encoding="utf-8"))
        places = [int(place) for place in answer["flagged"]]
        digest = answer.get("dataset", images.digest)
    except (OSError, ValueError, KeyError, TypeError) as error:
        form = "is no answer of purple detect --training-set"
        raise UsageError(f"{name} {form}: {error}") from None
    if wrong := [place for place in places if not 0 <= place < len(images)]:
        known = f"and there are {len(images)}: was another set scanned?"
        raise UsageError(f"{name} flags image {wrong[0]}, {known}")
    if digest != images.digest:
        raise UsageError(
            f"{name} is about other images, {digest}, than those to scan, {images.digest}: scan "
            "them with purple detect --training-set"
        )
    return places
