"""The poison lab's repairs: each takes the backdoor out of a model, and is then attacked again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from purpleteam.attacks.poison import PoisonAttack
from purpleteam.attacks.poison.evaluate import evaluate_backdoor
from purpleteam.core.config import build as build_part
from purpleteam.core.config import parse_part
from purpleteam.core.errors import UsageError
from purpleteam.core.factory import is_factory
from purpleteam.core.records import Measurement, Note, Record
from purpleteam.core.schema import NO_REPAIR, model_note
from purpleteam.core.statistics import Rate
from purpleteam.data.images import ImageSet
from purpleteam.defences.detection.metrics import residual_poisons
from purpleteam.defences.detection.recovered import RecoveredTrigger
from purpleteam.defences.repair import REPAIRS, Repair, Repairing
from purpleteam.defences.repair.evaluate import Repaired, evaluate_repair, run_repair
from purpleteam.defences.repair.repoison import repoison
from purpleteam.models.inference import correct
from purpleteam.models.loading import LoadedModel, load
from purpleteam.models.store import Provenance, store
from purpleteam.pipeline.stages.hunting import flagged_by, recovered_by, scanned_model, searched
from purpleteam.pipeline.stages.models import recipe_of
from purpleteam.pipeline.stages.trial import CLEAN, Trial, trusted_images
from purpleteam.pipeline.work import Work

__all__ = ["plant_again", "repair_of", "repaired"]

AGAIN = "attack_success_rate_planted_again"
"""What is measured after a repaired model was tuned on a few fresh poisons."""


def repair_of(text: str) -> Repair:
    """Return the repair that an entry of `backdoors.repairs` means.

    Raises:
        UsageError: there is no such repair, or a field of it is wrong.
    """
    name, values = parse_part(text)
    return build_part(REPAIRS[name], values, f"backdoors.repairs {name}")


def repaired(work: Work, trial: Trial, text: str) -> None:
    """Repair a trial's model with what the searches found, and measure what is left."""
    repair, asked = repair_of(text), work.config.backdoors
    flagged = flagged_by(searched(work, trial)) if asked.search_training_set else []
    scan = scanned_model(work, trial) if asked.scan_models else []
    one = _Repair(work, trial, repair, flagged, recovered_by(work, scan))
    records = work.cell("defences", f"repair {one.stem}", one.depends_on, one.done)
    if any(isinstance(record, Note) and record.name == NO_REPAIR for record in records):
        return
    code = one.architecture if is_factory(one.architecture) else None
    model = load(str(one.path), arch=code, device=work.device)
    model = model.in_order_of(work.dataset.classes, work.dataset.name)
    work.models[one.stem] = model
    depends_on = {"model": model.digest, "before": trial.model.digest, "what": trial.planted()}
    work.cell("defences", f"after {one.stem}", depends_on, lambda: one.measured(model))


@dataclass(frozen=True, eq=False)
class _Repair:
    """One repair of one trial's model."""

    work: Work
    trial: Trial
    repair: Repair
    flagged: Sequence[int]
    recovered: tuple[str, RecoveredTrigger] | None
    """The digest of the trigger that the scan recovered, and the trigger."""

    @property
    def name(self) -> str:
        return f"{self.trial.name}/{self.repair.name}"

    @property
    def stem(self) -> str:
        return f"{self.trial.stem}-{self.repair.name}"

    @property
    def architecture(self) -> str:
        return self.work.config.backdoors.architecture or self.work.architecture

    @property
    def path(self) -> Path:
        return self.work.run.path / "models" / self.stem

    @property
    def depends_on(self) -> dict[str, Any]:
        return {
            "model": self.trial.model.digest,
            "repair": self.recipe,
            "seed": self.trial.seed,
            "flagged": list(self.flagged),
            "trigger": None if self.recovered is None else self.recovered[0],
            "trusted": self.work.config.backdoors.trusted,
        }

    @property
    def recipe(self) -> dict[str, Any]:
        return {"name": self.repair.name, **asdict(self.repair)}

    def done(self) -> list[Record]:
        """Repair and store; a repair that has nothing to go by says so in a note."""
        try:
            made = run_repair(self.repair, self.given())
        except UsageError as error:
            facts = {"model_name": self.name, "seed": self.trial.seed, "why": str(error)}
            return [Note(name=NO_REPAIR, facts=facts)]
        return self.stored(made)

    def given(self) -> Repairing:
        """Return what a repair works with: what was found, not what was planted."""
        work, asked, trial = self.work, self.work.config.backdoors, self.trial
        trigger = None if self.recovered is None else self.recovered[1]
        return Repairing(
            model=trial.model.module,
            net=lambda: work.net(self.architecture, seed=trial.seed),
            trusted=trusted_images(work),
            validation=work.dataset.validation,
            train=trial.images,
            flagged=np.array(self.flagged, np.int64),
            trigger=trigger,
            target_label=None if trigger is None else trigger.target_label,
            recipe=recipe_of(asked.recipe, asked.epochs),
            seed=trial.seed,
            device=work.device,
            progress=work.progress,
        )

    def stored(self, made: Repaired) -> list[Record]:
        """Write the repaired model and return its records."""
        work = self.work
        right = correct(made.module, work.dataset.validation)
        provenance = Provenance(
            architecture=self.architecture,
            shape=work.shape,
            classes=work.dataset.classes,
            recipe={**self.recipe, "seed": self.trial.seed},
            data_digest=self.trial.images.digest,
            parent=self.trial.model.digest,
            validation_accuracy=float(right.mean()),
        )
        card = store(made.module, self.path, provenance).card
        subject = {
            "model": card.digest,
            "model_name": self.name,
            "dataset": work.dataset.validation.digest,
            "dataset_name": work.dataset.name,
            "split": "validation",
            "selection": "all",
        }
        measured = Measurement(
            name="validation_accuracy",
            value=Rate.of(int(right.sum()), len(right)),
            subject=subject,
            how={"repair": self.recipe},
            seed=self.trial.seed,
            cost={"seconds": made.seconds, "cpu_seconds": made.cpu_seconds},
        )
        files = [self.path.with_name(self.stem + end) for end in (".safetensors", ".onnx", ".json")]
        part = model_note(card.digest, self.name, "repaired", lab=True)
        return [part, measured, *(work.run.artefact(file, measured.id) for file in files)]

    def measured(self, model: LoadedModel) -> list[Record]:
        """Return what the trigger still does to the repaired model, on test images."""
        trial, test = self.trial, self.work.dataset.test
        if trial.poison is None or trial.twin is None:
            return []
        before = evaluate_backdoor(trial.model.module, test, trial.poison)
        made = Repaired(repair=self.repair.name, module=model.module, cpu_seconds=0, seconds=0)
        found = evaluate_repair(
            made,
            before,
            test,
            trial.poison,
            clean_model=trial.twin.module,
            residual_poisons=self._residual(),
        )
        subject = self.work.subject(model, self.name) | {"before": trial.model.digest}
        how = {"lab": True, **trial.planted()}
        records = [replace(one, cost={}) for one in found.measurements(subject, how, trial.seed)]
        return [*records, *self._planted_again(model, subject, how)]

    def _residual(self) -> int | None:
        """Return how many poisoned images the repair's training set still held."""
        if self.trial.poisoned is None or self.repair.name != "retrain":
            return None
        removed = np.zeros(len(self.trial.images), np.bool_)
        removed[list(self.flagged)] = True
        return residual_poisons(removed, self.trial.poisoned.mask)

    def _planted_again(
        self,
        model: LoadedModel,
        subject: dict[str, Any],
        how: dict[str, Any],
    ) -> list[Measurement]:
        """Return how well a few fresh poisons bring the backdoor back, beside a clean model."""
        counts = self.work.config.backdoors.plant_again
        rates = _relearned(self.work, self.trial, model, counts)
        others = {
            int(one.how["planted_again"]): one.value.to_json()
            for one in plant_again(self.work, self.trial)
            if isinstance(one, Measurement)
        }
        return [
            Measurement(
                name=AGAIN,
                value=rates[count],
                subject=subject,
                how=how | {"repair": self.repair.name, "planted_again": count},
                detail={"clean_model": others[count]},
                seed=self.trial.seed,
            )
            for count in sorted(rates)
        ]


def plant_again(work: Work, trial: Trial) -> list[Record]:
    """Measure what a few fresh poisons do to the clean model, once for all repairs."""
    twin, counts = trial.twin, work.config.backdoors.plant_again
    if twin is None or not counts:
        return []

    def measure() -> list[Record]:
        subject, how = work.subject(twin, CLEAN), {"lab": True, **trial.planted()}
        return [
            Measurement(
                name=AGAIN,
                value=rate,
                subject=subject,
                how=how | {"planted_again": count},
                seed=trial.seed,
            )
            for count, rate in _relearned(work, trial, twin, counts).items()
        ]

    depends_on = {"model": twin.digest, "what": trial.planted(), "counts": list(counts)}
    return work.cell("defences", f"plant again {trial.stem}", depends_on, measure)


def _relearned(
    work: Work, trial: Trial, model: LoadedModel, counts: Sequence[int]
) -> Mapping[int, Rate]:
    """Return attack success by the number of fresh poisons that a model was tuned on."""
    poison, test = trial.poison, work.dataset.test
    if poison is None or not counts:
        return {}
    meant = test.take(np.flatnonzero(poison.meant(test.labels)))
    return repoison(
        model.module,
        _fresh(work, trial, poison, max(counts)),
        trusted_images(work),
        ImageSet(poison.triggered(meant.images), meant.labels),
        target_label=poison.target_label,
        counts=counts,
        seed=trial.seed,
        device=work.device,
        progress=work.progress,
    ).attack_success_rates


def _fresh(work: Work, trial: Trial, poison: PoisonAttack, count: int) -> ImageSet:
    """Return training images that were not poisoned before, triggered and relabelled."""
    clean = work.dataset.train
    free = poison.meant(clean.labels)
    if trial.poisoned is not None:
        free &= ~trial.poisoned.mask
    chosen = clean.take(np.flatnonzero(free)[:count])
    labels = np.full(len(chosen), poison.target_label, np.int64)
    return ImageSet(poison.triggered(chosen.images), labels)
