"""Stage defences, second part: backdoors planted, looked for without being told, and removed.

Each poison is planted in a training set of its own and learned by a model of its own; a clean
model of the same recipe and seed stands beside it, is looked at in the same way, and shows what
the detectors say where there is nothing to find. What was planted is used for one thing only:
to count afterwards what was found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from purpleteam.attacks.poison import PoisonAttack, PoisonedSet
from purpleteam.attacks.poison.asked import aimed_at, poison_from
from purpleteam.core.records import Measurement, Note, Record
from purpleteam.core.schema import MODEL_SCAN, TRAINING_SET_SCAN
from purpleteam.core.statistics import Rate
from purpleteam.data.images import ImageSet
from purpleteam.models.loading import LoadedModel
from purpleteam.pipeline.stages.models import baseline, evaluated, learned, recipe_of, served
from purpleteam.pipeline.stages.trial import (
    CLEAN,
    Trial,
    measure_success,
    plant_again,
    repair_trial,
    scan_images,
    scan_trial_model,
    show_planted,
)
from purpleteam.pipeline.state import Piece, Run


def look_at_own(run: Run) -> Iterator[Piece]:
    """Look into the model at hand, its training set and the served model: nothing was planted."""
    asked = run.config.backdoors
    other = served(run, "defences", "A backdoor in the served model") if asked.served else None
    if not (asked.own or asked.own_training_set or other):
        return
    model = baseline(run)
    own = Trial(model.name, run.config.seed, run.dataset.train, model, own=True)
    if asked.own_training_set:
        yield Piece("search the training set", partial(scan_images, run, own))
    if asked.own:
        yield Piece(f"scan {model.name}", partial(scan_trial_model, run, own))
    if other is not None and not (asked.own and other.digest == model.digest):
        trial = replace(own, name=other.name, model=other)
        yield Piece(f"scan {other.name}", partial(scan_trial_model, run, trial))


def run_trials(run: Run) -> Iterator[Piece]:
    """Go through every seed: the clean model first, then each poison."""
    scans: list[Record] = []
    for seed, text in _trials(run):
        what = f"backdoors {text or 'clean'}, seed {seed}"
        yield Piece(what, partial(_pieces, run, seed, text, scans))
    if scans:
        depends_on = {"of": [record.id for record in scans]}
        look = partial(run.cell, "defences", "summary", depends_on, lambda: _summary(run, scans))
        yield Piece("backdoors summary", look)


def _pieces(run: Run, seed: int, text: str | None, scans: list[Record]) -> Iterator[Piece]:
    """Go through one trial; the scans' records are added to `scans`."""
    asked, trial = run.config.backdoors, _trial(run, seed, text)
    yield Piece(f"describe {trial.stem}", partial(_describe, run, trial))

    def scanned(scan: Callable[[Run, Trial], list[Record]]) -> None:
        scans.extend(scan(run, trial))

    if asked.search_training_set:
        yield Piece(f"search {trial.stem}", partial(scanned, scan_images))
    if asked.scan_models:
        yield Piece(f"scan {trial.stem}", partial(scanned, scan_trial_model))
    if trial.poison is not None and asked.repairs:
        yield Piece(f"plant again {trial.stem}", partial(plant_again, run, trial))
        for repair in asked.repairs:
            do = partial(repair_trial, run, trial, repair)
            yield Piece(f"repair {trial.stem} by {repair}", do)


def _trials(run: Run) -> list[tuple[int, str | None]]:
    """Return the seed and the poison of each trial; the clean one, without, comes first."""
    asked = run.config.backdoors
    first, clean = run.config.seed, max(asked.clean, asked.trainings if asked.attacks else 0)
    return [
        (seed, text)
        for seed in range(first, first + clean)
        for text in (None, *(asked.attacks if seed < first + asked.trainings else ()))
    ]


def planted_by(run: Run, text: str) -> PoisonAttack:
    """Return the poison that an entry of `backdoors.attacks` means.

    Raises:
        UsageError: there is no such poison, or a field of it is wrong.
    """
    given = {"target_label": aimed_at(run.config.backdoors.target_label, run.dataset)}
    return poison_from(text, given, dataset=run.dataset, where="backdoors.attacks")


@dataclass(frozen=True, eq=False)
class _Lesson:
    """What a model of the lab learns, and what the adversary did to it."""

    name: str
    seed: int
    images: ImageSet
    poison: PoisonAttack | None = None
    poisoned: PoisonedSet | None = None


def _lesson(run: Run, seed: int, text: str | None) -> _Lesson:
    if text is None:
        return _Lesson(CLEAN, seed, run.train)
    poison = planted_by(run, text)
    poison.check(run.train, seed=seed, test=run.dataset.test)
    poisoned = poison.apply(run.train, seed=seed)
    kept = "".join(c if c.isalnum() or c == "_" else "-" for c in text)
    name = "-".join(filter(None, ("backdoored", *kept.split("-"))))
    return _Lesson(name, seed, poisoned.images, poison, poisoned)


def _model(run: Run, lesson: _Lesson) -> LoadedModel:
    asked = run.config.backdoors
    how = {} if lesson.poison is None else lesson.poison.describe(run.dataset.shape[2])
    return learned(
        run,
        "defences",
        lesson.name,
        lesson.images,
        recipe_of(asked.recipe, asked.epochs),
        role="poisoned" if how else "clean_twin",
        lab=True,
        seed=lesson.seed,
        stem=f"{lesson.name}-{lesson.seed}",
        architecture=asked.architecture,
        more={"poison": how} if how else None,
    )


def _trial(run: Run, seed: int, text: str | None) -> Trial:
    """Return a trial with its model trained, and with the clean one of its seed."""
    lesson = _lesson(run, seed, text)
    model = _model(run, lesson)  # first: another process may be at the clean one
    clean = None if text is None else _model(run, _lesson(run, seed, None))
    return Trial(**vars(lesson), model=model, clean=clean)


def _describe(run: Run, trial: Trial) -> None:
    """Evaluate a trial's model, and measure and show what the trigger does to it."""
    evaluated(run, "defences", trial.model, trial.name, trial.seed)
    measure_success(run, trial)
    show_planted(run, trial)


def _summary(run: Run, scans: Sequence[Record]) -> list[Measurement]:
    """Return how many backdoored models were found, and how many clean ones alarmed."""
    rates: list[Measurement] = []
    for what, name in (("training_set", TRAINING_SET_SCAN), ("model", MODEL_SCAN)):
        notes = [record for record in scans if isinstance(record, Note) and record.name == name]
        clean = [note for note in notes if note.facts["planted"]["poison"] == "none"]
        planted = [note for note in notes if note not in clean]
        if planted:
            hits = [_right_target(note) for note in planted]
            rates.append(_share(run, f"{what}_detection_rate", planted, hits))
        if clean:
            alarms = [bool(note.facts["backdoored"]) for note in clean]
            rates.append(_share(run, f"{what}_false_alarm_rate", clean, alarms))
    return rates


def _right_target(note: Note) -> bool:
    facts = note.facts
    return bool(facts["backdoored"]) and facts["target_label"] == facts["planted"]["target_label"]


def _share(run: Run, name: str, notes: Sequence[Note], hits: Sequence[bool]) -> Measurement:
    subject = {
        "models": [note.facts["model"] for note in notes],
        "dataset": run.dataset.train.digest,
        "dataset_name": run.dataset.name,
    }
    return Measurement(
        name=name,
        value=Rate.of(sum(hits), len(notes)),
        subject=subject,
        how={"looked_at": sorted({str(note.facts["model_name"]) for note in notes})},
        detail={"records": [note.id for note in notes]},
    )
