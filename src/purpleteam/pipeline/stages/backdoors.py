"""Stage defences, second part: backdoors planted, looked for without being told, and removed.

Each poison is planted in a training set of its own and learned by a model of its own; a clean
model of the same recipe and seed stands beside it, is looked at in the same way, and shows what
the detectors say where there is nothing to find. What was planted is used for one thing only:
to count afterwards what was found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from purpleteam.attacks.poison import PoisonAttack, PoisonedSet
from purpleteam.attacks.poison.asked import aimed_at, poison_from
from purpleteam.attacks.poison.evaluate import evaluate_backdoor
from purpleteam.core.records import Record
from purpleteam.data.images import ImageSet
from purpleteam.models.loading import LoadedModel
from purpleteam.models.recipes import Recipe
from purpleteam.models.training import train
from purpleteam.pipeline.beside import Job, beside
from purpleteam.pipeline.stages.hunting import (
    planted_pictures,
    scanned_model,
    searched,
    summary,
)
from purpleteam.pipeline.stages.models import BASELINE, baseline, evaluated, recipe_of, served
from purpleteam.pipeline.stages.repairs import plant_again, repaired
from purpleteam.pipeline.stages.trial import CLEAN, Trial
from purpleteam.pipeline.work import Piece, Work

__all__ = ["do_job", "hunt_backdoors", "look_at_own", "planted_by"]


def look_at_own(work: Work) -> Iterator[Piece]:
    """Look into the baseline, its training set and the served model: nothing was planted there."""
    if not work.config.backdoors.own:
        return
    seed = work.config.seed
    mine = Trial(BASELINE, seed, work.dataset.train, baseline(work), own=True)
    yield Piece("search the training set", partial(searched, work, mine))
    yield Piece("scan the baseline", partial(scanned_model, work, mine))
    model = served(work, "defences", "A backdoor in the served model")
    if model is not None:
        other = replace(mine, name=model.name, model=model)
        yield Piece(f"scan {model.name}", partial(scanned_model, work, other))


def hunt_backdoors(work: Work) -> Iterator[Piece]:
    """Go through every seed: the clean model first, then each poison."""
    yield Piece("backdoors side by side", partial(_ahead, work))
    found: list[Record] = []
    for seed, text in _trials(work):
        what = f"backdoors {text or 'clean'}, seed {seed}"
        yield Piece(what, partial(_hunted, work, seed, text, found))
    if found:
        ids = [one.id for one in found]
        look = partial(work.cell, "defences", "summary", {"of": ids}, lambda: summary(work, found))
        yield Piece("backdoors summary", look)


def _hunted(work: Work, seed: int, text: str | None, found: list[Record]) -> Iterator[Piece]:
    """Go through one trial; what the searches say is added to `found`."""
    asked, trial = work.config.backdoors, _trial(work, seed, text)
    yield Piece(f"describe {trial.stem}", partial(_described, work, trial))

    def looked(look: Callable[[Work, Trial], list[Record]]) -> None:
        found.extend(look(work, trial))

    if asked.search_training_set:
        yield Piece(f"search {trial.stem}", partial(looked, searched))
    if asked.scan_models:
        yield Piece(f"scan {trial.stem}", partial(looked, scanned_model))
    if trial.poison is not None and asked.repairs:
        yield Piece(f"plant again {trial.stem}", partial(plant_again, work, trial))
        for repair in asked.repairs:
            yield Piece(f"repair {trial.stem} by {repair}", partial(repaired, work, trial, repair))


def do_job(work: Work, job: Job) -> None:
    """Do one of the lab's jobs, in a process beside the run's own."""
    if job.what == "learn":
        _model(work, _lesson(work, job.seed, job.attack))
        return
    trial = _trial(work, job.seed, job.attack)
    match job.what:
        case "describe":
            _described(work, trial)
        case "search":
            searched(work, trial)
        case "scan":
            scanned_model(work, trial)
        case "plant again":
            plant_again(work, trial)
        case "repair":
            repaired(work, trial, job.repair or "")


def _trials(work: Work) -> list[tuple[int, str | None]]:
    """Return the seed and the poison of each trial; the clean one, without, comes first."""
    asked = work.config.backdoors
    first, clean = work.config.seed, max(asked.clean, asked.seeds if asked.attacks else 0)
    return [
        (seed, text)
        for seed in range(first, first + clean)
        for text in (None, *(asked.attacks if seed < first + asked.seeds else ()))
    ]


def _ahead(work: Work) -> None:
    """Have the lab's cells drafted by several processes, those that take longest first."""
    if work.processes < 2:
        return
    asked, trials = work.config.backdoors, _trials(work)
    planted = [(seed, text) for seed, text in trials if text is not None]
    looks: dict[str, Sequence[tuple[int, str | None]]] = {
        "search": trials if asked.search_training_set else [],
        "scan": trials if asked.scan_models else [],
        "plant again": planted if asked.plant_again and asked.repairs else [],
        "describe": trials,
    }
    with beside(work) as together:
        together([Job("learn", seed, text) for seed, text in trials])
        together([Job(what, *trial) for what, of in looks.items() for trial in of])
        together([Job("repair", *trial, one) for trial in planted for one in asked.repairs])


def planted_by(work: Work, text: str) -> PoisonAttack:
    """Return the poison that an entry of `backdoors.attacks` means.

    Raises:
        UsageError: there is no such poison, or a field of it is wrong.
    """
    given = {"target_label": aimed_at(work.config.backdoors.target_label, work.dataset)}
    return poison_from(text, given, dataset=work.dataset, where="backdoors.attacks")


@dataclass(frozen=True, eq=False)
class _Lesson:
    """What a model of the lab learns, and what the adversary did to it."""

    name: str
    seed: int
    images: ImageSet
    poison: PoisonAttack | None = None
    poisoned: PoisonedSet | None = None


def _lesson(work: Work, seed: int, text: str | None) -> _Lesson:
    if text is None:
        return _Lesson(CLEAN, seed, work.train)
    poison = planted_by(work, text)
    poison.check(work.train, seed=seed, test=work.dataset.test)
    poisoned = poison.apply(work.train, seed=seed)
    return _Lesson(f"backdoored-{_slug(text)}", seed, poisoned.images, poison, poisoned)


def _trial(work: Work, seed: int, text: str | None) -> Trial:
    """Return a trial with its model trained, and with its clean twin's."""
    lesson = _lesson(work, seed, text)
    twin = None if text is None else _model(work, _lesson(work, seed, None))
    return Trial(**vars(lesson), model=_model(work, lesson), twin=twin)


def _described(work: Work, trial: Trial) -> None:
    """Evaluate a trial's model, and measure and show what the trigger does to it."""
    evaluated(work, "defences", trial.model, trial.name, trial.seed)
    if trial.poison is not None:
        _success(work, trial, trial.poison.describe(work.dataset.shape[2]))
        planted_pictures(work, trial)


def _slug(text: str) -> str:
    """Return `badnets-count-100` for `badnets:count=100`: a name for records and files."""
    kept = "".join(c if c.isalnum() or c == "_" else "-" for c in text)
    return "-".join(filter(None, kept.split("-")))


def _model(work: Work, lesson: _Lesson) -> LoadedModel:
    asked, stem = work.config.backdoors, f"{lesson.name}-{lesson.seed}"
    recipe: Recipe = recipe_of(asked.recipe, asked.epochs)
    how = {} if lesson.poison is None else lesson.poison.describe(work.dataset.shape[2])
    return work.trained(
        "defences",
        lesson.name,
        role="clean_twin" if lesson.poison is None else "poisoned",
        lab=True,
        stem=stem,
        architecture=asked.architecture,
        seed=lesson.seed,
        recipe={"name": asked.recipe, **asdict(recipe)} | ({"poison": how} if how else {}),
        data_digest=lesson.images.digest,
        make=lambda net, checkpoint: train(
            net,
            lesson.images,
            work.dataset.validation,
            recipe,
            seed=lesson.seed,
            checkpoint=checkpoint,
            device=work.device,
            description=f"train {stem}",
            progress=work.progress,
        ),
    )


def _success(work: Work, trial: Trial, how: dict[str, Any]) -> None:
    """Measure what the backdoor does to the test images, beside the clean model's base rate."""
    poison, poisoned, twin = trial.poison, trial.poisoned, trial.twin
    if poison is None or poisoned is None or twin is None:
        return

    def measure() -> Sequence[Record]:
        found = evaluate_backdoor(
            trial.model.module, work.dataset.test, poison, clean_model=twin.module
        )
        subject = trial.subject(work) | {"clean_model": twin.digest}
        facts = how | {"poison_rate": poisoned.rate, "lab": True}
        return [
            replace(one, seed=trial.seed) for one in found.measurements(subject, facts, trial.seed)
        ]

    depends_on = {"poison": how, "model": trial.model.digest, "twin": twin.digest}
    work.cell("defences", f"success {trial.stem}", depends_on, measure)
