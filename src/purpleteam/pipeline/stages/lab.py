"""Stage defences, second part: backdoors planted, looked for without being told, and removed.

What was planted is used for one thing only: to count afterwards what was found.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from purpleteam.attacks.poison import PoisonAttack
from purpleteam.attacks.poison.asked import aimed_at, poison_from
from purpleteam.attacks.poison.evaluate import evaluate_backdoor
from purpleteam.core.errors import UsageError
from purpleteam.core.records import Artefact, Measurement, Note, Record
from purpleteam.core.schema import MODEL_SCAN, NO_REPAIR, TRAINING_SET_SCAN
from purpleteam.core.statistics import Rate
from purpleteam.data.images import ImageSet
from purpleteam.defences.detection.recovered import RecoveredTrigger
from purpleteam.defences.evaluate import evaluate_repair, repoison
from purpleteam.defences.repair import REPAIRS, Repair
from purpleteam.models.loading import LoadedModel
from purpleteam.pipeline.stages.models import baseline, evaluated, recipe_of, served
from purpleteam.pipeline.stages.trial import Trial, plant, scan
from purpleteam.pipeline.state import Piece, Run
from purpleteam.verbs._pictures import Picture, gallery
from purpleteam.verbs.detect import TRIGGER
from purpleteam.verbs.poison import backdoor_records
from purpleteam.verbs.repair import repair_and_store
from purpleteam.verbs.trained import part

CLEAN = "backdoors-clean"
"""What the model of the lab that learned the clean images is called in records."""
AGAIN = "attack_success_rate_planted_again"
"""What is measured after a repaired model was tuned on a few fresh poisons."""
SHOWN = 3
"""Test images that are shown with and without a planted trigger."""


def look_at_own(run: Run) -> Iterator[Piece]:
    """Look into the model at hand, its training set and the served model: nothing was planted."""
    asked = run.config.backdoors
    other = served(run, "defences", "A backdoor in the served model") if asked.served else None
    if not (asked.own or asked.own_training_set or other):
        return
    model = baseline(run)
    own = Trial(model.name, run.config.seed, run.dataset.train, model, own=True)
    if asked.own_training_set:
        yield Piece("search the training set", partial(scan, run, own, "search"))
    if asked.own:
        yield Piece(f"scan {model.name}", partial(scan, run, own, "scan"))
    if other is not None and not (asked.own and other.digest == model.digest):
        trial = replace(own, name=other.name, model=other)
        yield Piece(f"scan {other.name}", partial(scan, run, trial, "scan"))


def run_trials(run: Run) -> Iterator[Piece]:
    """Go through every seed: the clean model first, then each poison."""
    asked, first = run.config.backdoors, run.config.seed
    scans: list[Record] = []
    for seed in range(first, first + max(asked.clean, asked.trainings if asked.attacks else 0)):
        for text in (None, *(asked.attacks if seed < first + asked.trainings else ())):
            what = f"backdoors {text or 'clean'}, seed {seed}"
            yield Piece(what, partial(_trial, run, seed, text, scans))
    if scans:
        depends_on = {"of": [record.id for record in scans]}
        look = partial(run.cell, "defences", "summary", depends_on, lambda: _summary(run, scans))
        yield Piece("backdoors summary", look)


def _trial(run: Run, seed: int, text: str | None, scans: list[Record]) -> Iterator[Piece]:
    """Go through one trial; the scans' records are added to `scans`."""
    asked = run.config.backdoors
    trial = plant(
        run,
        "defences",
        ("-".join(["backdoored", *re.findall(r"\w+", text or "")]), CLEAN),
        None if text is None else planted_by(run, text),
        recipe_of(asked.recipe, asked.epochs),
        seed,
        lab=True,
        architecture=asked.architecture,
    )
    yield Piece(f"describe {trial.stem}", partial(_describe, run, trial))

    def scanned(what: Literal["search", "scan"]) -> None:
        scans.extend(scan(run, trial, what))

    if asked.search_training_set:
        yield Piece(f"search {trial.stem}", partial(scanned, "search"))
    if asked.scan_models:
        yield Piece(f"scan {trial.stem}", partial(scanned, "scan"))
    if trial.poison is not None and asked.repairs:
        yield Piece(f"plant again {trial.stem}", partial(_planted_again, run, trial))
        for repair in asked.repairs:
            do = partial(_repaired, run, trial, repair)
            yield Piece(f"repair {trial.stem} by {repair}", do)


def planted_by(run: Run, text: str) -> PoisonAttack:
    """Return the poison that an entry of `backdoors.attacks` means.

    Raises:
        UsageError: there is no such poison, or a field of it is wrong.
    """
    given = {"target_label": aimed_at(run.config.backdoors.target_label, run.dataset)}
    return poison_from(text, given, dataset=run.dataset, where="backdoors.attacks")


def repair_of(text: str) -> Repair:
    """Return the repair that an entry of `backdoors.repairs` means.

    Raises:
        UsageError: there is no such repair, or a field of it is wrong.
    """
    return part(REPAIRS, text, "backdoors.repairs")


def _describe(run: Run, trial: Trial) -> None:
    """Evaluate a trial's model; measure and show what the trigger does to it."""
    evaluated(run, "defences", trial.model, trial.name, trial.seed)
    poison, made, clean = trial.poison, trial.poisoned, trial.clean
    if poison is None or made is None or clean is None:
        return
    subject = run.subject(trial.model, trial.name, seed=trial.seed)
    how = poison.describe(run.dataset.shape[2])
    depends_on = {"poison": how, "model": trial.model.digest, "clean": clean.digest}
    measure = partial(backdoor_records, subject, clean, poison, made, lab=True)
    run.cell("defences", f"success {trial.stem}", depends_on, measure)

    def look() -> Sequence[Record]:
        test, names = run.dataset.test, run.dataset.classes
        chosen = np.flatnonzero(test.labels != poison.target_label)[:SHOWN]
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

    run.cell("defences", f"planted {trial.stem}", {"poison": trial.planted}, look)


def _repaired(run: Run, trial: Trial, text: str) -> None:
    """Repair a trial's model with what the scans found, and measure what is left."""
    repair, asked = repair_of(text), run.config.backdoors
    name, stem = f"{trial.name}/{repair.name}", f"{trial.stem}-{repair.name}"
    flagged, digest, trigger = list[int](), None, None
    if asked.search_training_set:
        for one in scan(run, trial, "search"):
            if isinstance(one, Note) and one.name == TRAINING_SET_SCAN:
                flagged = [int(place) for place in one.facts["flagged"]]
    if asked.scan_models:
        digest, trigger = _recovered(run, scan(run, trial, "scan"))
    arch, path = asked.architecture or run.architecture, run.folder.path / "models" / stem

    def work() -> list[Record]:
        try:
            return repair_and_store(
                run.subject(trial.model, trial.name, seed=trial.seed),
                repair,
                path,
                arch,
                train=trial.images,
                trusted=run.trusted,
                recipe=recipe_of(asked.recipe, asked.epochs)[1],
                flagged=np.array(flagged, np.int64),
                trigger=trigger,
                name=name,
                lab=True,
            )[1]
        except UsageError as error:
            facts = {"model_name": name, "seed": trial.seed, "why": str(error)}
            return [Note(name=NO_REPAIR, facts=facts)]

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
    depends_on = {"model": model.digest, "before": trial.model.digest, "what": trial.planted}
    after = partial(_after, run, trial, repair, replace(model, name=name), flagged)
    run.cell("defences", f"after {stem}", depends_on, after)


def _recovered(run: Run, records: Sequence[Record]) -> tuple[str | None, RecoveredTrigger | None]:
    """Return the digest and the trigger that a scan's records name, from its file."""
    for record in records:
        if isinstance(record, Artefact) and record.path.endswith(TRIGGER):
            return record.digest, RecoveredTrigger.load(run.folder.path / record.path)
    return None, None


def _after(
    run: Run, trial: Trial, repair: Repair, model: LoadedModel, flagged: Sequence[int]
) -> list[Record]:
    """Return what the trigger still does to the repaired model, on test images."""
    test, poison, made, clean = run.dataset.test, trial.poison, trial.poisoned, trial.clean
    if poison is None or made is None or clean is None:
        return []
    residual = None
    if repair.name == "retrain":  # of what it learned from
        removed = np.zeros(len(trial.images), np.bool_)
        removed[list(flagged)] = True
        residual = int((made.mask & ~removed).sum())
    before = evaluate_backdoor(trial.model.module, test, poison)
    outcome = evaluate_repair(model.module, before, test, poison, clean.module)
    about = run.subject(model).about() | {"before": trial.model.digest}
    how = {"lab": True, **trial.planted, "repair": repair.name}
    left = outcome.measurements(about, how, trial.seed, residual)
    without = {
        record.how["planted_again"]: {"clean_model": record.value.to_json()}
        for record in _planted_again(run, trial)
        if isinstance(record, Measurement)
    }
    return [*left, *_again(run, trial, model, about, without, repair=repair.name)]


def _planted_again(run: Run, trial: Trial) -> list[Record]:
    """Measure what a few fresh poisons do to the clean model, once for all repairs."""
    clean, counts = trial.clean, run.config.backdoors.plant_again
    if clean is None or not counts:
        return []
    depends_on = {"model": clean.digest, "what": trial.planted, "counts": list(counts)}
    about = run.subject(clean, CLEAN).about()
    measure = partial(_again, run, trial, clean, about, {})
    return run.cell("defences", f"plant again {trial.stem}", depends_on, measure)


def _again(
    run: Run,
    trial: Trial,
    model: LoadedModel,
    about: Mapping[str, Any],
    details: Mapping[int, Mapping[str, Any]],
    **how: Any,
) -> list[Record]:
    """Return attack success by the number of fresh poisons that a model was tuned on."""
    poison, test, counts = trial.poison, run.dataset.test, run.config.backdoors.plant_again
    if poison is None or trial.poisoned is None or not counts:
        return []
    meant = test.take(np.flatnonzero(poison.meant(test.labels)))
    clean = run.dataset.train  # of which those count that were not poisoned before
    free = np.flatnonzero(poison.meant(clean.labels) & ~trial.poisoned.mask)
    chosen = clean.take(free[: max(counts)])
    labels = np.full(len(chosen), poison.target_label, np.int64)
    rates = repoison(
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
    return [
        Measurement(
            name=AGAIN,
            value=rates[count],
            subject=about,
            how={"lab": True, **trial.planted, **how, "planted_again": count},
            detail=details.get(count, {}),
            seed=trial.seed,
        )
        for count in sorted(rates)
    ]


def _summary(run: Run, scans: Sequence[Record]) -> list[Measurement]:
    """Return how many backdoored models were found, and how many clean ones alarmed."""
    rates: list[Measurement] = []
    for what, kind in (("training_set", TRAINING_SET_SCAN), ("model", MODEL_SCAN)):
        notes = [record for record in scans if isinstance(record, Note) and record.name == kind]
        clean = [note for note in notes if note.facts["planted"]["poison"] == "none"]
        planted = [note for note in notes if note not in clean]
        for name, looked_at in (("detection_rate", planted), ("false_alarm_rate", clean)):
            if not looked_at:
                continue
            hits = [
                bool(note.facts["backdoored"])
                and (
                    note in clean
                    or note.facts["target_label"] == note.facts["planted"]["target_label"]
                )
                for note in looked_at
            ]
            subject = {
                "models": [note.facts["model"] for note in looked_at],
                "dataset": run.dataset.train.digest,
                "dataset_name": run.dataset.name,
            }
            names = sorted({str(note.facts["model_name"]) for note in looked_at})
            rates.append(
                Measurement(
                    name=f"{what}_{name}",
                    value=Rate.of(sum(hits), len(hits)),
                    subject=subject,
                    how={"looked_at": names},
                    detail={"records": [note.id for note in looked_at]},
                )
            )
    return rates
