"""A trial: a poison that is planted in a training set and in a model of its own, and looked for.

Each poison is learned by a model of its own, beside a clean one of the same recipe and seed, which
gives the base rate and shows what detectors say where there is nothing to find. What was planted
is compared with what a scan found only after the scan has answered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, eq=False)
class Trial:
    """A model that learned a poison. Without one it is the clean one of its seed."""

    name: str
    seed: int
    images: ImageSet
    """What it learned from."""
    model: LoadedModel
    poison: PoisonAttack | None = None
    poisoned: PoisonedSet | None = None
    clean: LoadedModel | None = None
    """The clean model of the same seed."""
    own: bool = False
    """No trial at all: what the run itself trains on or serves, of which nothing is known."""

    @property
    def stem(self) -> str:
        """What its files are called."""
        return f"{self.name}-{self.seed}"

    @property
    def planted(self) -> dict[str, Any]:
        """What the trial's records say of the poison, which the detectors are not told."""
        if self.poison is None or self.poisoned is None:
            return {"poison": "unknown" if self.own else "none"}
        return {
            "poison": self.poison.name,
            "poisoned": len(self.poisoned.indices),
            "target_label": self.poison.target_label,
        }


def plant(
    run: Run,
    stage: str,
    names: tuple[str, str],
    poison: PoisonAttack | None,
    recipe: tuple[str, Recipe],
    seed: int,
    *,
    images: ImageSet | None = None,
    lab: bool = False,
    architecture: str | None = None,
    **more: Any,
) -> Trial:
    """Train a model on a poisoned set and a clean one beside it; without a poison, that alone.

    `names` are those of the two in records; `more` is what their cards say beside of the training.
    """
    images = run.train if images is None else images

    def model(name: str, images: ImageSet, **facts: Any) -> LoadedModel:
        return run.trained(
            stage,
            name,
            recipe,
            role="poisoned" if facts else "clean_twin",
            images=images,
            seed=seed,
            stem=f"{name}-{seed}",
            architecture=architecture,
            lab=lab,
            **more,
            **facts,
        )

    name, clean_name = names
    if poison is None:
        return Trial(clean_name, seed, images, model(clean_name, images))
    poison.check(images, seed=seed, test=run.dataset.test)
    made = poison.apply(images, seed=seed)
    if not lab:
        model(clean_name, images)  # the lab has it already, or another process is at it
    planted = model(name, made.images, poison=poison.describe(run.dataset.shape[2]))
    return Trial(name, seed, made.images, planted, poison, made, clean=model(clean_name, images))


def scan(run: Run, trial: Trial, what: Literal["search", "scan"]) -> list[Record]:
    """Search a trial's training set for poisoned images, or scan its model, as one cell.

    Of the run's own model it is noted why it cannot be made.
    """
    asked = run.config.backdoors
    trusted, ranked = asked.trusted, asked.rank_detectors and trial.poison is not None
    facts: dict[str, Any] = {"own": trial.own, "planted": trial.planted}

    def look() -> Sequence[Record]:
        if what == "scan":
            subject = run.subject(
                trial.model, trial.name, split="validation", limit=trusted, seed=trial.seed
            )
            return detect_model(subject, trusted, trial.stem, **facts).records
        run.dataset.check_trainable()
        result = detect_training_set(
            run.subject(trial.model, trial.name, seed=trial.seed),
            trial.images,
            tuple(TRAINING_SET_DETECTORS) if ranked else (),
            **facts,
        )
        found: Any = result.scan
        return [*result.records, *([] if trial.own else _counted(run, trial, found))]

    def attempt() -> Sequence[Record]:
        try:
            return look()
        except PurpleError as error:
            if not trial.own:
                raise
            why = {"model_name": trial.name, "model": trial.model.digest, "why": str(error)}
            return [Note(name=NO_SEARCH, facts=why)]

    depends_on = {
        "model": trial.model.digest,
        "images": trial.images.digest,
        "seed": trial.seed,
        "planted": trial.planted,
    }
    if what == "scan":
        depends_on["n"] = len(run.trusted)
    elif not asked.rank_detectors:
        depends_on["ranked"] = False
    return run.cell("defences", f"{what} {trial.stem}", depends_on, attempt)


def _counted(run: Run, trial: Trial, scan: TrainingSetScan) -> list[Measurement]:
    """Return how well a scan did, counted with what was planted."""
    names = {"model": trial.model.digest, "model_name": trial.name}
    subject = run.subject(split="train").about(dataset=trial.images.digest, **names)
    kept, poison, flagged = (np.full(len(trial.images), start) for start in (True, False, False))
    if trial.poisoned is not None:
        poison |= trial.poisoned.mask
        kept &= ~trial.poisoned.cover_mask  # stamped and rightly labelled: neither of the two
    flagged[scan.flagged] = True
    found = metrics.evaluate_detection(scan.scores[kept], flagged[kept], poison[kept])
    values: list[tuple[str, str, Any]] = [
        ("false_positive_rate", "combined", found.false_alarm_rate)
    ]
    if poison.any():
        values.append(("detection_recall", "combined", found.recall))
        values.append(("detection_precision", "combined", found.precision))
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
