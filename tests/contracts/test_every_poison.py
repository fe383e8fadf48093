"""What every poison attack promises: so many images, only the trigger's pixels, all on record."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from purpleteam.attacks.poison import POISONS, PoisonedSet
from purpleteam.core.config import build
from purpleteam.core.errors import ConfigError, UsageError
from purpleteam.data.images import ImageSet

CLEAN = ImageSet(
    np.random.default_rng(0).integers(1, 250, (90, 8, 8, 1)).astype(np.uint8),
    np.arange(90, dtype=np.int64) % 9,
)
pytestmark = pytest.mark.parametrize("name", list(POISONS))


def poisoned(name: str, *, seed: int = 0, count: int = 6) -> PoisonedSet:
    return POISONS[name](count=count).apply(CLEAN, seed=seed)


def test_exactly_so_many_images_are_changed_and_they_are_named(name: str) -> None:
    found = poisoned(name)
    changed = np.flatnonzero((found.images.images != CLEAN.images).any((1, 2, 3)))
    assert np.array_equal(changed, found.indices) and len(changed) == 6
    assert found.rate == pytest.approx(6 / 90)


def test_only_the_pixels_of_the_trigger_change(name: str) -> None:
    found, trigger = poisoned(name), POISONS[name]().trigger
    moved = (found.images.images != CLEAN.images).any(0)
    assert moved.sum() <= trigger.size**2
    there = trigger.stamp(np.full((1, 8, 8, 1), 251, np.uint8))[0] != 251
    assert not (moved & ~there).any()


def test_labels_become_the_target_or_are_kept_as_it_says(name: str) -> None:
    found, attack = poisoned(name), POISONS[name]()
    expected = CLEAN.labels.copy()
    if attack.relabel:
        expected[found.indices] = attack.target_label
    assert np.array_equal(found.images.labels, expected)
    of_target = CLEAN.labels[found.indices] == attack.target_label
    assert of_target.all() if attack.sources == "target" else not of_target.any()


def test_it_is_a_pure_function_of_the_seed(name: str) -> None:
    first, again, other = (poisoned(name, seed=seed) for seed in (0, 0, 1))
    assert first.images.digest == again.images.digest and first.manifest == again.manifest
    same = np.array_equal(first.indices, other.indices)
    assert same == (POISONS[name]().selection == "first")


def test_the_manifest_is_json_and_says_all_that_is_needed_to_make_it_again(name: str) -> None:
    found = poisoned(name)
    manifest = json.loads(json.dumps(found.manifest))
    assert manifest["poison"] == name and manifest["seed"] == 0
    assert manifest["parent_digest"] == CLEAN.digest
    assert manifest["digest"] == found.images.digest != CLEAN.digest
    assert manifest["indices"] == found.indices.tolist() and manifest["poisoned"] == 6
    assert manifest["original_labels"] == CLEAN.labels[found.indices].tolist()
    assert manifest["trigger"]["as_stamped"] == list(POISONS[name]().trigger.on(1))


def test_the_clean_set_is_left_alone(name: str) -> None:
    before = (CLEAN.images.copy(), CLEAN.labels.copy())
    poisoned(name)
    assert np.array_equal(CLEAN.images, before[0]) and np.array_equal(CLEAN.labels, before[1])


def test_more_than_there_are_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"count 91 is more than the \d+ images to choose from"):
        poisoned(name, count=91)


def test_a_target_that_is_no_label_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"target_label 9 is no label; known: \[0, 1, "):
        POISONS[name](count=1, target_label=9).apply(CLEAN, seed=0)


def test_a_trigger_that_does_not_fit_is_refused_in_one_line(name: str) -> None:
    trigger = dataclasses.replace(POISONS[name]().trigger, size=9)
    with pytest.raises(UsageError, match="a patch of 9 pixels does not fit 8x8 images"):
        POISONS[name](count=1, trigger=trigger).apply(CLEAN, seed=0)


def test_it_is_built_from_plain_values_and_refuses_others(name: str) -> None:
    attack = build(POISONS[name], {"count": 3, "trigger": {"size": 2, "colour": [9]}}, name)
    assert (attack.name, attack.trigger.size, attack.trigger.colour) == (name, 2, (9,))
    for values in ({"cuont": 3}, {"count": 0}, {"target_label": -1}, {"trigger": {"size": 0}}):
        with pytest.raises(ConfigError):
            build(POISONS[name], values, name)
