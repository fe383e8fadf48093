"""Ask, learn, and count: how well a copy agrees with the model, over the questions asked."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import softmax
from torch import Tensor, nn

from purpleteam.attacks.evasion import EvasionAttack
from purpleteam.attacks.norms import quantise
from purpleteam.core.arrays import Bools, Floats, Ints, Singles
from purpleteam.core.errors import ModelError, UsageError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.statistics import Rate
from purpleteam.data.images import ImageSet
from purpleteam.models.black_box import Gives, as_bytes
from purpleteam.models.devices import device_of, to_batch
from purpleteam.models.guard import Guarded
from purpleteam.models.inference import logits
from purpleteam.models.recipes import Recipe
from purpleteam.models.training import Validation, train
from purpleteam.privacy.extraction import Course, Strategy
from purpleteam.privacy.questions import Ask

ATTACKED = 200  # test images whose adversarial examples are tried on the model
DECIMALS = (1, 2, 3, 4)
ROUNDED = 0.06  # by which rounding keeps probabilities from adding up to 1
LEAST_STEPS = 400  # of a copy's training: a hundred images a few times over teach too little


@dataclass(frozen=True)
class Point:
    """The copy after so many questions, on test images that the model gives a label to."""

    queries: int
    agreement: Rate
    """Of the images, those that the copy labels as the model does."""
    accuracy: Rate
    """Those that it labels rightly."""
    agreement_on_errors: Rate | None
    """Of those that the model labels wrongly, the ones that it labels in the same way; None where
    the model labels none wrongly."""
    transfer: Rate | None
    """Evasion success rate in the model of adversarial examples for the copy; None where none
    were made."""

    def to_json(self) -> dict[str, Any]:
        """Return the numbers."""
        rates = {name: rate for name, rate in vars(self).items() if name != "queries"}
        told = {name: rate and rate.to_json() for name, rate in rates.items()}
        return {"queries": self.queries, **told}


@dataclass(frozen=True, kw_only=True, eq=False)
class Extraction:
    """What a number of questions buys."""

    strategy: Strategy
    answers: Gives
    points: tuple[Point, ...]
    refused: int
    """Questions that got no answer; they count."""
    copy: nn.Module
    decimals: int | None
    """To which the model rounds its scores, where it does."""
    seconds: float
    """Of the processor."""

    def to_json(self) -> dict[str, Any]:
        """Return the numbers, and the strategy with its options."""
        told = {"strategy": self.strategy.name, "options": asdict(self.strategy)}
        told |= {name: getattr(self, name) for name in ("answers", "refused", "decimals")}
        points = [point.to_json() for point in self.points]
        return {**told, "points": points, "cpu_seconds": round(self.seconds, 2)}


def extract(
    ask: Ask,
    strategy: Strategy,
    *,
    pool: ImageSet,
    test: ImageSet,
    queries: Sequence[int],
    answers: Gives,
    net: Callable[[int], nn.Module],
    recipe: Recipe,
    least_steps: int = LEAST_STEPS,
    attack: EvasionAttack | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Extraction:
    """Copy a model by asking it, and measure the copy at each number of questions.

    The model is asked about the test images too, and about the adversarial examples: these are no
    questions of the adversary, and not among `queries`.

    Args:
        ask: the model; it is asked about bytes.
        strategy: chooses the questions.
        pool: images of the adversary's own; their labels are not looked at.
        test: images on which the copy is compared with the model.
        queries: after how many questions, counted from the first, a copy is trained and measured.
        answers: what of the model's answers is used.
        net: makes the copy, untrained, from a seed.
        recipe: how it is trained.
        least_steps: of a training; it goes on for more epochs where there are few questions.
        attack: run on the copy, on the first 200 test images that the model labels rightly; what
            it finds is tried on the model. With none there is no `Point.transfer`.
        seed: of the questions and the trainings.
        progress: where to report.

    Raises:
        UsageError: numbers of questions that do not grow from 1; scores are wanted of a model that
            gives labels.
        ModelError: the model answers none of the questions, or about none of the test images.
    """
    if not queries or list(queries) != sorted(set(queries)) or queries[0] < 1:
        raise UsageError(f"queries must grow, from at least 1, not {list(queries)}")
    started, of_test = time.process_time(), ask(np.asarray(test.images))
    known = np.where(np.isnan(of_test).any(1), -1, np.nan_to_num(of_test).argmax(1))
    shown = of_test[known >= 0]
    if not len(shown):
        raise ModelError(f"the model refused all {len(test)} test images: there is no agreement")
    if answers == "scores" and (shown == np.eye(shown.shape[1])[shown.argmax(1)]).all():
        raise UsageError("the model gives labels only, and no scores to learn: answers='labels'")
    course = Course(
        pool,
        np.random.default_rng([seed, 5]),
        np.zeros((0, *pool.images.shape[1:]), np.uint8),
        np.zeros((0, of_test.shape[1])),
    )
    points, refused, learned = list[Point](), 0, 0
    with progress.task(f"copy by {strategy.name}", len(queries)) as task:
        for budget in queries:
            while (count := budget - len(course.asked) - refused) > 0:
                if len(course.asked) > learned:
                    course.copy = _learn(course, net(seed), recipe, least_steps, seed)
                    learned = len(course.asked)
                images = strategy.questions(course, count)[:count]
                told = ask(images)
                answered: Bools = np.asarray(~np.isnan(told).any(1))
                refused += int((~answered).sum())
                course.asked = np.concatenate([course.asked, images[answered]])
                course.answers = np.concatenate(
                    [course.answers, learnable(told, answers)[answered]]
                )
            if not len(course.asked):
                raise ModelError(f"the model refused all {budget} questions of {strategy.name}")
            if len(course.asked) > learned or course.copy is None:
                course.copy = _learn(course, net(seed), recipe, least_steps, seed)
                learned = len(course.asked)
            said = logits(course.copy, test.images).argmax(1)
            transfer = None
            if attack is not None:
                transfer = _transfer(ask, attack, course.copy, test, known, seed)
            points.append(_measured(budget, said, known, test.labels, transfer))
            task.advance(1, agreement=f"{points[-1].agreement.value:.3f}")
    assert course.copy is not None  # noqa: S101 - there is one budget at least
    return Extraction(
        strategy=strategy,
        answers=answers,
        points=tuple(points),
        refused=refused,
        copy=course.copy,
        decimals=decimals_of(shown) if answers == "scores" else None,
        seconds=time.process_time() - started,
    )


def _measured(queries: int, said: Ints, known: Ints, labels: Ints, transfer: Rate | None) -> Point:
    """Compare what the copy says (N,) with what the model does, -1 where it refuses."""
    there, wrong = known >= 0, (known >= 0) & (known != labels)
    agree = said == known
    return Point(
        queries=queries,
        agreement=Rate.of(int(agree[there].sum()), int(there.sum())),
        accuracy=Rate.of(int((said == labels)[there].sum()), int(there.sum())),
        agreement_on_errors=(
            Rate.of(int(agree[wrong].sum()), int(wrong.sum())) if wrong.any() else None
        ),
        transfer=transfer,
    )


def _transfer(
    ask: Ask, attack: EvasionAttack, copy: nn.Module, test: ImageSet, known: Ints, seed: int
) -> Rate | None:
    """Return the evasion success rate in the model of what fools the copy; refusing is no error."""
    rows = np.flatnonzero(known == test.labels)[:ATTACKED]
    if not len(rows):
        return None
    device = device_of(copy)
    x = to_batch(np.asarray(test.images[rows]), device)
    y = torch.from_numpy(test.labels[rows]).to(device)
    found = quantise(attack(copy, x, y, seed=seed), x)
    told = ask(as_bytes(found).transpose(0, 2, 3, 1))
    fooled = (told.argmax(1) != test.labels[rows]) & ~np.isnan(told).any(1)
    return Rate.of(int(fooled.sum()), len(rows))


def decimals_of(scores: Singles) -> int | None:
    """Return to how many decimals the probabilities are rounded of which these are logarithms.

    None where scores (N, classes) are no such logarithms, or are not rounded to 1 to 4 decimals.
    """
    chances = np.exp(np.minimum(scores.astype(np.float64), 1.0))
    if not (np.abs(chances.sum(1) - 1) < ROUNDED).all():
        return None
    parts = (chances * 10**count for count in DECIMALS)
    whole = [bool((np.abs(part - part.round()) < 1e-3).all()) for part in parts]
    return DECIMALS[whole.index(True)] if True in whole else None


def learnable(scores: Singles, answers: Gives) -> Floats:
    """Return what a copy learns of scores (N, classes): probabilities, or the label's one."""
    if answers == "labels":
        return np.asarray(np.eye(scores.shape[1])[scores.argmax(1)])
    return np.asarray(softmax(scores.astype(np.float64), axis=1))


def _learn(
    course: Course, net: nn.Module, recipe: Recipe, least_steps: int, seed: int
) -> nn.Module:
    """Train a copy on the answers; images are numbered, and the number is looked up."""
    count = len(course.asked)
    numbered = ImageSet(course.asked, np.arange(count))
    wanted = torch.from_numpy(course.answers).float()

    def objective(
        asked: Guarded, x: Tensor, number: Tensor, rng: torch.Generator, done: float
    ) -> Tensor:
        target = wanted.to(x.device)[number]
        return F.cross_entropy(asked(x), target)

    def validate(model: nn.Module) -> Validation:  # what it and the model would draw alike
        apart = np.abs(softmax(logits(model, course.asked), axis=1) - course.answers).sum(1) / 2
        return Validation(validation_accuracy=float(1 - apart.mean()))

    epochs = max(recipe.epochs, math.ceil(least_steps / math.ceil(count / recipe.batch_size)))
    plan = replace(recipe, epochs=epochs)
    return train(
        net, numbered, numbered, plan, seed=seed, objective=objective, validate=validate
    ).module
