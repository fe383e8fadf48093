"""A trial: a poison planted in a training set and in a model of its own, and scanned for.

Beside it stands a clean model of the same recipe and seed, which gives the base rate and shows what
detectors say where there is nothing to find. What was planted is compared with what a scan found
only after the scan has answered.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from purpleteam.attacks.poison import PoisonAttack, PoisonedSet
from purpleteam.core.errors import PurpleError
from purpleteam.core.records import Measurement, Note, Record
from purpleteam.core.schema import NO_SEARCH
from purpleteam.data.images import ImageSet
from purpleteam.defences.detection import metrics
from purpleteam.defences.detection.training_set import TRAINING_SET_DETECTORS, TrainingSetScan
from purpleteam.models.loading import LoadedModel
from purpleteam.models.recipes import Recipe
from purpleteam.pipeline.state import Run
from purpleteam.verbs.detect import detect_model, detect_training_set
from purpleteam.verbs.poison import backdoor_records


@dataclass(frozen=True, eq=False)
class Trial:
    """A model and the images that it learned, in which nothing was planted here."""

    model: LoadedModel
    seed: int
    images: ImageSet
    own: bool = False  # whether the run itself trains on it or serves it: of that nothing is known

    @property
    def stem(self) -> str:
        """What its files are called."""
        return f"{self.model.name}-{self.seed}"

    @property
    def planted(self) -> dict[str, Any]:
        """What the trial's records say of the poison, which the detectors are not told."""
        return {"poison": "unknown" if self.own else "none"}


@dataclass(frozen=True, eq=False, kw_only=True)
class Planted(Trial):
    """A model that learned a poison, and the clean one of the same seed."""

    poison: PoisonAttack
    poisoned: PoisonedSet
    clean: LoadedModel
    lab: bool

    @property
    def planted(self) -> dict[str, Any]:
        return {
            "poison": self.poison.name,
            "poisoned": len(self.poisoned.indices),
            "target_label": self.poison.target_label,
        }


def plant(
    run: Run,
    stage: str,
    names: tuple[str, str],
    poison: PoisonAttack,
    recipe: Recipe,
    seed: int,
    *,
    images: ImageSet | None = None,
    lab: bool = False,
    **more: Any,
) -> Planted:
    """Train a model on a poisoned set and a clean one beside it; `names` are theirs in records.

    `more` goes to `Run.trained`.
    """
    images = run.train if images is None else images
    name, clean_name = names
    train = partial(run.trained, stage, recipe=recipe, seed=seed, lab=lab, **more)
    train_clean = partial(train, name=clean_name, role="clean_twin", images=images)
    poison.check(images, seed=seed, test=run.dataset.test)
    made = poison.apply(images, seed=seed)
    if not lab:  # the lab has it already, or another process is at it
        train_clean()
    how = poison.describe(run.dataset.shape[2])
    model = train(name=name, role="poisoned", images=made.images, poison=how)
    facts: dict[str, Any] = {"poison": poison, "poisoned": made, "clean": train_clean(), "lab": lab}
    return Planted(model, seed, made.images, **facts)


def backdoor(run: Run, stage: str, trial: Planted) -> list[Record]:
    """Measure what the trigger does to both models of a trial, as one cell."""
    depends_on = {
        "poison": trial.poison.describe(run.dataset.shape[2]),
        "model": trial.model.digest,
        "clean": trial.clean.digest,
        "seed": trial.seed,
    }
    subject = run.subject(trial.model, seed=trial.seed)
    measure = partial(
        backdoor_records, subject, trial.clean, trial.poison, trial.poisoned, trial.lab
    )
    return run.cell(stage, f"backdoor {trial.model.name}", depends_on, measure)


def scan(run: Run, trial: Trial, what: Literal["search", "scan"]) -> list[Record]:
    """Search a trial's training set for poisoned images, or scan its model, as one cell.

    Where this cannot be done with the run's own model, the reason is recorded.
    """
    trusted, ranked = run.config.backdoors.trusted, run.config.backdoors.rank_detectors
    facts: dict[str, Any] = {"own": trial.own, "planted": trial.planted}

    def look() -> Sequence[Record]:
        subject = run.subject(trial.model, seed=trial.seed)
        if what == "scan":
            subject = replace(subject, split="validation", limit=trusted)
            return detect_model(subject, trusted, **facts).records
        run.dataset.check_trainable()
        detectors = tuple(TRAINING_SET_DETECTORS) if ranked and isinstance(trial, Planted) else ()
        result = detect_training_set(subject, trial.images, detectors, **facts)
        made: Any = result.scan
        return [*result.records, *([] if trial.own else _counted(run, trial, made))]

    def attempt() -> Sequence[Record]:
        try:
            return look()
        except PurpleError as error:
            if not trial.own:
                raise
            why = {"model_name": trial.model.name, "model": trial.model.digest, "why": str(error)}
            return [Note(name=NO_SEARCH, facts=why)]

    depends_on = {
        "model": trial.model.digest,
        "images": trial.images.digest,
        "seed": trial.seed,
        "planted": trial.planted,
    }
    if what == "scan":
        depends_on["n"] = len(run.trusted)
    elif not ranked:
        depends_on["ranked"] = False
    return run.cell("defences", f"{what} {trial.stem}", depends_on, attempt)


def _counted(run: Run, trial: Trial, scan: TrainingSetScan) -> list[Measurement]:
    """Return how well a scan did, counted with what was planted."""
    names = {"model": trial.model.digest, "model_name": trial.model.name}
    subject = run.subject(split="train").about(dataset=trial.images.digest, **names)
    kept, poison, flagged = (np.full(len(trial.images), start) for start in (True, False, False))
    if isinstance(trial, Planted):
        poison |= trial.poisoned.mask
        kept &= ~trial.poisoned.cover_mask  # stamped and rightly labelled: neither of the two
    flagged[scan.flagged] = True
    detection = metrics.evaluate_detection(scan.scores[kept], flagged[kept], poison[kept])
    values: list[tuple[str, str, Any]] = [
        ("false_positive_rate", "combined", detection.false_alarm_rate)
    ]
    if poison.any():
        values.append(("detection_recall", "combined", detection.recall))
        values.append(("detection_precision", "combined", detection.precision))
        for detector, scores in {**scan.by_detector, "combined": scan.scores}.items():
            ranked = scores[kept], poison[kept]  # what its ranking is worth at any threshold
            values.append(("detector_auroc", detector, metrics.auroc(*ranked)))
            values.append(("average_precision", detector, metrics.average_precision(*ranked)))
    return [
        Measurement(
            name=name,
            value=value,
            subject=subject,
            how={"lab": True, "detector": detector, **trial.planted},
            seed=trial.seed,
        )
        for name, detector, value in values
        if value is not None
    ]
