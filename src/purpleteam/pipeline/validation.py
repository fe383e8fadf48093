"""Refuse a request that some stage would stumble over, before any work and any file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from purpleteam.attacks.evasion.pgd import PGD
from purpleteam.core.errors import ConfigError
from purpleteam.defences.training import DEFENCES
from purpleteam.models.loading import build, load
from purpleteam.pipeline.stages.defences import defence_of
from purpleteam.pipeline.stages.evasion import attack_from
from purpleteam.pipeline.stages.models import baseline, recipe_of
from purpleteam.pipeline.stages.poison import NAMES, poison_of
from purpleteam.pipeline.work import Work, check_answers

__all__ = ["check_request"]


def check_request(work: Work) -> None:
    """Make everything that is asked for by name once, and throw it away.

    Raises:
        ConfigError: a number is out of its range; the message names the key.
        PurpleError: something is not known, not there, or does not fit the dataset.
    """
    for part in (_numbers, _models, _evasion, _poison, _defences, _scan):
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
        "poison.seeds": (asked.poison.seeds, 1),
        "defences.epochs": (asked.defences.epochs, 1),
    }
    for key, (value, smallest) in least.items():
        if value is not None and value < smallest:
            raise ConfigError(f"{key} must be at least {smallest}, not {value}")


def _models(work: Work) -> None:
    asked = work.config.models
    with _named("models.recipe"):
        recipe_of(asked.recipe, asked.epochs)
    build(work.architecture, work.shape, len(work.dataset.classes), seed=0)
    if asked.use is not None:
        check_answers(baseline(work), work.dataset)
    elif asked.weights is not None:
        raise ConfigError(f"models.weights {asked.weights!r} needs models.use, a module:factory")
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
        for name in NAMES:
            poison_of(work, name).apply(work.dataset.train, seed=asked.seed)


def _defences(work: Work) -> None:
    asked = work.config.defences
    for name in (*asked.recipes, *asked.options):
        _ = DEFENCES[name]
    for name in asked.recipes:
        with _named(f"defences.options.{name}"):
            defence_of(work, name)


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
