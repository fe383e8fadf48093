"""Refuse a request that some stage would stumble over, before any work and any file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from purpleteam.attacks.evasion.pgd import PGD
from purpleteam.certify.partition import fitting, seeded
from purpleteam.core.errors import ConfigError, DataError, UsageError, unknown
from purpleteam.defences.training import DEFENCES
from purpleteam.models.loading import build, load
from purpleteam.pipeline.config import ALL_STAGES
from purpleteam.pipeline.stages.backdoors import planted_by
from purpleteam.pipeline.stages.defences import defence_of
from purpleteam.pipeline.stages.evasion import attack_from
from purpleteam.pipeline.stages.models import baseline, recipe_of
from purpleteam.pipeline.stages.poison import NAMES, poison_of, training_images
from purpleteam.pipeline.stages.repairs import repair_of
from purpleteam.pipeline.work import Work

__all__ = ["check_request"]

LEARNING = {"models", "attacks", "certify", "defences"}
"""Stages that train a model, or need one that was trained."""
MOST_PROCESSES = 64
"""Each loads the dataset and torch: more than there are cores help nobody."""


def check_request(work: Work) -> None:
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
    )
    for part in checked:
        part(work)


def _numbers(work: Work) -> None:
    asked = work.config
    least = {
        "seed": (asked.seed, 0),
        "models.epochs": (asked.models.epochs, 1),
        "models.redrawn": (asked.models.redrawn, 0),
        "evasion.limit": (asked.evasion.limit, 1),
        "evasion.curve_images": (asked.evasion.curve_images, 1),
        "poison.epochs": (asked.poison.epochs, 1),
        "poison.count": (asked.poison.count, 1),
        "poison.seeds_count": (asked.poison.seeds_count, 1),
        "poison.target_label": (asked.poison.target_label, 0),
        "poison.seeds": (asked.poison.seeds, 1),
        "certify.changes": (min(asked.certify.changes, default=None), 1),
        "certify.parts": (asked.certify.parts, 1),
        "defences.epochs": (asked.defences.epochs, 1),
        "backdoors.seeds": (asked.backdoors.seeds, 1),
        "backdoors.clean": (asked.backdoors.clean, 0),
        "backdoors.epochs": (asked.backdoors.epochs, 1),
        "backdoors.trusted": (asked.backdoors.trusted, 10),
        "backdoors.target_label": (asked.backdoors.target_label, 0),
        "backdoors.processes": (asked.backdoors.processes, 1),
    }
    for key, (value, smallest) in least.items():
        if value is not None and value < smallest:
            raise ConfigError(f"{key} must be at least {smallest}, not {value}")


def _stages(work: Work) -> None:
    for name in work.config.stages:
        if name not in ALL_STAGES:
            raise ConfigError(f"stages: {unknown('stage', name, ALL_STAGES)}")


def _data(work: Work) -> None:
    """Refuse a set on which nothing can be trained, where no model is brought."""
    if work.config.models.use is None and LEARNING & set(work.config.stages):
        work.dataset.check_trainable()


def _models(work: Work) -> None:
    asked = work.config.models
    with _named("models.recipe"):
        recipe_of(asked.recipe, asked.epochs)
    if asked.use is not None:
        baseline(work)  # first: the card of a stranger's model may name code, which it refuses
    for key in ("weights", "arch", "normalise", "classes"):
        if asked.use is None and (value := getattr(asked, key)) is not None:
            raise ConfigError(f"models.{key} {value!r} needs models.use, the model that it is of")
    work.net(work.architecture, seed=0)
    load(asked.served)


def _evasion(work: Work) -> None:
    asked = work.config.evasion
    if not asked.attacks:
        raise ConfigError("evasion.attacks names no attack")
    for text in asked.attacks:
        attack_from(text, epsilon=asked.epsilon)
    with _named("evasion.curve"):
        for epsilon in asked.curve:
            PGD(epsilon=epsilon)
    with _named("evasion.l2_epsilon"):
        PGD(norm="l2", epsilon=asked.l2_epsilon)


def _poison(work: Work) -> None:
    asked = work.config
    with _named("poison.seeds_architecture"):
        build(asked.poison.seeds_architecture, work.shape, len(work.dataset.classes), seed=0)
    with _named("poison"):
        recipe_of(asked.poison.recipe, asked.poison.epochs)
        recipe_of(asked.poison.seeds_recipe, asked.poison.epochs)
        typed = dict.fromkeys(NAMES, asked.poison.seeds_count) | {"badnets": asked.poison.count}
        for name in NAMES if "attacks" in asked.stages else ():
            poison = poison_of(work, name)
            if typed[name] is not None:
                try:
                    poison.check(training_images(work, poison), seed=asked.seed)
                except UsageError as error:
                    raise ConfigError(f"poison: {error}") from None
                except DataError:
                    pass  # a set that teaches nothing: for the stage to say


def _certify(work: Work) -> None:
    asked = work.config.certify
    with _named("certify"):
        learner = seeded(asked.learner, work.config.seed)
        if images := len(work.dataset.train):
            fitting(learner, images, parts=asked.parts)


def _defences(work: Work) -> None:
    asked = work.config.defences
    for name in (*asked.recipes, *asked.options):
        _ = DEFENCES[name]
    for name in asked.recipes:
        with _named(f"defences.options.{name}"):
            defence_of(work, name)


def _backdoors(work: Work) -> None:
    asked = work.config.backdoors
    if asked.processes > MOST_PROCESSES:
        raise ConfigError(
            f"backdoors.processes must be at most {MOST_PROCESSES}, not {asked.processes}"
        )
    with _named("backdoors"):
        recipe_of(asked.recipe, asked.epochs)
        if asked.attacks and asked.architecture is not None:
            build(asked.architecture, work.shape, len(work.dataset.classes), seed=0)
        for text in asked.attacks:
            planted_by(work, text)
        for text in asked.repairs:
            repair_of(text)
        for count in asked.plant_again:
            if count < 1:
                raise ConfigError(f"backdoors.plant_again must be at least 1, not {count}")


def _scan(work: Work) -> None:
    for path in work.config.scan.paths:
        if not Path(path).exists():
            raise ConfigError(f"scan.paths: {path!r} does not exist")


@contextmanager
def _named(key: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from None
