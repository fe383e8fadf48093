"""Rebuilt images: a model that stores an image is caught, a class mean is no leak."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from purpleteam.data.images import ImageSet
from purpleteam.privacy.inversion import INVERSIONS, Rebuilt
from purpleteam.privacy.inversion.judge import judge
from purpleteam.privacy.inversion.prior import Prior

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


@pytest.mark.parametrize("name", list(INVERSIONS))
def test_a_net_that_stores_training_images_is_called_a_leak(name: str) -> None:
    attack = INVERSIONS[name](prior="none", steps=600, learning_rate=0.3)
    rebuilt = attack.rebuild(net_of(FIRST), range(CLASSES), pool=OTHERS, seed=0)
    judged = judge(rebuilt, by=net_of(CENTRES), learned=LEARNED, others=OTHERS)
    assert judged.leak and judged.verdict == "images of the training set"
    assert judged.nearest == tuple(range(0, CLASSES * EACH, EACH))


def test_a_class_mean_is_an_image_of_the_class_and_no_leak() -> None:
    means = Rebuilt(ImageSet(CENTRES.astype(np.uint8), np.arange(CLASSES)), 0)
    judged = judge(means, by=net_of(CENTRES), learned=LEARNED, others=OTHERS)
    assert judged.verdict == "an image of the class, none of the training set"


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
