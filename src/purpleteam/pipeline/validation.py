"""Refuse a request that some stage would stumble over, before any work and any file."""

from collections.abc import Iterator
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any

from purpleteam.attacks.evasion.pgd import PGD
from purpleteam.certify.dpa import fitting
from purpleteam.certify.learners import seeded
from purpleteam.core.address import USER, without_secrets
from purpleteam.core.errors import ConfigError, DataError, UsageError, unknown
from purpleteam.defences.repair import REPAIRS
from purpleteam.defences.training import DEFENCES
from purpleteam.models.loading import load
from purpleteam.pipeline.config import ALL_STAGES, CertifyConfig
from purpleteam.pipeline.stages.defences import defence_of
from purpleteam.pipeline.stages.evasion import USUAL
from purpleteam.pipeline.stages.lab import planted_by
from purpleteam.pipeline.stages.models import recipe_of
from purpleteam.pipeline.stages.poison import poison_of
from purpleteam.pipeline.state import Run
from purpleteam.threats import load_system
from purpleteam.verbs.certify import BOUNDS
from purpleteam.verbs.ladders import attack_from
from purpleteam.verbs.trained import part

LEARNING = {"models", "attacks", "certify", "defences"}
"""Stages that train a model, or need one that was trained."""
LEAST = {
    0: "seed models.redrawn poison.target_label backdoors.clean backdoors.target_label",
    1: "processes models.epochs evasion.checked evasion.limit evasion.curve_images poison.epochs "
    "poison.count poison.trainings certify.changes certify.parts certify.limit defences.epochs "
    "backdoors.trainings backdoors.epochs backdoors.plant_again",
    10: "backdoors.trusted",
}
"""Keys by the smallest number that they may have."""
MOST_PROCESSES = 64  # each loads the dataset and torch: more than there are cores help nobody


def check_request(run: Run) -> None:
    """Make everything that is asked for by name once, and throw it away."""
    asked, stages = run.config, set(run.config.stages)
    for smallest, keys in LEAST.items():
        for key in keys.split():
            value: Any = attrgetter(key)(asked)
            for number in value if isinstance(value, tuple) else (value,):
                if number is not None and number < smallest:
                    raise ConfigError(f"{key} must be at least {smallest}, not {number}")
    if asked.processes > MOST_PROCESSES:
        raise ConfigError(f"processes must be at most {MOST_PROCESSES}, not {asked.processes}")
    for name in asked.stages:
        if name not in ALL_STAGES:
            raise ConfigError(f"stages: {unknown('stage', name, ALL_STAGES)}")
    if asked.models.use is not None and USER.search(asked.models.use):
        shown = without_secrets(asked.models.use)
        stays = "a key in an address would stay in run.json; a verb keeps it out, such as"
        raise UsageError(f"models.use {shown!r}: {stays} purple attack --model ADDRESS")
    if asked.models.use is None and LEARNING & stages:
        run.dataset.check_trainable()
    _models(run, stages)
    _evasion(run)
    with _named("poison"):
        recipe_of(asked.poison.recipe, asked.poison.epochs)
        for text in asked.poison.attacks if "attacks" in stages else ():
            poison = poison_of(run, text)
            if asked.poison.count is not None:
                try:
                    poison.check(run.train, seed=asked.seed)
                except UsageError as error:
                    raise ValueError(error) from None
                except DataError:
                    pass  # a set that teaches nothing: for the stage to say
    with _named("certify"):
        _bounds(asked.certify)
        learner = seeded(asked.certify.learner, asked.seed)
        if images := len(run.dataset.train):
            fitting(learner, images, parts=asked.certify.parts)
    for name in (*asked.defences.recipes, *asked.defences.options):
        _ = DEFENCES[name]
    for name in asked.defences.recipes:
        with _named(f"defences.options.{name}"):
            defence_of(run, name)
    lab = asked.backdoors
    with _named("backdoors"):
        recipe_of(lab.recipe, lab.epochs)
        if lab.attacks and lab.architecture is not None:
            run.subject(run.brought).net(lab.architecture)
        for text in lab.attacks:
            planted_by(run, text)
        for text in lab.repairs:
            part(REPAIRS, text, "backdoors.repairs")
    for path in asked.scan.paths:
        if not Path(path).exists():
            raise ConfigError(f"scan.paths: {path!r} does not exist")
    if asked.threats.system is not None:
        load_system(Path(asked.threats.system))


def _models(run: Run, stages: set[str]) -> None:
    config, asked = run.config, run.config.models
    with _named("models.recipe"):
        recipe_of(asked.recipe, asked.epochs)
    _ = run.brought  # first: the card of a stranger's model may name code, which it refuses
    for key in ("weights", "arch", "normalise", "classes"):
        if asked.use is None and (value := getattr(asked, key)) is not None:
            raise ConfigError(f"models.{key} {value!r} needs models.use, the model that it is of")
    if (
        (asked.use is None and LEARNING & stages)
        or (config.poison.attacks and "attacks" in stages)
        or ((config.defences.recipes or config.backdoors.attacks) and "defences" in stages)
    ):
        run.subject(run.brought).net(run.architecture)
    if asked.served is not None:
        load(asked.served)


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


def _bounds(asked: CertifyConfig) -> None:
    if asked.method not in BOUNDS:
        raise ConfigError(f"certify.method: {unknown('method', asked.method, BOUNDS)}")
    if not asked.seconds > 0:
        raise ConfigError(f"certify.seconds must be above 0, not {asked.seconds:g}")
    for epsilon in asked.epsilons:
        if not 0 <= epsilon <= 1:
            raise ConfigError(f"certify.epsilons must be from 0 to 1, not {epsilon:g}")


@contextmanager
def _named(key: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from None
