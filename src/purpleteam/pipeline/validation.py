"""Refuse a request that some stage would stumble over, before any work and any file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from purpleteam.attacks.evasion.pgd import PGD
from purpleteam.certify.dpa import fitting
from purpleteam.certify.learners import seeded
from purpleteam.core.errors import ConfigError, DataError, UsageError, unknown
from purpleteam.defences.training import DEFENCES
from purpleteam.models.loading import load
from purpleteam.pipeline.config import ALL_STAGES
from purpleteam.pipeline.stages.defences import defence_of
from purpleteam.pipeline.stages.evasion import USUAL
from purpleteam.pipeline.stages.lab import planted_by
from purpleteam.pipeline.stages.models import baseline, recipe_of
from purpleteam.pipeline.stages.poison import poison_of
from purpleteam.pipeline.stages.trial import repair_of
from purpleteam.pipeline.state import Run
from purpleteam.threats import load_system
from purpleteam.verbs.ladders import attack_from

LEARNING = {"models", "attacks", "certify", "defences"}
"""Stages that train a model, or need one that was trained."""
MOST_PROCESSES = 64
"""Each loads the dataset and torch: more than there are cores help nobody."""


def check_request(run: Run) -> None:
    """Make everything that is asked for by name once, and throw it away.

    Raises:
        ConfigError: a number is out of its range; the message names the key.
        PurpleError: something is not known, not there, or does not fit the dataset.
    """
    checked = (
        _numbers,
        _stages,
        _data,
        _models,
        _evasion,
        _poison,
        _certify,
        _defences,
        _backdoors,
        _scan,
        _threats,
    )
    for part in checked:
        part(run)


def _numbers(run: Run) -> None:
    asked = run.config
    least = {
        "seed": (asked.seed, 0),
        "models.epochs": (asked.models.epochs, 1),
        "models.redrawn": (asked.models.redrawn, 0),
        "evasion.checked": (asked.evasion.checked, 1),
        "evasion.limit": (asked.evasion.limit, 1),
        "evasion.curve_images": (asked.evasion.curve_images, 1),
        "poison.epochs": (asked.poison.epochs, 1),
        "poison.count": (asked.poison.count, 1),
        "poison.target_label": (asked.poison.target_label, 0),
        "poison.trainings": (asked.poison.trainings, 1),
        "certify.changes": (min(asked.certify.changes, default=None), 1),
        "certify.parts": (asked.certify.parts, 1),
        "defences.epochs": (asked.defences.epochs, 1),
        "backdoors.trainings": (asked.backdoors.trainings, 1),
        "backdoors.clean": (asked.backdoors.clean, 0),
        "backdoors.epochs": (asked.backdoors.epochs, 1),
        "backdoors.trusted": (asked.backdoors.trusted, 10),
        "backdoors.target_label": (asked.backdoors.target_label, 0),
        "processes": (asked.processes, 1),
    }
    if asked.processes > MOST_PROCESSES:
        raise ConfigError(f"processes must be at most {MOST_PROCESSES}, not {asked.processes}")
    for key, (value, smallest) in least.items():
        if value is not None and value < smallest:
            raise ConfigError(f"{key} must be at least {smallest}, not {value}")


def _stages(run: Run) -> None:
    for name in run.config.stages:
        if name not in ALL_STAGES:
            raise ConfigError(f"stages: {unknown('stage', name, ALL_STAGES)}")


def _data(run: Run) -> None:
    """Refuse a set on which nothing can be trained, where no model is brought."""
    if run.config.models.use is None and LEARNING & set(run.config.stages):
        run.dataset.check_trainable()


def _models(run: Run) -> None:
    asked = run.config.models
    with _named("models.recipe"):
        recipe_of(asked.recipe, asked.epochs)
    if asked.use is not None:
        baseline(run)  # first: the card of a stranger's model may name code, which it refuses
    for key in ("weights", "arch", "normalise", "classes"):
        if asked.use is None and (value := getattr(asked, key)) is not None:
            raise ConfigError(f"models.{key} {value!r} needs models.use, the model that it is of")
    if _trains(run):
        run.net(run.architecture, seed=0)
    if asked.served is not None:
        load(asked.served)


def _trains(run: Run) -> bool:
    """Say whether a model of the run's architecture is trained."""
    asked, stages = run.config, set(run.config.stages)
    return (
        (asked.models.use is None and bool(LEARNING & stages))
        or (bool(asked.poison.attacks) and "attacks" in stages)
        or (bool(asked.defences.recipes or asked.backdoors.attacks) and "defences" in stages)
    )


def _evasion(run: Run) -> None:
    asked = run.config.evasion
    if not asked.attacks:
        raise ConfigError("evasion.attacks names no attack")
    for text in asked.attacks:
        if text != USUAL:
            attack_from(text, epsilon=run.epsilon)
    with _named("evasion.curve"):
        for epsilon in run.curve:
            PGD(epsilon=epsilon)
    with _named("evasion.l2_epsilon"):
        if asked.l2_epsilon is not None:
            PGD(norm="l2", epsilon=asked.l2_epsilon)


def _poison(run: Run) -> None:
    asked = run.config
    with _named("poison"):
        recipe_of(asked.poison.recipe, asked.poison.epochs)
        for text in asked.poison.attacks if "attacks" in asked.stages else ():
            poison = poison_of(run, text)
            if asked.poison.count is not None:
                try:
                    poison.check(run.train, seed=asked.seed)
                except UsageError as error:
                    raise ConfigError(f"poison: {error}") from None
                except DataError:
                    pass  # a set that teaches nothing: for the stage to say


def _certify(run: Run) -> None:
    asked = run.config.certify
    with _named("certify"):
        learner = seeded(asked.learner, run.config.seed)
        if images := len(run.dataset.train):
            fitting(learner, images, parts=asked.parts)


def _defences(run: Run) -> None:
    asked = run.config.defences
    for name in (*asked.recipes, *asked.options):
        _ = DEFENCES[name]
    for name in asked.recipes:
        with _named(f"defences.options.{name}"):
            defence_of(run, name)


def _backdoors(run: Run) -> None:
    asked = run.config.backdoors
    with _named("backdoors"):
        recipe_of(asked.recipe, asked.epochs)
        if asked.attacks and asked.architecture is not None:
            run.net(asked.architecture, seed=0)
        for text in asked.attacks:
            planted_by(run, text)
        for text in asked.repairs:
            repair_of(text)
        for count in asked.plant_again:
            if count < 1:
                raise ConfigError(f"backdoors.plant_again must be at least 1, not {count}")


def _scan(run: Run) -> None:
    for path in run.config.scan.paths:
        if not Path(path).exists():
            raise ConfigError(f"scan.paths: {path!r} does not exist")


def _threats(run: Run) -> None:
    if run.config.threats.system is not None:
        load_system(Path(run.config.threats.system))


@contextmanager
def _named(key: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from None
