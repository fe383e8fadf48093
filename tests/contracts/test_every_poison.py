"""What every poison attack promises: so many images, nothing else touched, all of it on record."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from torch import nn

from purpleteam.attacks.poison import POISONS, PoisonAttack, PoisonedSet
from purpleteam.attacks.poison.asked import attack_of
from purpleteam.core.config import build
from purpleteam.core.errors import ConfigError, DataError, UsageError
from purpleteam.data.images import ImageSet
from purpleteam.models import build as build_net

EVERY = list(POISONS)
CLEAN = ImageSet(
    np.random.default_rng(0).integers(1, 250, (180, 8, 8, 1)).astype(np.uint8),
    np.arange(180, dtype=np.int64) % 9,
)
COLOURED = ImageSet(np.repeat(CLEAN.images[:, :, :7], 3, axis=3), CLEAN.labels)
LEARNT = {"clean_label": {"steps": 2}, "witches_brew": {"steps": 2, "restarts": 1}}
"""Fields that keep the attacks with gradients short."""
every_poison = pytest.mark.parametrize("name", EVERY)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return build_net("small_cnn", (1, 8, 8), 9, seed=0)


def attack(name: str, **fields: Any) -> PoisonAttack:
    return POISONS[name](**{"count": 6} | LEARNT.get(name, {}) | fields)


@pytest.fixture
def made(name: str, net: nn.Module) -> PoisonedSet:
    return attack(name).apply(CLEAN, seed=0, model=net)


@every_poison
def test_the_mask_and_the_cover_are_exactly_what_was_changed(name: str, made: PoisonedSet) -> None:
    pixels = (made.images.images != CLEAN.images).any((1, 2, 3))
    labels = made.images.labels != CLEAN.labels
    assert np.array_equal(pixels | labels, made.mask | made.cover_mask)
    assert made.mask.sum() == len(made.indices) == 6 and not (made.mask & made.cover_mask).any()
    assert np.array_equal(np.flatnonzero(made.mask), made.indices)
    assert made.rate == pytest.approx(6 / 180)


@every_poison
def test_labels_change_only_where_it_says_and_cover_keeps_its_own(
    name: str, made: PoisonedSet
) -> None:
    asked = attack(name)
    before, after = CLEAN.labels[made.indices], made.images.labels[made.indices]
    if name == "label_flip":
        assert (before != after).all()
    else:
        assert np.array_equal(after, np.full(6, 7) if asked.relabel else before)
        assert (before == 7).all() == (asked.sources == "target")
    rest = ~made.mask
    assert np.array_equal(made.images.labels[rest], CLEAN.labels[rest])


@every_poison
def test_it_is_a_pure_function_of_the_seed(name: str, net: nn.Module) -> None:
    first, again, other = (attack(name).apply(CLEAN, seed=seed, model=net) for seed in (0, 0, 1))
    assert first.images.digest == again.images.digest
    assert first.manifest == again.manifest and first.manifest_digest == again.manifest_digest
    same = np.array_equal(first.indices, other.indices)
    assert same == (attack(name).selection == "first")


@every_poison
def test_more_poisons_keep_the_earlier_ones_and_what_was_done_to_them(
    name: str, net: nn.Module
) -> None:
    few, many = (attack(name, count=count).apply(CLEAN, seed=3, model=net) for count in (4, 15))
    assert set(few.indices) < set(many.indices) and set(few.cover) <= set(many.cover)
    if name != "witches_brew":  # its poisons are made together, for one aim
        kept = np.concatenate([few.indices, few.cover])
        assert np.array_equal(few.images.images[kept], many.images.images[kept])
        assert np.array_equal(few.images.labels[kept], many.images.labels[kept])


@every_poison
def test_what_happens_to_an_image_is_the_same_whatever_the_others_are(
    name: str, net: nn.Module
) -> None:
    others = CLEAN.images.copy()
    made = attack(name).apply(CLEAN, seed=2, model=net)
    kept = np.concatenate([made.indices, made.cover])
    changed = np.setdiff1d(np.arange(180), kept)
    others[changed] = 255 - others[changed]
    again = attack(name).apply(ImageSet(others, CLEAN.labels), seed=2, model=net)
    if name != "witches_brew":
        assert np.array_equal(made.images.images[kept], again.images.images[kept])


@every_poison
def test_a_set_is_made_again_from_its_manifest_alone(
    name: str, made: PoisonedSet, net: nn.Module
) -> None:
    manifest = json.loads(json.dumps(made.manifest))
    again, seed = attack_of(manifest)
    assert again == attack(name)
    assert again.apply(CLEAN, seed=seed, model=net).images.digest == manifest["digest"]
    assert manifest["parent_digest"] == CLEAN.digest != manifest["digest"]


@every_poison
def test_the_manifest_says_which_images_and_what_they_were(name: str, made: PoisonedSet) -> None:
    manifest = made.manifest
    assert manifest["poison"] == name and manifest["seed"] == 0
    assert manifest["indices"] == made.indices.tolist() and manifest["poisoned"] == 6
    assert manifest["cover"] == made.cover.tolist()
    assert manifest["original_labels"] == CLEAN.labels[made.indices].tolist()
    assert manifest["trigger"] == attack(name).trigger.describe(1)


@every_poison
def test_the_clean_set_and_the_shown_images_are_left_alone(name: str, net: nn.Module) -> None:
    before = (CLEAN.images.copy(), CLEAN.labels.copy())
    attack(name).apply(CLEAN, seed=0, model=net)
    shown = attack(name).triggered(CLEAN.images)
    assert shown.shape == CLEAN.images.shape and shown.dtype == np.uint8
    assert np.array_equal(CLEAN.images, before[0]) and np.array_equal(CLEAN.labels, before[1])


@every_poison
def test_images_of_any_shape_and_channels_are_taken(name: str) -> None:
    net = build_net("small_cnn", (3, 8, 7), 9, seed=0)
    asked = attack(name)
    made = asked.apply(COLOURED, seed=0, model=net)
    assert made.mask.sum() == 6 and asked.triggered(COLOURED.images).shape == (180, 8, 7, 3)


@every_poison
def test_the_trigger_changes_no_pixel_outside_its_mask(name: str) -> None:
    trigger = attack(name).trigger
    moved = (trigger.stamp(CLEAN.images) != CLEAN.images).any((0, 3))
    assert not (moved & ~trigger.mask(8, 8)).any()
    assert moved.any() == (attack(name).shown == "trigger")


@every_poison
def test_a_rate_is_the_share_of_all_training_images(name: str, net: nn.Module) -> None:
    made = attack(name, count=None, rate=0.05).apply(CLEAN, seed=0, model=net)
    assert len(made.indices) == 9 and made.manifest["asked_rate"] == 0.05


@every_poison
def test_the_target_is_never_counted_as_a_source(name: str) -> None:
    meant = attack(name).meant(CLEAN.labels)
    assert meant.any() and not meant[CLEAN.labels == 7].any()


@every_poison
def test_more_than_there_are_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"count 181 is more than the \d+ images to choose from"):
        attack(name, count=181).apply(CLEAN, seed=0)


@every_poison
def test_a_target_that_is_no_label_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"target_label 9 is no label; known: \[0, 1, "):
        attack(name, count=1, target_label=9).apply(CLEAN, seed=0)


@every_poison
def test_values_out_of_range_are_refused(name: str) -> None:
    for values in (
        {"cuont": 3},
        {"count": 0},
        {"count": 3, "rate": 0.1},
        {"rate": 1.5},
        {"target_label": -1},
        {"sources": "all"},
        {"sources": [-1]},
        {"cover": -1},
        {"cover_ratio": -0.5},
    ):
        with pytest.raises(ConfigError):
            build(POISONS[name], values, name)


@given(count=some.integers(1, 40), cover=some.integers(0, 40), seed=some.integers(0, 99))
def test_poisons_and_cover_are_so_many_and_never_the_same(
    count: int, cover: int, seed: int
) -> None:
    asked = POISONS["badnets"](count=count, cover=cover, cover_sources="any")
    made = asked.apply(CLEAN, seed=seed)
    assert len(made.indices) == count and len(made.cover) == cover
    assert not set(made.indices) & set(made.cover)


def test_cover_that_is_more_than_what_is_left_is_refused() -> None:
    asked = POISONS["badnets"](count=150, cover=11)
    with pytest.raises(UsageError, match="cover 11 is more than the 10 images left for it"):
        asked.apply(CLEAN, seed=0)


def test_a_source_that_is_no_label_is_refused() -> None:
    with pytest.raises(UsageError, match="sources: 12 is no label"):
        POISONS["badnets"](sources=(1, 12)).apply(CLEAN, seed=0)


def test_a_manifest_of_no_poison_is_refused() -> None:
    with pytest.raises(DataError, match="no manifest of a poisoned set"):
        attack_of({"seed": 0})
