"""No part can reach another: what is planted in one changes that one's network and no other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from purpleteam.certify.partition import Layout, Readout
from purpleteam.certify.partition.ensemble import PartitionEnsemble, train_parts
from purpleteam.certify.partition.layout import deal
from purpleteam.certify.partition.votes import certified_radii, winners
from purpleteam.data.images import Dataset, ImageSet

LAYOUT = Layout(parts=64, capacity=40)


def trained(train: ImageSet) -> PartitionEnsemble:
    return train_parts(train, deal(train, LAYOUT), Readout(), classes=10)


@pytest.fixture(scope="module")
def ensemble(digits: Dataset) -> PartitionEnsemble:
    return trained(digits.train)


def with_poison(train: ImageSet, count: int, seed: int = 0, place: int = 0) -> ImageSet:
    """Return the set with so many stamped sevens put in at a place."""
    rng = np.random.default_rng(seed)
    poison = train.images[rng.integers(0, len(train), count)].copy()
    poison[:, -3:, -3:] = rng.integers(100, 256, (count, 3, 3, 1), np.uint8)
    return ImageSet(
        np.insert(train.images, [place] * count, poison, axis=0),
        np.insert(train.labels, [place] * count, 7),
    )


def changed(before: PartitionEnsemble, after: PartitionEnsemble) -> list[int]:
    """Return the parts whose networks differ in any bit."""
    pairs = ((before.model(part), after.model(part)) for part in range(len(before)))
    return [
        part
        for part, (one, other) in enumerate(pairs)
        if not (torch.equal(one.weights, other.weights) and torch.equal(one.bias, other.bias))
    ]


@pytest.mark.parametrize("place", [0, 700, 1297])
def test_one_poison_changes_one_part_and_no_other_bit_for_bit(
    digits: Dataset, ensemble: PartitionEnsemble, place: int
) -> None:
    poisoned = with_poison(digits.train, 1, seed=place, place=place)
    (part,) = [n for n, part in enumerate(deal(poisoned, LAYOUT)) if place in part]
    assert changed(ensemble, trained(poisoned)) == [part]


def test_one_removed_image_changes_one_part(digits: Dataset, ensemble: PartitionEnsemble) -> None:
    left = digits.train.take(np.delete(np.arange(len(digits.train)), 500))
    assert len(changed(ensemble, trained(left))) == 1


def test_the_order_of_the_training_set_changes_no_bit(
    digits: Dataset, ensemble: PartitionEnsemble
) -> None:
    shuffled = digits.train.take(np.random.default_rng(0).permutation(len(digits.train)))
    assert changed(ensemble, trained(shuffled)) == []


def test_a_part_trained_alone_is_the_same_as_among_all(
    digits: Dataset, ensemble: PartitionEnsemble
) -> None:
    part = deal(digits.train, LAYOUT)[5]
    alone = train_parts(digits.train.take(part), [np.arange(len(part))], Readout(), classes=10)
    assert torch.equal(alone.model(0).weights, ensemble.model(5).weights)
    assert torch.equal(alone.model(0).bias, ensemble.model(5).bias)


@pytest.mark.parametrize("poisons", [4, 12])
def test_no_certified_answer_changes_when_so_many_poisons_are_really_planted(
    digits: Dataset, ensemble: PartitionEnsemble, poisons: int
) -> None:
    images = digits.validation.images
    votes = ensemble.votes(images)
    attacked = trained(with_poison(digits.train, poisons)).votes(images)
    certified = certified_radii(votes) >= poisons
    assert certified.mean() > 0.5
    assert np.array_equal(winners(votes)[certified], winners(attacked)[certified])
    assert np.abs(attacked - votes).max() <= poisons


def test_an_image_gets_the_same_votes_alone_and_among_others(
    digits: Dataset, ensemble: PartitionEnsemble
) -> None:
    images = digits.validation.images
    votes = ensemble.votes(images)
    assert np.array_equal(ensemble.votes(images[:1]), votes[:1])
    assert np.array_equal(ensemble.votes(images[:77]), votes[:77])
    assert (votes.sum(axis=1) == len(ensemble)).all()


def test_an_empty_part_does_not_vote(digits: Dataset) -> None:
    nothing = np.array([], np.int64)
    parts = [nothing, np.arange(20), nothing]
    ensemble = train_parts(digits.train, parts, Readout(), classes=10)
    assert (ensemble.votes(digits.validation.images[:3]).sum(axis=1) == 1).all()


def test_a_label_that_a_part_has_never_seen_is_never_answered(digits: Dataset) -> None:
    few = np.flatnonzero(digits.train.labels < 3)[:30]
    ensemble = train_parts(digits.train, [few], Readout(), classes=10)
    votes = ensemble.votes(digits.validation.images)
    assert votes[:, 3:].sum() == 0
