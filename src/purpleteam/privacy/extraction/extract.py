"""Ask, learn, and count: how well a copy agrees with the model, over the questions asked."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import softmax
from torch import Tensor, nn

from purpleteam.core.arrays import Bools, Floats, Singles
from purpleteam.core.errors import ModelError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.statistics import Rate
from purpleteam.data.images import ImageSet
from purpleteam.models.black_box import Gives
from purpleteam.models.guard import Guarded
from purpleteam.models.inference import logits
from purpleteam.models.recipes import Recipe
from purpleteam.models.training import Validation, train
from purpleteam.privacy.extraction import Course, Strategy
from purpleteam.privacy.membership import Ask

LEAST_STEPS = 400  # of a copy's training: a hundred images a few times over teach too little


@dataclass(frozen=True)
class Point:
    """The copy after so many questions, on test images that the model gives a label to."""

    queries: int
    agreement: Rate
    """Of the images, those that the copy labels as the model does."""
    accuracy: Rate
    """Those that it labels rightly."""

    def to_json(self) -> dict[str, Any]:
        """Return the numbers."""
        rates = {"agreement": self.agreement.to_json(), "accuracy": self.accuracy.to_json()}
        return {"queries": self.queries, **rates}


@dataclass(frozen=True, kw_only=True, eq=False)
class Extraction:
    """What a number of questions buys."""

    strategy: Strategy
    answers: Gives
    points: tuple[Point, ...]
    refused: int
    """Questions that got no answer; they count."""
    copy: nn.Module
    seconds: float
    """Of the processor."""

    def to_json(self) -> dict[str, Any]:
        """Return the numbers."""
        told = {"strategy": self.strategy.name, "answers": self.answers, "refused": self.refused}
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
    seed: int = 0,
    progress: Progress = SILENT,
) -> Extraction:
    """Copy a model by asking it, and measure the copy at each number of questions.

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
        seed: of the questions and the trainings.
        progress: where to report.

    Raises:
        ModelError: the model answers none of the questions.
    """
    started, told = time.process_time(), ask(np.asarray(test.images))
    known: Bools = np.asarray(~np.isnan(told).any(1))
    course = Course(
        pool,
        np.random.default_rng([seed, 5]),
        np.zeros((0, *pool.images.shape[1:]), np.uint8),
        np.zeros((0, told.shape[1])),
    )
    points, refused = [], 0
    with progress.task(f"copy by {strategy.name}", len(queries)) as task:
        for budget in sorted(queries):
            count = budget - len(course.asked) - refused
            if count > 0:
                images = strategy.questions(course, count)
                told_now = _as_learned(ask(images), answers)
                answered: Bools = np.asarray(~np.isnan(told_now).any(1))
                refused += int((~answered).sum())
                course.asked = np.concatenate([course.asked, images[answered]])
                course.answers = np.concatenate([course.answers, told_now[answered]])
            if not len(course.asked):
                raise ModelError(f"the model refused all {budget} questions of {strategy.name}")
            course.copy = _learn(course, net(seed), recipe, least_steps, seed)
            said = logits(course.copy, test.images).argmax(1)[known]
            agree, right = (
                Rate.of(int(np.equal(said, labels[known]).sum()), int(known.sum()))
                for labels in (np.nan_to_num(told).argmax(1), test.labels)
            )
            points.append(Point(budget, agree, right))
            task.advance(1, agreement=f"{points[-1].agreement.value:.3f}")
    assert course.copy is not None  # noqa: S101 - there is one budget at least
    return Extraction(
        strategy=strategy,
        answers=answers,
        points=tuple(points),
        refused=refused,
        copy=course.copy,
        seconds=time.process_time() - started,
    )


def _as_learned(scores: Singles, answers: Gives) -> Floats:
    """Return what a copy learns of scores (N, classes): probabilities, or the label's one."""
    refused: Bools = np.asarray(np.isnan(scores).any(1))
    if answers == "scores":
        return np.asarray(softmax(scores.astype(np.float64), axis=1))
    ones = np.eye(scores.shape[1])[np.nan_to_num(scores).argmax(1)]
    return np.where(refused[:, None], np.nan, ones)


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

    def validate(model: nn.Module) -> Validation:
        said = logits(model, course.asked).argmax(1)
        return Validation(validation_accuracy=float((said == course.answers.argmax(1)).mean()))

    epochs = max(recipe.epochs, math.ceil(least_steps / math.ceil(count / recipe.batch_size)))
    plan = replace(recipe, epochs=epochs)
    return train(
        net, numbered, numbered, plan, seed=seed, objective=objective, validate=validate
    ).module
