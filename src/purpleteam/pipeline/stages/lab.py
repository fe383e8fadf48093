"""Stage defences, second part: backdoors planted, scanned for, and removed.

What was planted serves only to count afterwards what was found.
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
from purpleteam.core.records import Artefact, Measurement, Note, Record, notes_of
from purpleteam.core.schema import MODEL_SCAN, NO_REPAIR, TRAINING_SET_SCAN
from purpleteam.core.statistics import Rate
from purpleteam.data.images import ImageSet
from purpleteam.data.streamed import each
from purpleteam.defences.detection.recovered import RecoveredTrigger
from purpleteam.defences.evaluate import evaluate_repair, repoison
from purpleteam.defences.repair import REPAIRS, Repair
from purpleteam.models.loading import LoadedModel
from purpleteam.pipeline.stages.models import baseline, evaluated, recipe_of, served
from purpleteam.pipeline.stages.trial import Planted, Trial, backdoor, plant, scan
from purpleteam.pipeline.state import Piece, Run
from purpleteam.verbs._pictures import Picture, gallery
from purpleteam.verbs.detect import TRIGGER
from purpleteam.verbs.repair import repair_and_store
from purpleteam.verbs.trained import part

CLEAN = "backdoors-clean"
"""What the model of the lab that learned the clean images is called in records."""
AGAIN = "attack_success_rate_planted_again"
"""What is measured after a repaired model was tuned on a few fresh poisons."""
SHOWN = 3  # test images that are shown with and without a planted trigger


def look_at_own(run: Run) -> Iterator[Piece]:
    """Look into the model at hand, its training set and the served model: nothing was planted."""
    asked = run.config.backdoors
    other = served(run, "defences", "A backdoor in the served model") if asked.served else None
    if not (asked.own or asked.own_training_set or other):
        return
    model = baseline(run)
    own = Trial(model, run.config.seed, run.dataset.train, own=True)
    if asked.own_training_set:
        yield Piece("search the training set", partial(scan, run, own, "search"))
    if asked.own:
        yield Piece(f"scan {model.name}", partial(scan, run, own, "scan"))
    if other is not None and not (asked.own and other.digest == model.digest):
        do = partial(scan, run, replace(own, model=other), "scan")
        yield Piece(f"scan {other.name}", do)


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
    recipe = recipe_of(asked.recipe, asked.epochs)
    how: dict[str, Any] = {"architecture": asked.architecture, "lab": True}
    if text is None:
        model = run.trained("defences", CLEAN, recipe, role="clean_twin", seed=seed, **how)
        trial = Trial(model, seed, run.train)
    else:
        name = "-".join(["backdoored", *re.findall(r"\w+", text)])
        trial = plant(run, "defences", (name, CLEAN), planted_by(run, text), recipe, seed, **how)
    yield Piece(f"describe {trial.stem}", partial(_describe, run, trial))

    def scanned(what: Literal["search", "scan"]) -> None:
        scans.extend(scan(run, trial, what))

    if asked.search_training_set:
        yield Piece(f"search {trial.stem}", partial(scanned, "search"))
    if asked.scan_models:
        yield Piece(f"scan {trial.stem}", partial(scanned, "scan"))
    if isinstance(trial, Planted) and asked.repairs:
        yield Piece(f"plant again {trial.stem}", partial(_planted_again, run, trial))
        for repair in asked.repairs:
            do = partial(_repaired, run, trial, repair)
            yield Piece(f"repair {trial.stem} by {repair}", do)


def planted_by(run: Run, text: str) -> PoisonAttack:
    """Return the poison that an entry of `backdoors.attacks` means."""
    given = {"target_label": aimed_at(run.config.backdoors.target_label, run.dataset)}
    return poison_from(text, given, dataset=run.dataset, where="backdoors.attacks")


def _describe(run: Run, trial: Trial) -> None:
    """Evaluate a trial's model; measure and show what the trigger does to it."""
    evaluated(run, "defences", trial.model, trial.seed)
    if not isinstance(trial, Planted):
        return
    backdoor(run, "defences", trial)

    def look() -> Sequence[Record]:
        test, names, poison = run.dataset.test, run.dataset.classes, trial.poison
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
        title = f"Planted: {trial.model.name}, seed {trial.seed}"
        return gallery(run.folder, "planted", title, pictures)

    run.cell("defences", f"planted {trial.stem}", {"poison": trial.planted}, look)


def _repaired(run: Run, trial: Planted, text: str) -> None:
    """Repair a trial's model with what the scans found, and measure what is left."""
    repair: Repair = part(REPAIRS, text, "backdoors.repairs")
    name, stem = f"{trial.model.name}/{repair.name}", f"{trial.stem}-{repair.name}"
    asked = run.config.backdoors
    flagged, digest, trigger = list[int](), None, None
    if asked.search_training_set:
        for note in notes_of(scan(run, trial, "search"), TRAINING_SET_SCAN):
            flagged = [int(place) for place in note.facts["flagged"]]
    if asked.scan_models:
        digest, trigger = _recovered(run, scan(run, trial, "scan"))
    arch, path = asked.architecture or run.architecture, run.folder.path / "models" / stem

    def work() -> list[Record]:
        try:
            return repair_and_store(
                run.subject(trial.model, seed=trial.seed),
                repair,
                path,
                arch,
                train=trial.images,
                trusted=run.trusted,
                recipe=recipe_of(asked.recipe, asked.epochs),
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
    if notes_of(records, NO_REPAIR):
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
    run: Run, trial: Planted, repair: Repair, model: LoadedModel, flagged: Sequence[int]
) -> list[Record]:
    """Return what the trigger still does to the repaired model, on test images."""
    test, residual = run.dataset.test, None
    if repair.name == "retrain":  # of what it learned from
        removed = np.zeros(len(trial.images), np.bool_)
        removed[list(flagged)] = True
        residual = int((trial.poisoned.mask & ~removed).sum())
    before = evaluate_backdoor(trial.model.module, test, trial.poison)
    outcome = evaluate_repair(model.module, before, test, trial.poison, trial.clean.module)
    about = run.subject(model).about() | {"before": trial.model.digest}
    how = {"lab": True, **trial.planted, "repair": repair.name}
    left = outcome.measurements(about, how, trial.seed, residual)
    without = {
        record.how["planted_again"]: {"clean_model": record.value.to_json()}
        for record in _planted_again(run, trial)
        if isinstance(record, Measurement)
    }
    return [*left, *_again(run, trial, model, about, without, repair=repair.name)]


def _planted_again(run: Run, trial: Planted) -> list[Record]:
    """Measure what a few fresh poisons do to the clean model, once for all repairs."""
    clean, counts = trial.clean, list(run.config.backdoors.plant_again)
    if not counts:
        return []
    depends_on = {"model": clean.digest, "what": trial.planted, "counts": counts}
    about = run.subject(clean).about()
    measure = partial(_again, run, trial, clean, about, {})
    return run.cell("defences", f"plant again {trial.stem}", depends_on, measure)


def _again(
    run: Run,
    trial: Planted,
    model: LoadedModel,
    about: Mapping[str, Any],
    details: Mapping[int, Mapping[str, Any]],
    **how: Any,
) -> list[Record]:
    """Return attack success by the number of fresh poisons that a model was tuned on."""
    poison, test, counts = trial.poison, run.dataset.test, run.config.backdoors.plant_again
    if not counts:
        return []
    meant = test.take(np.flatnonzero(poison.meant(test.labels)))
    clean = run.dataset.train  # of which those count that were not poisoned before
    free = np.flatnonzero(poison.meant(clean.labels) & ~trial.poisoned.mask)
    chosen = clean.take(free[: max(counts)])
    labels = np.full(len(chosen), poison.target_label, np.int64)
    rates = repoison(
        model.module,
        ImageSet(each(chosen.images, poison.triggered), labels),
        run.trusted,
        ImageSet(each(meant.images, poison.triggered), meant.labels),
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
        notes = notes_of(scans, kind)
        clean = [note for note in notes if note.facts["planted"]["poison"] == "none"]
        planted = [note for note in notes if note not in clean]
        for name, looked_at in (("detection_rate", planted), ("false_alarm_rate", clean)):
            if not looked_at:
                continue
            facts = [note.facts for note in looked_at]
            hits = sum(
                bool(told["backdoored"])
                and told["planted"].get("target_label", told["target_label"])
                == told["target_label"]
                for told in facts
            )
            subject = {
                "models": [told["model"] for told in facts],
                "dataset": run.dataset.train.digest,
                "dataset_name": run.dataset.name,
            }
            rates.append(
                Measurement(
                    name=f"{what}_{name}",
                    value=Rate.of(hits, len(facts)),
                    subject=subject,
                    how={"looked_at": sorted({str(told["model_name"]) for told in facts})},
                    detail={"records": [note.id for note in looked_at]},
                )
            )
    return rates
