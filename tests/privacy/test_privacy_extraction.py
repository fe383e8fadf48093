"""Copies from answers: as good as the questions allow, and never more of them than allowed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from purpleteam.attacks.evasion import ATTACKS, EvasionAttack
from purpleteam.core.arrays import Pixels, Singles
from purpleteam.core.errors import ModelError, UsageError
from purpleteam.data.images import ImageSet
from purpleteam.models.black_box import FAINTEST, Gives, log_scores
from purpleteam.models.inference import logits
from purpleteam.models.recipes import RECIPES
from purpleteam.privacy.extraction import EXTRACTIONS, Course
from purpleteam.privacy.extraction.active import Active
from purpleteam.privacy.extraction.extract import Extraction, extract, learnable
from purpleteam.privacy.extraction.jacobian import Jacobian
from purpleteam.privacy.membership import Ask

GIVES: tuple[Gives, Gives] = ("scores", "labels")
QUICK = RECIPES["plain"](epochs=1, learning_rate=0.05, batch_size=32)


def linear(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()


def images(count: int, seed: int) -> ImageSet:
    rng = np.random.default_rng(seed)
    return ImageSet(rng.integers(0, 256, (count, 4, 4, 1), np.uint8), rng.integers(0, 3, count))


TEST = images(200, 2)


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
    name: str,
    ask: Ask,
    queries: Sequence[int] = (40, 160),
    answers: Gives = "scores",
    *,
    test: ImageSet = TEST,
    attack: EvasionAttack | None = None,
    least_steps: int = 150,
) -> Extraction:
    return extract(
        ask,
        EXTRACTIONS[name](),
        pool=images(100, 1),
        test=test,
        queries=queries,
        answers=answers,
        net=linear,
        recipe=QUICK,
        least_steps=least_steps,
        attack=attack,
    )


@pytest.mark.parametrize("name", list(EXTRACTIONS))
def test_a_copy_of_the_same_form_agrees_and_more_so_with_more_questions(name: str) -> None:
    first, last = copied(name, Model()).points
    assert last.agreement.value >= first.agreement.value - 0.05
    assert last.agreement.low > 0.6  # three classes: a third is chance


def test_scores_tell_more_than_labels() -> None:
    by_scores, by_labels = (
        copied("extraction_natural", Model(), (60,), answers).points[0].agreement.value
        for answers in GIVES
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
    dim = ImageSet(np.asarray(images(200, 2).images) // 4, np.zeros(200, np.int64))
    with pytest.raises(ModelError, match="refused all 60 questions of extraction_random"):
        copied("extraction_random", Model(refuses=0.2), (60,), test=dim)
    with pytest.raises(ModelError, match="refused all 200 test images"):
        copied("extraction_random", Model(refuses=0.0))


def knowing(pool: ImageSet, count: int) -> Course:
    """Return a course in which noise was asked about, and what a linear copy says of it."""
    asked = np.asarray(images(count, 9).images)
    answers = np.eye(3)[logits(linear(1), asked).argmax(1)]
    return Course(pool, np.random.default_rng(0), asked, answers, linear(1))


def test_scores_of_a_linear_model_tell_its_weights_by_as_many_questions_as_it_has() -> None:
    """Tramer et al. 2016, arXiv:1609.02943: d + 1 equations, up to what softmax cannot show."""
    model, course = Model(), knowing(TEST, 1)
    asked = EXTRACTIONS["extraction_random"]().questions(course, 17)
    learned = np.log(learnable(model(asked), "scores"))
    rows = np.concatenate([asked.reshape(17, -1) / 255, np.ones((17, 1))], 1)
    solved = np.linalg.solve(rows, learned - learned.mean(1, keepdims=True))
    weight = model.net.state_dict()["1.weight"].double().numpy().T * 8
    assert solved[:16] == pytest.approx(weight - weight.mean(1, keepdims=True), abs=1e-3)


def test_jacobian_moves_each_asked_image_once_and_down_or_up_the_slope() -> None:
    course = knowing(images(50, 3), 6)
    made = Jacobian(step=0.1).questions(course, 40)
    assert len(made) == 6
    for image in made.astype(int):
        apart = np.abs(np.asarray(course.asked, int) - image)
        assert apart.max((1, 2, 3)).min() == 26  # a step is 25.5 levels


def test_of_the_model_s_errors_and_of_what_fools_the_copy_the_rates_are_told() -> None:
    test = ImageSet(TEST.images, Model()(np.asarray(TEST.images)).argmax(1))
    attack = ATTACKS["fgsm"](epsilon=0.5)
    (right,) = copied("extraction_natural", Model(), (100,), test=test, attack=attack).points
    assert right.agreement_on_errors is None and right.agreement == right.accuracy
    assert right.transfer is not None and right.transfer.n == 200
    assert right.transfer.low > 0.7
    found = copied("extraction_natural", Model(), (100,))
    (noisy,), told = found.points, found.to_json()
    assert told["options"] == {} and told["points"][0]["agreement"] == noisy.agreement.to_json()
    assert told["points"][0]["queries"] == 100 and told["points"][0]["transfer"] is None
    assert noisy.agreement_on_errors is not None and noisy.transfer is None
    assert 100 < noisy.agreement_on_errors.n < 160 and noisy.agreement_on_errors.low > 0.6


def test_a_model_that_rounds_or_gives_labels_is_told_so() -> None:
    def rounds(pixels: Pixels) -> Singles:
        chances = torch.from_numpy(Model()(pixels)).softmax(1)
        return log_scores((100 * chances).round() / 100, FAINTEST).numpy()

    def labels(pixels: Pixels) -> Singles:
        return np.asarray(np.eye(3, dtype=np.float32)[Model()(pixels).argmax(1)])

    assert copied("extraction_natural", rounds, (60,)).decimals == 2
    assert copied("extraction_natural", Model(), (60,)).decimals is None
    assert copied("extraction_natural", labels, (60,), "labels").points[0].agreement.low > 0.6
    with pytest.raises(UsageError, match="labels only, and no scores to learn: answers='labels'"):
        copied("extraction_natural", labels, (60,))


@pytest.mark.parametrize("queries", [(), (0, 5), (60, 30), (30, 30)])
def test_numbers_of_questions_must_grow(queries: Sequence[int]) -> None:
    with pytest.raises(UsageError, match="queries must grow, from at least 1, not"):
        copied("extraction_natural", Model(), queries)


def test_the_least_sure_images_of_the_pool_are_asked_about_first() -> None:
    pool = images(50, 3)
    course = knowing(pool, 5)
    chosen = Active(growth=2.0).questions(course, 30)
    assert len(chosen) == 10
    scores = np.sort(logits(linear(1), pool.images), 1)
    lead = scores[:, -1] - scores[:, -2]
    asked = {row.tobytes() for row in chosen}
    assert asked == {pool.images[n].tobytes() for n in np.argsort(lead)[:10]}
