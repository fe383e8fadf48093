"""Rebuilt images: a model that stores an image is caught, a class mean is no leak."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from purpleteam.core.errors import UsageError
from purpleteam.data.images import ImageSet
from purpleteam.privacy.inversion import INVERSIONS, Rebuilt
from purpleteam.privacy.inversion.gradient import Gradient
from purpleteam.privacy.inversion.judge import judge
from purpleteam.privacy.inversion.prior import Prior
from purpleteam.privacy.inversion.score_based import ScoreBased

CLASSES, SIDE, EACH = 10, 6, 12


def patterns(seed: int) -> ImageSet:
    """Images of black and white pixels: of each class a pattern, a fifth of it turned over."""
    classes = np.random.default_rng(0).integers(0, 2, (CLASSES, SIDE, SIDE, 1))
    labels = np.repeat(np.arange(CLASSES), EACH)
    turned = np.random.default_rng(seed).random((len(labels), SIDE, SIDE, 1)) < 0.2
    return ImageSet(((classes[labels] ^ turned) * 255).astype(np.uint8), labels)


LEARNED, OTHERS = patterns(1), patterns(2)
FIRST = np.asarray(LEARNED.images[::EACH])  # an image of each class
CENTRES = np.asarray(LEARNED.images).reshape(CLASSES, EACH, SIDE, SIDE, 1).mean(1)


def net_of(images: np.ndarray) -> nn.Module:
    """A linear net whose score of a class is highest on one image (classes, H, W, C)."""
    layer = nn.Linear(SIDE * SIDE, CLASSES)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(images.reshape(CLASSES, -1) / 127.5 - 1))
        layer.bias.copy_(-layer.weight.clamp_min(0).sum(1))
    return nn.Sequential(nn.Flatten(), layer).eval()


@pytest.mark.parametrize("kind", [Gradient, ScoreBased])
def test_a_net_that_stores_training_images_is_called_a_leak(
    kind: type[Gradient | ScoreBased],
) -> None:
    attack = kind(prior="none", steps=600, learning_rate=0.3)
    rebuilt = attack.rebuild(net_of(FIRST), range(CLASSES), pool=OTHERS, seed=0)
    judged = judge(rebuilt, by=net_of(CENTRES), learned=LEARNED, others=OTHERS)
    assert judged.leak and judged.verdict == "images of the training set"
    assert judged.nearest == tuple(range(0, CLASSES * EACH, EACH))


def test_a_class_mean_is_an_image_of_the_class_and_no_leak() -> None:
    means = Rebuilt(ImageSet(CENTRES.astype(np.uint8), np.arange(CLASSES)), 0)
    judged = judge(means, by=net_of(CENTRES), learned=LEARNED, others=OTHERS)
    assert judged.verdict == "an image of the class, none of the training set"


def test_many_copies_of_one_image_tell_no_more_than_the_image() -> None:
    copies = np.repeat(FIRST[:3], 30, axis=0)
    rebuilt = Rebuilt(ImageSet(copies, np.repeat(np.arange(3), 30)), 0)
    judged = judge(rebuilt, by=net_of(CENTRES), learned=LEARNED, others=OTHERS)
    assert judged.pixels.nearer.value == 1 and judged.pixels.chance == pytest.approx(
        1 / 8, abs=0.01
    )
    assert judged.verdict == "an image of the class; too few to tell whether of the training set"


def test_chance_allows_for_more_training_images_than_others() -> None:
    few = OTHERS.take(slice(None, None, 3))  # a quarter of all
    rebuilt = Rebuilt(ImageSet(FIRST, np.arange(CLASSES)), 0)
    judged = judge(rebuilt, by=net_of(CENTRES), learned=LEARNED, others=few)
    assert judged.pixels.expected == 0.75
    assert judged.pixels.chance == pytest.approx(0.75**CLASSES, abs=0.01)


def test_a_leak_is_seen_in_the_features_of_the_net_that_judges_too() -> None:
    class Left(nn.Module):
        """It looks at the left half alone."""

        def __init__(self) -> None:
            super().__init__()
            self.dense = nn.Linear(SIDE * SIDE // 2, CLASSES)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = self.dense(x[..., : SIDE // 2].flatten(1))
            return scores

    halved = LEARNED.take([n for n in range(CLASSES * EACH) if n % EACH < 4])
    pixels = np.array(halved.images)
    pixels[:, :, SIDE // 2 :] = 255 - pixels[:, :, SIDE // 2 :]
    rebuilt = Rebuilt(ImageSet(pixels, halved.labels), 0)
    judged = judge(rebuilt, by=Left(), learned=LEARNED, others=OTHERS)
    assert judged.features is not None and judged.features.beside_mean == 0
    assert judged.leak and not judged.pixels.closer


def test_other_images_of_the_class_are_no_leak() -> None:
    others = Rebuilt(ImageSet(np.asarray(OTHERS.images[::EACH]), np.arange(CLASSES)), 0)
    assert not judge(others, by=net_of(CENTRES), learned=LEARNED, others=OTHERS).leak


def test_what_nobody_recognises_is_no_image_of_the_class() -> None:
    black = Rebuilt(ImageSet(np.zeros((10, SIDE, SIDE, 1), np.uint8), np.arange(CLASSES)), 0)
    judged = judge(black, by=net_of(CENTRES), learned=LEARNED, others=OTHERS)
    assert judged.verdict == "no image of the class"


def test_a_prior_of_images_begins_at_their_mean_and_stays_in_range() -> None:
    prior = Prior.of("images", LEARNED)
    drawn = torch.randn(5, prior.dimensions, generator=torch.Generator().manual_seed(0))
    made = prior.images(9 * drawn)
    assert made.shape == (5, 1, SIDE, SIDE) and made.min() >= 0 and made.max() <= 1
    mean = np.asarray(LEARNED.images).mean(0).transpose(2, 0, 1) / 255
    middle = prior.images(torch.zeros(1, prior.dimensions))[0]
    assert middle.numpy() == pytest.approx(mean, abs=1e-5)


def test_where_a_class_has_no_other_image_nothing_is_judged() -> None:
    rebuilt = Rebuilt(ImageSet(FIRST, np.arange(CLASSES)), 0)
    with pytest.raises(UsageError, match="of class 9 there is no other image to compare with"):
        judge(rebuilt, by=net_of(CENTRES), learned=LEARNED, others=OTHERS.part(0, 9 * EACH))


def test_without_a_prior_the_gradient_ends_at_the_brightest_pixels_of_the_class() -> None:
    """Of two classes that differ by w, softmax is highest where a pixel is 1 if w is above 0."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 2))
    w = torch.randn(SIDE * SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        net[1].weight.copy_(torch.stack([w, -w]) / 20)  # type: ignore[operator]
    attack = Gradient(prior="none", steps=800)
    made = attack.rebuild(net, [0, 1], pool=OTHERS, seed=0)
    bright = np.asarray(made.images.images).reshape(2, -1) > 127
    best = torch.stack([w > 0, w < 0]).numpy()
    clear = w.abs().numpy() > 0.1
    assert np.array_equal(bright[:, clear], best[:, clear])


def test_what_the_model_refuses_is_not_what_is_looked_for() -> None:
    def ask(x: torch.Tensor) -> torch.Tensor:
        brightness = x.mean((1, 2, 3))
        scores = torch.stack([9 * brightness, torch.full_like(brightness, 4.0)], 1)
        return torch.where((brightness < 0.5)[:, None], torch.nan, scores)

    attack = ScoreBased(prior="none", steps=60)
    made = attack.rebuild(ask, [0, 0], pool=OTHERS, seed=0)
    assert np.asarray(made.images.images).mean() > 200


def test_a_budget_of_questions_ends_the_search() -> None:
    attack = ScoreBased(pairs=5, queries=99)
    assert attack.rebuild(net_of(FIRST), [3, 4], pool=OTHERS, seed=1).queries == 2 * 90
    with pytest.raises(ValueError, match="at least 10, two for each pair, not 9"):
        ScoreBased(pairs=5, queries=9)


@pytest.mark.parametrize("name", list(INVERSIONS))
def test_a_model_that_gives_labels_alone_cannot_be_climbed(name: str) -> None:
    net = net_of(FIRST)
    net.gives = "labels"  # type: ignore[assignment]
    with pytest.raises(UsageError, match="needs the model's scores, and it gives labels only"):
        INVERSIONS[name]().rebuild(net, [0], pool=OTHERS, seed=0)


@pytest.mark.parametrize("name", list(INVERSIONS))
def test_questions_are_counted_and_the_same_seed_rebuilds_the_same(name: str) -> None:
    net, asked = net_of(FIRST), 0

    def ask(x: torch.Tensor) -> torch.Tensor:
        nonlocal asked
        asked += len(x)
        scores: torch.Tensor = net(x)
        return scores

    attack = INVERSIONS[name](steps=5)
    one = attack.rebuild(ask, [3, 4], pool=OTHERS, seed=1)
    assert one.queries == asked
    again = attack.rebuild(ask, [3, 4], pool=OTHERS, seed=1)
    assert np.array_equal(one.images.images, again.images.images)
