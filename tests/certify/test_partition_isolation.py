"""No part can reach another: what is planted in one changes that one's network and no other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from purpleteam.certify.dpa import Ensemble, Layout, certified_radii, deal
from purpleteam.certify.learners import LEARNERS, Learner
from purpleteam.data.images import Dataset, ImageSet

LAYOUT = Layout(parts=32, capacity=40)


NOTHING = np.array([], np.int64)


@pytest.fixture(scope="module", params=list(LEARNERS))
def learner(request: pytest.FixtureRequest) -> Learner:
    learner: Learner = LEARNERS[request.param]()
    return learner


@pytest.fixture(scope="module")
def train(digits: Dataset) -> ImageSet:
    return digits.train.first(650)


def trained(
    train: ImageSet, learner: Learner, parts: list[NDArray[np.int64]] | None = None
) -> Ensemble:
    parts = deal(train, LAYOUT) if parts is None else parts
    return Ensemble.trained(learner, train, parts, capacity=LAYOUT.capacity, classes=10)


@pytest.fixture(scope="module")
def ensemble(train: ImageSet, learner: Learner) -> Ensemble:
    return trained(train, learner)


def with_poison(train: ImageSet, count: int, seed: int = 0, place: int = 0) -> ImageSet:
    """Return the set with so many stamped sevens put in at a place."""
    rng = np.random.default_rng(seed)
    poison = train.images[rng.integers(0, len(train), count)].copy()
    poison[:, -3:, -3:] = rng.integers(100, 256, (count, 3, 3, 1), np.uint8)
    return ImageSet(
        np.insert(train.images, [place] * count, poison, axis=0),
        np.insert(train.labels, [place] * count, 7),
    )


def changed(before: Ensemble, after: Ensemble) -> list[int]:
    """Return the parts whose networks differ in any bit."""
    pairs = ((before.network(part), after.network(part)) for part in range(LAYOUT.parts))
    return [part for part, (one, other) in enumerate(pairs) if not same(one, other)]


def same(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(layer, twin) for layer, twin in zip(one, other, strict=True))


@pytest.mark.parametrize("place", [0, 350, 650])
def test_one_poison_changes_one_part_and_no_other_bit_for_bit(
    train: ImageSet, ensemble: Ensemble, learner: Learner, place: int
) -> None:
    poisoned = with_poison(train, 1, seed=place, place=place)
    (part,) = [n for n, part in enumerate(deal(poisoned, LAYOUT)) if place in part]
    assert changed(ensemble, trained(poisoned, learner)) == [part]


def test_one_removed_image_changes_one_part(
    train: ImageSet, ensemble: Ensemble, learner: Learner
) -> None:
    left = train.take(np.delete(np.arange(len(train)), 500))
    assert len(changed(ensemble, trained(left, learner))) == 1


def test_the_order_of_the_training_set_changes_no_bit(
    train: ImageSet, ensemble: Ensemble, learner: Learner
) -> None:
    shuffled = train.take(np.random.default_rng(0).permutation(len(train)))
    assert changed(ensemble, trained(shuffled, learner)) == []


def test_a_part_trained_alone_is_the_same_as_among_all(
    train: ImageSet, ensemble: Ensemble, learner: Learner
) -> None:
    parts = [NOTHING] * LAYOUT.parts
    parts[5] = deal(train, LAYOUT)[5]
    assert same(trained(train, learner, parts).network(5), ensemble.network(5))


@pytest.mark.parametrize("poisons", [3, 8])
def test_no_certified_answer_changes_when_so_many_poisons_are_really_planted(
    digits: Dataset, train: ImageSet, ensemble: Ensemble, learner: Learner, poisons: int
) -> None:
    images = digits.validation.images
    votes = ensemble.votes(images)
    attacked = trained(with_poison(train, poisons), learner).votes(images)
    certified = certified_radii(votes) >= poisons
    assert certified.mean() > 0.5
    assert np.array_equal(votes.argmax(1)[certified], attacked.argmax(1)[certified])
    assert np.abs(attacked - votes).max() <= poisons


def test_an_image_gets_the_same_votes_alone_and_among_others(
    digits: Dataset, train: ImageSet, ensemble: Ensemble
) -> None:
    images = digits.validation.images
    votes = ensemble.votes(images)
    assert np.array_equal(ensemble.votes(images[:1]), votes[:1])
    assert np.array_equal(ensemble.votes(images[:77]), votes[:77])
    assert (votes.sum(axis=1) == LAYOUT.parts).all()


def test_an_empty_part_does_not_vote(digits: Dataset, train: ImageSet, learner: Learner) -> None:
    ensemble = trained(train, learner, [NOTHING, np.arange(20), NOTHING])
    assert (ensemble.votes(digits.validation.images[:3]).sum(axis=1) == 1).all()


def test_a_label_that_a_part_has_never_seen_is_never_answered(
    digits: Dataset, train: ImageSet, learner: Learner
) -> None:
    few = np.flatnonzero(train.labels < 3)[:30]
    ensemble = trained(train, learner, [few])
    assert ensemble.network(0)[-1].isneginf().tolist() == 3 * [False] + 7 * [True]
    votes = ensemble.votes(digits.validation.images)
    assert votes[:, 3:].sum() == 0
