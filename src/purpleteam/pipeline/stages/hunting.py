"""The poison lab's search: in training sets and in trained models, told nothing of the poison.

What was planted is compared with what was found only after the search has answered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from purpleteam.core.errors import PurpleError
from purpleteam.core.records import Artefact, Measurement, Note, Record
from purpleteam.core.statistics import Rate
from purpleteam.defences.checks import MODEL_SCAN, TRAINING_SET_SCAN
from purpleteam.defences.detection.metrics import (
    auroc,
    average_precision,
    false_alarm_rate,
    precision,
    recall,
)
from purpleteam.defences.detection.model import ModelScan, scan_model
from purpleteam.defences.detection.recovered import RecoveredTrigger
from purpleteam.defences.detection.training_set import (
    TRAINING_SET_DETECTORS,
    TrainingSetScan,
    scan_training_set,
)
from purpleteam.pipeline.stages.pictures import Picture, gallery
from purpleteam.pipeline.stages.trial import Trial, trusted_images
from purpleteam.pipeline.work import Work

__all__ = ["flagged_by", "planted_pictures", "recovered_by", "scanned_model", "searched", "summary"]


UNRANKED = ()
"""Detectors whose rankings are told where nothing was planted to rank: the verdict needs none."""
TRIGGER = "-trigger.safetensors"
"""How the file of a recovered trigger ends."""


def searched(work: Work, trial: Trial) -> list[Record]:
    """Look for poisoned images in a trial's training set; count what was found, as one cell."""

    def look() -> list[Record]:
        work.dataset.check_trainable()
        with _timed() as cost:
            found = scan_training_set(
                trial.images,
                classes=len(work.dataset.classes),
                model=trial.model.module,
                detectors=UNRANKED if trial.poison is None else tuple(TRAINING_SET_DETECTORS),
                seed=trial.seed,
                device=work.device,
                progress=work.progress,
            )
        facts = _facts(trial, trial.images.digest, found.to_json())
        note = Note(name=TRAINING_SET_SCAN, facts=facts, cost=dict(cost))
        return [note] if trial.own else [note, *_counted(work, trial, found)]

    return work.cell("defences", f"search {trial.stem}", _what(trial), _or_say_why(trial, look))


def flagged_by(records: Sequence[Record]) -> list[int]:
    """Return the places that a search of the training set flagged, the most suspicious first."""
    notes = [one for one in records if isinstance(one, Note) and one.name == TRAINING_SET_SCAN]
    return [int(place) for place in notes[0].facts["flagged"]] if notes else []


def scanned_model(work: Work, trial: Trial) -> list[Record]:
    """Look for a backdoor in a trial's model, with trusted images alone, as one cell."""
    trusted = trusted_images(work)

    def look() -> list[Record]:
        with _timed() as cost:
            found = scan_model(
                trial.model.module,
                trusted,
                classes=len(work.dataset.classes),
                seed=trial.seed,
                device=work.device,
                progress=work.progress,
            )
        facts = _facts(trial, trial.model.digest, found.to_json())
        note = Note(name=MODEL_SCAN, facts=facts, cost=dict(cost))
        return [note, *_kept_trigger(work, trial, found, note)]

    depends_on = _what(trial) | {"n": len(trusted)}
    return work.cell("defences", f"scan {trial.stem}", depends_on, _or_say_why(trial, look))


def recovered_by(work: Work, records: Sequence[Record]) -> tuple[str, RecoveredTrigger] | None:
    """Return the digest and the trigger that a scan's records name, from its file."""
    for one in records:
        if isinstance(one, Artefact) and one.path.endswith(TRIGGER):
            return one.digest, RecoveredTrigger.load(work.run.path / one.path)
    return None


def planted_pictures(work: Work, trial: Trial, count: int = 3) -> None:
    """Show test images as they are and as the adversary shows them."""
    poison = trial.poison
    if poison is None:
        return

    def look() -> Sequence[Note | Artefact]:
        test = work.dataset.test
        chosen = np.flatnonzero(test.labels != poison.target_label)[:count]
        shown = poison.triggered(test.images[chosen])
        pictures: list[Picture] = []
        for number, place in enumerate(chosen):
            label = work.dataset.classes[int(test.labels[place])]
            stem = f"{trial.stem}-planted-{number}"
            pictures += [
                (f"{stem}-clean", test.images[place], f"a {label}"),
                (f"{stem}-shown", shown[number], f"the {label} with the trigger"),
            ]
        return gallery(work.run, "planted", f"Planted: {trial.name}, seed {trial.seed}", pictures)

    work.cell("defences", f"planted {trial.stem}", {"poison": trial.planted()}, look)


def summary(work: Work, found: Sequence[Record]) -> list[Measurement]:
    """Return how many backdoored models were found, and how many clean ones alarmed."""
    made: list[Measurement] = []
    for what, name in (("training_set", TRAINING_SET_SCAN), ("model", MODEL_SCAN)):
        notes = [one for one in found if isinstance(one, Note) and one.name == name]
        clean = [one for one in notes if one.facts["planted"]["poison"] == "none"]
        planted = [one for one in notes if one not in clean]
        if planted:
            hits = [_right_target(one) for one in planted]
            made.append(_share(work, f"{what}_detection_rate", planted, hits))
        if clean:
            alarms = [bool(one.facts["backdoored"]) for one in clean]
            made.append(_share(work, f"{what}_false_alarm_rate", clean, alarms))
    return made


def _or_say_why(trial: Trial, look: Callable[[], list[Record]]) -> Callable[[], list[Record]]:
    """Return a search that notes why it cannot be done on what is ours: too few images, say."""

    def attempt() -> list[Record]:
        try:
            return look()
        except PurpleError as error:
            if not trial.own:
                raise
            facts = {"model_name": trial.name, "model": trial.model.digest, "why": str(error)}
            return [Note(name="no-search", facts=facts)]

    return attempt


def _right_target(note: Note) -> bool:
    facts = note.facts
    return bool(facts["backdoored"]) and facts["target_label"] == facts["planted"]["target_label"]


def _share(work: Work, name: str, notes: Sequence[Note], hits: Sequence[bool]) -> Measurement:
    subject = {
        "models": [note.facts["model"] for note in notes],
        "dataset": work.dataset.train.digest,
        "dataset_name": work.dataset.name,
    }
    return Measurement(
        name=name,
        value=Rate.of(sum(hits), len(notes)),
        subject=subject,
        how={"looked_at": sorted({str(note.facts["model_name"]) for note in notes})},
        detail={"records": [note.id for note in notes]},
    )


def _counted(work: Work, trial: Trial, found: TrainingSetScan) -> list[Measurement]:
    """Return how well the search did, counted with what was planted."""
    subject = trial.about_training_set(work)
    how = {"lab": True, "detector": "combined", **trial.planted()}
    kept = np.ones(len(trial.images), np.bool_)
    poison = np.zeros(len(trial.images), np.bool_)
    if trial.poisoned is not None:
        poison |= trial.poisoned.mask
        kept &= ~trial.poisoned.cover_mask  # stamped and rightly labelled: neither of the two
    flagged = np.zeros(len(trial.images), np.bool_)
    flagged[found.flagged] = True
    rates: dict[str, Rate | None] = {
        "false_positive_rate": false_alarm_rate(flagged[kept], poison[kept])
    }
    if poison.any():
        rates["detection_recall"] = recall(flagged[kept], poison[kept])
        rates["detection_precision"] = precision(flagged[kept], poison[kept])
    made = [
        Measurement(name=name, value=value, subject=subject, how=how, seed=trial.seed)
        for name, value in rates.items()
        if value is not None
    ]
    return made + (_ranked(trial, found, poison[kept], kept, subject) if poison.any() else [])


def _ranked(
    trial: Trial, found: TrainingSetScan, poison: Any, kept: Any, subject: Mapping[str, Any]
) -> list[Measurement]:
    """Return what each detector's ranking is worth by itself, whatever its threshold."""
    made = []
    for detector, scores in {**found.by_detector, "combined": found.scores}.items():
        how = {"lab": True, "detector": detector, **trial.planted()}
        for name, metric in (("detector_auroc", auroc), ("average_precision", average_precision)):
            value = metric(scores[kept], poison)
            made.append(
                Measurement(name=name, value=value, subject=subject, how=how, seed=trial.seed)
            )
    return made


def _kept_trigger(work: Work, trial: Trial, found: ModelScan, note: Note) -> list[Record]:
    """Write the recovered trigger to a file and as a picture."""
    if found.trigger is None:
        return []
    path = found.trigger.save(_trigger_file(work, trial))
    label = work.dataset.classes[found.trigger.target_label]
    caption = f"recovered: {found.trigger.kind}, to {label}"
    picture = (f"{trial.stem}-recovered", found.trigger.picture(), caption)
    title = f"Recovered: {trial.name}, seed {trial.seed}"
    return [
        work.run.artefact(path, note.id),
        *gallery(work.run, "recovered", title, [picture]),
    ]


def _trigger_file(work: Work, trial: Trial) -> Path:
    return work.run.path / "exports" / f"{trial.stem}{TRIGGER}"


def _facts(trial: Trial, subject: str, answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return a search's answer without its time, beside what it was not told."""
    return {
        "model_name": trial.name,
        "model": trial.model.digest,
        "subject": subject,
        "own": trial.own,
        "seed": trial.seed,
        **{key: value for key, value in answer.items() if key != "seconds"},
        "planted": trial.planted(),
    }


def _what(trial: Trial) -> dict[str, Any]:
    return {
        "model": trial.model.digest,
        "images": trial.images.digest,
        "seed": trial.seed,
        "planted": trial.planted(),
    }


@contextmanager
def _timed() -> Iterator[dict[str, float]]:
    """Yield where the processor seconds of the block are put."""
    cost: dict[str, float] = {}
    wall, cpu = time.perf_counter(), time.process_time()
    yield cost
    cost["seconds"] = time.perf_counter() - wall
    cost["cpu_seconds"] = time.process_time() - cpu
