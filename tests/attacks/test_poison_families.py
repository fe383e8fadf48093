"""What each poison does to its images that the others do not: by hand, on a few pixels."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from purpleteam.attacks.poison.adaptive_blend import AdaptiveBlend
from purpleteam.attacks.poison.adaptive_patch import AdaptivePatch
from purpleteam.attacks.poison.blended import Blended
from purpleteam.attacks.poison.label_flip import LabelFlip
from purpleteam.attacks.poison.sig import SIG
from purpleteam.attacks.poison.tact import TaCT
from purpleteam.attacks.poison.triggers import Blend
from purpleteam.attacks.poison.wanet import WaNet
from purpleteam.core.errors import UsageError
from purpleteam.data.images import ImageSet

CLEAN = ImageSet(
    np.random.default_rng(0).integers(0, 256, (200, 8, 8, 1)).astype(np.uint8),
    np.arange(200, dtype=np.int64) % 5,
)


def test_a_blended_poison_is_what_the_trigger_makes_of_it() -> None:
    attack = Blended(count=9, target_label=2)
    found = attack.apply(CLEAN, seed=0)
    assert np.array_equal(
        found.images.images[found.indices], attack.triggered(CLEAN.images[found.indices])
    )


def test_sig_as_published_takes_the_target_and_relabelled_the_others() -> None:
    own = SIG(count=9, target_label=2).apply(CLEAN, seed=0)
    others = SIG(count=9, target_label=2, sources="other", relabel=True).apply(CLEAN, seed=0)
    assert set(CLEAN.labels[own.indices]) == {2} == set(others.images.labels[others.indices])
    assert 2 not in CLEAN.labels[others.indices]


def test_wanet_bends_poisons_alike_and_cover_each_in_its_own_way() -> None:
    even = ImageSet(np.repeat(CLEAN.images[:1], 200, axis=0), CLEAN.labels)
    found = WaNet(count=6, target_label=2).apply(even, seed=0)
    assert len(found.cover) == 12
    poisons = {image.tobytes() for image in found.images.images[found.indices]}
    cover = {image.tobytes() for image in found.images.images[found.cover]}
    assert len(poisons) == 1 and len(cover) == 12 and not poisons & cover


def test_tact_poisons_its_sources_alone_and_covers_neither_them_nor_the_target() -> None:
    found = TaCT(count=10, sources=(1, 4), target_label=2).apply(CLEAN, seed=0)
    assert set(CLEAN.labels[found.indices]) == {1, 4}
    assert set(CLEAN.labels[found.cover]) == {0, 3} and len(found.cover) == 10


def test_tact_without_cover_is_only_source_specific() -> None:
    found = TaCT(count=10, target_label=2, cover_ratio=0).apply(CLEAN, seed=0)
    assert len(found.cover) == 0 and set(CLEAN.labels[found.indices]) == {1}


def test_tact_counts_success_on_its_sources_alone_and_picks_one_that_is_not_the_target() -> None:
    assert set(CLEAN.labels[TaCT(sources=(3,), target_label=2).meant(CLEAN.labels)]) == {3}
    assert TaCT(target_label=1).source_labels == (0,) and TaCT().source_labels == (1,)
    with pytest.raises(ValueError, match="holds the target_label 3"):
        TaCT(sources=(3,), target_label=3)
    with pytest.raises(ValueError, match="sources is a list of labels, not 'other'"):
        TaCT(sources="other")


def test_adaptive_blend_shows_half_of_the_pieces_weaker_and_all_of_them_at_test() -> None:
    attack = AdaptiveBlend(count=5, target_label=2, trigger=Blend(ratio=0.9), training_ratio=0.7)
    found = attack.apply(CLEAN, seed=0)
    weaker = Blend(ratio=0.7).stamp(CLEAN.images)
    for place in (*found.indices, *found.cover):
        clean, made = CLEAN.images[place], found.images.images[place]
        pieces = (made != clean).reshape(4, 2, 4, 2).any((1, 3))
        assert pieces.sum() == 8  # half of 4 x 4
        shown = np.repeat(np.repeat(pieces, 2, 0), 2, 1)[:, :, None]
        assert np.array_equal(made, np.where(shown, weaker[place], clean))
    assert np.array_equal(attack.triggered(CLEAN.images), Blend(ratio=0.9).stamp(CLEAN.images))


def test_adaptive_patch_shows_one_faint_patch_and_all_in_full_at_test() -> None:
    attack = AdaptivePatch(count=20, target_label=2)
    found = attack.apply(CLEAN, seed=0)
    moved = (found.images.images != CLEAN.images)[found.indices][..., 0]
    corners = moved.reshape(20, 2, 4, 2, 4).any((2, 4)).reshape(20, 4)
    assert (corners.sum(1) == 1).all() and corners.any(0).all()  # one each, and all four in use
    at_test = attack.triggered(np.full((1, 8, 8, 1), 99, np.uint8)) != 99
    assert at_test.reshape(2, 4, 2, 4).any((1, 3)).all()


def test_adaptive_cover_carries_the_trigger_and_keeps_every_label() -> None:
    for attack in (AdaptiveBlend(count=6, target_label=2), AdaptivePatch(count=6, target_label=2)):
        found = attack.apply(CLEAN, seed=0)
        assert len(found.cover) == 6 * attack.cover_ratio
        assert np.array_equal(found.images.labels[found.cover], CLEAN.labels[found.cover])
        assert (found.images.images[found.cover] != CLEAN.images[found.cover]).any((1, 2, 3)).all()


def test_a_pair_flip_gives_the_next_label_and_the_last_the_first() -> None:
    labels = np.array([0, 2, 5, 5], np.int64)  # the labels there are need not be in a row
    few = ImageSet(CLEAN.images[:4], labels)
    found = LabelFlip(flip="pair", count=4, target_label=0).apply(few, seed=0)
    assert found.images.labels.tolist() == [2, 5, 0, 0]
    assert np.array_equal(found.images.images, few.images)


def test_a_random_flip_gives_every_other_label_about_as_often() -> None:
    labels = np.concatenate([np.arange(5), np.zeros(2995, np.int64)])
    many = ImageSet(np.zeros((3000, 1, 1, 1), np.uint8), labels)
    flipped = LabelFlip(count=2990, sources=(0,), target_label=0).apply(many, seed=0)
    times = Counter(flipped.images.labels[flipped.indices].tolist())
    assert set(times) == {1, 2, 3, 4} and all(650 < count < 850 for count in times.values())


def test_a_flip_to_the_target_takes_images_of_the_sources_that_are_not_its_own() -> None:
    found = LabelFlip(flip="target", count=160, target_label=2).apply(CLEAN, seed=0)
    assert set(found.images.labels[found.indices]) == {2} and 2 not in CLEAN.labels[found.indices]
    with pytest.raises(UsageError, match="count 161 is more than the 160 images"):
        LabelFlip(flip="target", count=161, target_label=2).apply(CLEAN, seed=0)


def test_labels_that_are_all_the_same_cannot_be_flipped() -> None:
    alone = ImageSet(CLEAN.images[:4], np.zeros(4, np.int64))
    with pytest.raises(UsageError, match=r"labels cannot be flipped where \[0\] is all there is"):
        LabelFlip(count=1, target_label=0).apply(alone, seed=0)
    for fields in ({"relabel": False}, {"cover": 3}):
        with pytest.raises(ValueError, match="for a label flip"):
            LabelFlip(**fields)
