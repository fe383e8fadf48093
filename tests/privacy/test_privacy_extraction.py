"""Copies from answers: as good as the questions allow, and never more of them than allowed."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from purpleteam.core.arrays import Pixels, Singles
from purpleteam.core.errors import ModelError
from purpleteam.data.images import ImageSet
from purpleteam.models.inference import logits
from purpleteam.models.recipes import RECIPES
from purpleteam.privacy.extraction import EXTRACTIONS
from purpleteam.privacy.extraction.extract import Extraction, extract

QUICK = RECIPES["plain"](epochs=1, learning_rate=0.05, batch_size=32)


def linear(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()


def images(count: int, seed: int) -> ImageSet:
    rng = np.random.default_rng(seed)
    return ImageSet(rng.integers(0, 256, (count, 4, 4, 1), np.uint8), rng.integers(0, 3, count))


class Model:
    """A linear model that counts what it is asked, and may refuse bright images."""

    def __init__(self, *, refuses: float = 2.0) -> None:
        self.net, self.refuses, self.questions = linear(7), refuses, 0

    def __call__(self, pixels: Pixels) -> Singles:
        self.questions += len(pixels)
        scores = logits(self.net, pixels) * 8
        scores[pixels.mean((1, 2, 3)) > 255 * self.refuses] = np.nan
        return scores


def copied(
    name: str, model: Model, queries: tuple[int, ...] = (40, 160), answers: str = "scores"
) -> Extraction:
    gives: Literal["scores", "labels"] = "scores" if answers == "scores" else "labels"
    return extract(
        model,
        EXTRACTIONS[name](),
        pool=images(100, 1),
        test=images(200, 2),
        queries=queries,
        answers=gives,
        net=linear,
        recipe=QUICK,
        least_steps=150,
    )


@pytest.mark.parametrize("name", list(EXTRACTIONS))
def test_a_copy_of_the_same_form_agrees_and_more_so_with_more_questions(name: str) -> None:
    first, last = copied(name, Model()).points
    assert last.agreement.value >= first.agreement.value - 0.05
    assert last.agreement.low > 0.6  # three classes: a third is chance


def test_scores_tell_more_than_labels() -> None:
    by_scores, by_labels = (
        copied("extraction_natural", Model(), (60,), answers).points[0].agreement.value
        for answers in ("scores", "labels")
    )
    assert by_scores > by_labels


@pytest.mark.parametrize("name", list(EXTRACTIONS))
def test_no_more_is_asked_than_allowed(name: str) -> None:
    model = Model()
    copied(name, model, (30, 130))
    assert model.questions == 130 + 200  # the test images, to compare on


def test_the_same_seed_makes_the_same_copy() -> None:
    one, again = (copied("extraction_active", Model()) for _ in range(2))
    assert one.points == again.points
    weights = zip(one.copy.parameters(), again.copy.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)


def test_a_refused_question_counts_and_teaches_nothing() -> None:
    found = copied("extraction_natural", Model(refuses=0.5), (60,))
    assert 10 < found.refused < 50
    assert found.points[0].agreement.n < 200
    with pytest.raises(ModelError, match="refused all 60 questions of extraction_natural"):
        copied("extraction_natural", Model(refuses=0.0), (60,))


def test_the_least_sure_images_of_the_pool_are_asked_about_first() -> None:
    from purpleteam.privacy.extraction import Course

    pool = images(50, 3)
    course = Course(
        pool,
        np.random.default_rng(0),
        np.zeros((0, 4, 4, 1), np.uint8),
        np.zeros((0, 3)),
        linear(1),
    )
    chosen = EXTRACTIONS["extraction_active"]().questions(course, 10)
    scores = np.sort(logits(linear(1), pool.images), 1)
    lead = scores[:, -1] - scores[:, -2]
    asked = {row.tobytes() for row in chosen}
    assert asked == {pool.images[n].tobytes() for n in np.argsort(lead)[:10]}
