"""One trial of the poison lab: planted, looked for without being told, removed, counted.

What was planted is compared with what a scan found only after the scan has answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from purpleteam.attacks.poison import PoisonAttack, PoisonedSet
from purpleteam.attacks.poison.evaluate import evaluate_backdoor
from purpleteam.core.errors import PurpleError, UsageError
from purpleteam.core.records import Artefact, Measurement, Note, Record
from purpleteam.core.schema import NO_REPAIR, NO_SEARCH, TRAINING_SET_SCAN
from purpleteam.core.statistics import Rate
from purpleteam.data.images import ImageSet
from purpleteam.defences.detection.metrics import auroc, average_precision, evaluate_detection
from purpleteam.defences.detection.recovered import RecoveredTrigger
from purpleteam.defences.detection.training_set import TRAINING_SET_DETECTORS, TrainingSetScan
from purpleteam.defences.evaluate import Repaired, evaluate_repair, repoison
from purpleteam.defences.repair import REPAIRS, Repair
from purpleteam.models.loading import LoadedModel
from purpleteam.pipeline.stages.models import recipe_of
from purpleteam.pipeline.state import Run
from purpleteam.verbs._pictures import Picture, gallery
from purpleteam.verbs.detect import TRIGGER, detect_model, detect_training_set
from purpleteam.verbs.repair import repair_and_store
from purpleteam.verbs.trained import part

CLEAN = "backdoors-clean"
"""What the model of the lab that learned the clean images is called in records."""
AGAIN = "attack_success_rate_planted_again"
"""What is measured after a repaired model was tuned on a few fresh poisons."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A model of the lab. Without a poison it is the clean one of its seed."""

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

    def planted(self) -> dict[str, Any]:
        """Return what the trial's records say of the poison, which the detectors are not told."""
        if self.poison is None or self.poisoned is None:
            return {"poison": "unknown" if self.own else "none"}
        return {
            "poison": self.poison.name,
            "poisoned": len(self.poisoned.indices),
            "target_label": self.poison.target_label,
        }

    @property
    def depends_on(self) -> dict[str, Any]:
        """Return what a cell about the trial depends on."""
        return {
            "model": self.model.digest,
            "images": self.images.digest,
            "seed": self.seed,
            "planted": self.planted(),
        }

    @property
    def facts(self) -> dict[str, Any]:
        """Return what a scan's record says beside the scan."""
        return {"own": self.own, "planted": self.planted()}


def measure_success(run: Run, trial: Trial) -> None:
    """Measure what the backdoor does to the test images, beside the clean model's base rate."""
    poison, poisoned, clean = trial.poison, trial.poisoned, trial.clean
    if poison is None or poisoned is None or clean is None:
        return
    how = poison.describe(run.dataset.shape[2])

    def measure() -> Sequence[Record]:
        test = run.dataset.test
        backdoor = evaluate_backdoor(trial.model.module, test, poison, clean_model=clean.module)
        about = run.subject(trial.model, trial.name).about()
        about |= {"training_set": trial.images.digest, "clean_model": clean.digest}
        facts = how | {"poison_rate": poisoned.rate, "lab": True}
        return backdoor.measurements(about, facts, trial.seed)

    depends_on = {"poison": how, "model": trial.model.digest, "clean": clean.digest}
    run.cell("defences", f"success {trial.stem}", depends_on, measure)


def show_planted(run: Run, trial: Trial, count: int = 3) -> None:
    """Show test images as they are and as the adversary shows them."""
    poison = trial.poison
    if poison is None:
        return

    def look() -> Sequence[Record]:
        test, names = run.dataset.test, run.dataset.classes
        chosen = np.flatnonzero(test.labels != poison.target_label)[:count]
        shown = poison.triggered(test.images[chosen])
        pictures: list[Picture] = []
        for number, row in enumerate(chosen):
            label = names[int(test.labels[row])]
            stem = f"{trial.stem}-planted-{number}"
            pictures += [
                (f"{stem}-clean", test.images[row], f"a {label}"),
                (f"{stem}-shown", shown[number], f"the {label} with the trigger"),
            ]
        return gallery(run.folder, "planted", f"Planted: {trial.name}, seed {trial.seed}", pictures)

    run.cell("defences", f"planted {trial.stem}", {"poison": trial.planted()}, look)


def scan_images(run: Run, trial: Trial) -> list[Record]:
    """Look for poisoned images in a trial's training set; count what was found, as one cell."""

    def look() -> list[Record]:
        run.dataset.check_trainable()
        result = detect_training_set(
            run.subject(trial.model, trial.name),
            trial.seed,
            images=trial.images,
            facts=trial.facts,
            detectors=tuple(TRAINING_SET_DETECTORS) if trial.poison else (),  # to be ranked
            progress=run.progress,
        )
        counted = [] if trial.own else _counted(run, trial, result.scan)  # type: ignore[arg-type]
        return [*result.records, *counted]

    what = f"search {trial.stem}"
    return run.cell("defences", what, trial.depends_on, _or_say_why(trial, look))


def scan_trial_model(run: Run, trial: Trial) -> list[Record]:
    """Look for a backdoor in a trial's model, with trusted images alone, as one cell."""
    n = run.config.backdoors.trusted

    def look() -> Sequence[Record]:
        return detect_model(
            run.subject(trial.model, trial.name, split="validation", limit=n),
            n,
            trial.seed,
            facts=trial.facts,
            stem=trial.stem,
            run=run.folder,
            progress=run.progress,
        ).records

    depends_on = trial.depends_on | {"n": len(run.trusted)}
    return run.cell("defences", f"scan {trial.stem}", depends_on, _or_say_why(trial, look))


def repair_of(text: str) -> Repair:
    """Return the repair that an entry of `backdoors.repairs` means.

    Raises:
        UsageError: there is no such repair, or a field of it is wrong.
    """
    return part(REPAIRS, text, "backdoors.repairs")


def repair_trial(run: Run, trial: Trial, text: str) -> None:
    """Repair a trial's model with what the scans found, and measure what is left."""
    repair, asked = repair_of(text), run.config.backdoors
    name, stem = f"{trial.name}/{repair.name}", f"{trial.stem}-{repair.name}"
    flagged = _flagged(scan_images(run, trial)) if asked.search_training_set else []
    digest, trigger = _recovered(run, scan_trial_model(run, trial) if asked.scan_models else [])
    arch, path = asked.architecture or run.architecture, run.folder.path / "models" / stem

    def work() -> list[Record]:
        try:
            _, records = repair_and_store(
                run.subject(trial.model, trial.name),
                repair,
                path,
                arch,
                train=trial.images,
                trusted=run.trusted,
                recipe=recipe_of(asked.recipe, asked.epochs)[1],
                seed=trial.seed,
                flagged=np.array(flagged, np.int64),
                trigger=trigger,
                name=name,
                lab=True,
                run=run.folder,
                progress=run.progress,
            )
        except UsageError as error:
            facts = {"model_name": name, "seed": trial.seed, "why": str(error)}
            return [Note(name=NO_REPAIR, facts=facts)]
        return records

    depends_on = {
        "model": trial.model.digest,
        "repair": {"name": repair.name, **asdict(repair)},
        "seed": trial.seed,
        "flagged": flagged,
        "trigger": digest,
        "trusted": asked.trusted,
    }
    records = run.cell("defences", f"repair {stem}", depends_on, work)
    if any(isinstance(record, Note) and record.name == NO_REPAIR for record in records):
        return
    model = run.stored(path, arch).in_order_of(run.dataset.classes, run.dataset.name)
    run.models[stem] = model
    depends_on = {"model": model.digest, "before": trial.model.digest, "what": trial.planted()}
    work_after = lambda: _after(run, trial, repair, model, name, flagged)  # noqa: E731
    run.cell("defences", f"after {stem}", depends_on, work_after)


def plant_again(run: Run, trial: Trial) -> list[Record]:
    """Measure what a few fresh poisons do to the clean model, once for all repairs."""
    clean, counts = trial.clean, run.config.backdoors.plant_again
    if clean is None or not counts:
        return []

    def measure() -> list[Record]:
        about, how = run.subject(clean, CLEAN).about(), {"lab": True, **trial.planted()}
        return [
            Measurement(
                name=AGAIN,
                value=rate,
                subject=about,
                how=how | {"planted_again": count},
                seed=trial.seed,
            )
            for count, rate in _relearned(run, trial, clean).items()
        ]

    depends_on = {"model": clean.digest, "what": trial.planted(), "counts": list(counts)}
    return run.cell("defences", f"plant again {trial.stem}", depends_on, measure)


def _or_say_why(
    trial: Trial, look: Callable[[], Sequence[Record]]
) -> Callable[[], Sequence[Record]]:
    """Return a scan that notes, of the run's own model, why it cannot be made."""

    def attempt() -> Sequence[Record]:
        try:
            return look()
        except PurpleError as error:
            if not trial.own:
                raise
            facts = {"model_name": trial.name, "model": trial.model.digest, "why": str(error)}
            return [Note(name=NO_SEARCH, facts=facts)]

    return attempt


def _flagged(records: Iterable[Record]) -> list[int]:
    """Return the places that a scan of the training set flagged, the most suspicious first."""
    for record in records:
        if isinstance(record, Note) and record.name == TRAINING_SET_SCAN:
            return [int(place) for place in record.facts["flagged"]]
    return []


def _recovered(run: Run, records: Iterable[Record]) -> tuple[str | None, RecoveredTrigger | None]:
    """Return the digest and the trigger that a scan's records name, from its file."""
    for record in records:
        if isinstance(record, Artefact) and record.path.endswith(TRIGGER):
            return record.digest, RecoveredTrigger.load(run.folder.path / record.path)
    return None, None


def _counted(run: Run, trial: Trial, scan: TrainingSetScan) -> list[Measurement]:
    """Return how well a scan did, counted with what was planted."""
    subject = {
        "model": trial.model.digest,
        "model_name": trial.name,
        "dataset": trial.images.digest,
        "dataset_name": run.dataset.name,
        "split": "train",
        "selection": "all",
    }
    kept, poison, flagged = (np.full(len(trial.images), start) for start in (True, False, False))
    if trial.poisoned is not None:
        poison |= trial.poisoned.mask
        kept &= ~trial.poisoned.cover_mask  # stamped and rightly labelled: neither of the two
    flagged[scan.flagged] = True
    found = evaluate_detection(scan.scores[kept], flagged[kept], poison[kept])
    how: dict[str, Any] = {"lab": True, "detector": "combined", **trial.planted()}
    values: list[tuple[str, Any, Mapping[str, Any]]] = [
        ("false_positive_rate", found.false_alarm_rate, how)
    ]
    if poison.any():
        values.append(("detection_recall", found.recall, how))
        values.append(("detection_precision", found.precision, how))
        for detector, scores in {**scan.by_detector, "combined": scan.scores}.items():
            ranked = how | {"detector": detector}  # what its ranking is worth at any threshold
            values.append(("detector_auroc", auroc(scores[kept], poison[kept]), ranked))
            area = average_precision(scores[kept], poison[kept])
            values.append(("average_precision", area, ranked))
    return [
        Measurement(name=name, value=value, subject=subject, how=facts, seed=trial.seed)
        for name, value, facts in values
        if value is not None
    ]


def _after(
    run: Run, trial: Trial, repair: Repair, model: LoadedModel, name: str, flagged: Sequence[int]
) -> list[Record]:
    """Return what the trigger still does to the repaired model, on test images."""
    test = run.dataset.test
    if trial.poison is None or trial.clean is None:
        return []
    residual = None
    if trial.poisoned is not None and repair.name == "retrain":  # of what it learned from
        removed = np.zeros(len(trial.images), np.bool_)
        removed[list(flagged)] = True
        residual = int((trial.poisoned.mask & ~removed).sum())
    outcome = evaluate_repair(
        Repaired(repair=repair.name, module=model.module, cpu_seconds=0, seconds=0),
        evaluate_backdoor(trial.model.module, test, trial.poison),
        test,
        trial.poison,
        clean_model=trial.clean.module,
        residual_poisons=residual,
    )
    about = run.subject(model, name).about() | {"before": trial.model.digest}
    how = {"lab": True, **trial.planted()}
    records: list[Record] = [
        replace(record, cost={}) for record in outcome.measurements(about, how, trial.seed)
    ]
    rates = _relearned(run, trial, model)
    clean = {
        int(record.how["planted_again"]): record.value.to_json()
        for record in plant_again(run, trial)
        if isinstance(record, Measurement)
    }
    records += [
        Measurement(
            name=AGAIN,
            value=rates[count],
            subject=about,
            how=how | {"repair": repair.name, "planted_again": count},
            detail={"clean_model": clean[count]},
            seed=trial.seed,
        )
        for count in sorted(rates)
    ]
    return records


def _relearned(run: Run, trial: Trial, model: LoadedModel) -> Mapping[int, Rate]:
    """Return attack success by the number of fresh poisons that a model was tuned on."""
    poison, test, counts = trial.poison, run.dataset.test, run.config.backdoors.plant_again
    if poison is None or not counts:
        return {}
    meant = test.take(np.flatnonzero(poison.meant(test.labels)))
    clean = run.dataset.train
    free = poison.meant(clean.labels)  # training images that were not poisoned before
    if trial.poisoned is not None:
        free &= ~trial.poisoned.mask
    chosen = clean.take(np.flatnonzero(free)[: max(counts)])
    labels = np.full(len(chosen), poison.target_label, np.int64)
    return repoison(
        model.module,
        ImageSet(poison.triggered(chosen.images), labels),
        run.trusted,
        ImageSet(poison.triggered(meant.images), meant.labels),
        target_label=poison.target_label,
        counts=counts,
        seed=trial.seed,
        device=run.device,
        progress=run.progress,
    )
