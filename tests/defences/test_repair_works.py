"""What repairs achieve on digits that were really poisoned, and what their outcome records say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from purpleteam.attacks.poison import PoisonedSet
from purpleteam.attacks.poison.badnets import BadNets
from purpleteam.attacks.poison.evaluate import Backdoor, evaluate_backdoor
from purpleteam.attacks.poison.triggers import Trigger
from purpleteam.core.errors import UsageError
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.defences.evaluate import (
    Repaired,
    evaluate_repair,
    repoison,
    run_repair,
)
from purpleteam.defences.repair import REPAIRS, Loop, Repairing
from purpleteam.models import RECIPES, build, train

POISON = BadNets(count=60, trigger=Trigger(size=4), target_label=7)


class Corner:
    """The trigger of POISON, as a scan might recover it."""

    def apply(self, x: Tensor) -> Tensor:
        x = x.clone()
        x[:, :, -4:, -4:] = 1
        return x


def trained(digits: Dataset, images: ImageSet, seed: int = 0) -> nn.Module:
    net = build("small_cnn", (1, *images.images.shape[1:3]), 10, seed=seed)
    return train(net, images, digits.validation, RECIPES["plain"](epochs=8), seed=seed).module


@pytest.fixture(scope="module")
def poisoned(digits: Dataset) -> PoisonedSet:
    return POISON.apply(digits.train, seed=0)


@pytest.fixture(scope="module")
def work(digits: Dataset, poisoned: PoisonedSet) -> Repairing:
    return Repairing(
        model=trained(digits, poisoned.images),
        net=lambda: build("small_cnn", (1, 28, 28), 10, seed=1),
        train=poisoned.images,
        flagged=poisoned.indices,
        trusted=digits.validation.first(100),
        trigger=Corner(),
        target_label=7,
        recipe=RECIPES["plain"](epochs=8),
        validation=digits.validation,
    )


@pytest.fixture(scope="module")
def before(work: Repairing, digits: Dataset) -> Backdoor:
    return evaluate_backdoor(work.model, digits.test, POISON)


@pytest.fixture(scope="module")
def unlearned(work: Repairing) -> Repaired:
    return run_repair(
        REPAIRS["unlearn"](steps=200), dataclasses.replace(work, train=None, flagged=None)
    )


@pytest.mark.parametrize(("name", "how"), [("retrain", {}), ("unlearn_set", {"steps": 200})])
def test_the_backdoor_is_gone_and_the_accuracy_is_not(
    name: str, how: dict[str, int], work: Repairing, before: Backdoor, digits: Dataset
) -> None:
    after = evaluate_backdoor(REPAIRS[name](**how).repair(work), digits.test, POISON)
    assert before.attack_success_rate.value > 0.9 and after.attack_success_rate.value < 0.03
    assert after.clean_accuracy.value > before.clean_accuracy.value - 0.03


def test_a_hundred_trusted_images_alone_do_to_unlearn(
    unlearned: Repaired, before: Backdoor, digits: Dataset
) -> None:
    after = evaluate_backdoor(unlearned.module, digits.test, POISON)
    assert after.attack_success_rate.value < 0.03
    assert after.clean_accuracy.value > before.clean_accuracy.value - 0.03


class Elsewhere:
    """A patch that nobody planted, where a scan might have been mistaken."""

    def apply(self, x: Tensor) -> Tensor:
        x = x.clone()
        x[:, :, 6:7, :1] = 0.5
        return x


def halved(images: ImageSet) -> ImageSet:
    """Return 28x28 images at 14x14, where a search for patches costs a third."""
    quarters = images.images.reshape(-1, 14, 2, 14, 2, 1)
    return ImageSet(quarters.mean((2, 4)).round().astype(np.uint8), images.labels)


def test_what_a_wrong_trigger_leaves_is_looked_for_and_unlearned_too(digits: Dataset) -> None:
    small = dataclasses.replace(
        digits, **{part: halved(getattr(digits, part)) for part in ("train", "validation", "test")}
    )
    poison = BadNets(count=60, trigger=Trigger(size=3), target_label=7)
    work = Repairing(
        model=trained(small, poison.apply(small.train, seed=0).images),
        trusted=small.validation,
        trigger=Elsewhere(),
        target_label=7,
    )
    left = {
        rounds: evaluate_backdoor(
            REPAIRS["unlearn"](rounds=rounds, worsened=0.0, nearby=1, steps=120).repair(work),
            small.test,
            poison,
        ).attack_success_rate.value
        for rounds in (1, 3)
    }
    assert left[1] > 0.5 and left[3] < 0.05


def test_fine_tuning_alone_leaves_the_backdoor(work: Repairing, digits: Dataset) -> None:
    after = evaluate_backdoor(REPAIRS["fine_tune"]().repair(work), digits.test, POISON)
    assert after.attack_success_rate.value > 0.5


def test_the_outcome_holds_both_sides_and_what_they_add_up_to(
    unlearned: Repaired, before: Backdoor, digits: Dataset
) -> None:
    found = evaluate_repair(unlearned.module, before, digits.test, POISON)
    after = found.after
    change = after.clean_accuracy.value - before.clean_accuracy.value
    gained = before.attack_success_rate.value - after.attack_success_rate.value
    assert found.accuracy_change.value == pytest.approx(change)
    assert found.effectiveness.value == pytest.approx((gained - max(0.0, -change) + 1) / 2)
    assert 0 <= found.effectiveness.low <= found.effectiveness.value <= found.effectiveness.high


def test_the_records_are_the_outcome(
    unlearned: Repaired, before: Backdoor, digits: Dataset
) -> None:
    found = evaluate_repair(unlearned.module, before, digits.test, POISON)
    records = {one.name: one for one in found.measurements({"model": "x"}, {"a": 1}, 5, 3)}
    assert set(records) == {
        "clean_accuracy_difference",
        "attack_success_rate",
        "clean_accuracy",
        "defence_effectiveness",
        "recovered_accuracy",
        "worst_source_success_rate",
    }
    success = records["attack_success_rate"].to_json()
    assert success["value"] == found.after.attack_success_rate.to_json()
    assert success["detail"]["before"] == found.before.attack_success_rate.to_json()
    assert success["how"] == {"a": 1} and success["seed"] == 5
    assert success["detail"]["residual_poisons"] == 3


def test_more_poisons_bring_more_of_the_backdoor_back_and_sooner_where_it_was(
    work: Repairing, unlearned: Repaired, poisoned: PoisonedSet, digits: Dataset
) -> None:
    others = digits.test.labels != 7
    triggered = ImageSet(
        POISON.trigger.stamp(digits.test.images[others]), digits.test.labels[others]
    )
    fixed = {"poisons": poisoned.images.take(poisoned.indices), "triggered": triggered}
    how = Loop(steps=60, augmentation="none")

    def rates(model: nn.Module) -> list[float]:
        found = repoison(
            model, clean=digits.validation, target_label=7, counts=(0, 2, 40), how=how, **fixed
        )
        return [one.value for one in found.values()]

    clean = rates(trained(digits, digits.train))
    assert clean[0] < 0.1 and clean[0] <= clean[1] < clean[2]
    untouched = rates(work.model)
    assert untouched[0] > clean[1] and untouched[2] > 0.9


def test_re_poisoning_leaves_the_model_and_is_the_same_each_time(digits: Dataset) -> None:
    net = build("small_cnn", (1, 28, 28), 10, seed=0)
    before = [one.clone() for one in net.parameters()]
    few = digits.train.first(10)
    how = Loop(steps=2, augmentation="none")
    first, again = (
        repoison(net, few, few, few, target_label=7, counts=(1, 0), how=how) for _ in range(2)
    )
    assert first == again and list(first) == [0, 1]
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


@pytest.mark.parametrize("count", [-1, 11])
def test_a_count_beyond_the_poisons_is_refused(count: int, digits: Dataset) -> None:
    few = digits.train.first(10)
    with pytest.raises(UsageError, match="must be from 0 to the 10 poisons"):
        repoison(nn.Flatten(), few, few, few, target_label=7, counts=(count,))
