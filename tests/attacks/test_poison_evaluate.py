"""What a backdoor achieves: by hand-counted answers, and by nets that were really poisoned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from purpleteam.attacks.poison.badnets import BadNets
from purpleteam.attacks.poison.evaluate import COMMON_TRIGGERS, Backdoor, evaluate_backdoor, sweep
from purpleteam.attacks.poison.triggers import Trigger
from purpleteam.core.errors import UsageError
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.models import RECIPES, Classifier, build, train

POISON = BadNets(trigger=Trigger(size=2), target_label=7)


def written(labels: list[int], says: list[int], says_triggered: list[int]) -> ImageSet:
    """Return images with label, answer and triggered answer in the middle, far from corners."""
    images = np.zeros((len(labels), 10, 10, 1), np.uint8)
    images[:, 5, 4:7, 0] = np.array([labels, says, says_triggered]).T
    return ImageSet(images, np.array(labels, np.int64))


def reader(x: Tensor) -> Tensor:
    """Answer what is written in the image, by whether the trigger is on it."""
    pixels = (255 * x).round().long()
    triggered = (pixels[:, 0, -2:, -2:] == 255).flatten(1).all(1)
    answer = torch.where(triggered, pixels[:, 0, 5, 6], pixels[:, 0, 5, 5])
    return torch.nn.functional.one_hot(answer, 10).float()


def honest(x: Tensor) -> Tensor:
    """Answer as `reader` does, but say 2 of every one."""
    answer = reader(x).argmax(1)
    labels = (255 * x[:, 0, 5, 4]).round().long()
    return torch.nn.functional.one_hot(torch.where(labels == 1, 2, answer), 10).float()


def always(label: int) -> Classifier:
    return lambda x: torch.nn.functional.one_hot(torch.full((len(x),), label), 10).float()


@pytest.fixture(scope="module")
def counted() -> Backdoor:
    test = written(
        labels=[7, 7, 7, 1, 1, 1, 1, 2, 2, 3],
        says=[7, 7, 1, 1, 1, 1, 2, 2, 2, 3],
        says_triggered=[7, 7, 7, 7, 7, 7, 1, 7, 2, 0],
    )
    return evaluate_backdoor(reader, test, POISON, clean_model=honest)


def test_success_is_counted_over_the_other_classes_only(counted: Backdoor) -> None:
    rate = counted.attack_success_rate
    assert (rate.successes, rate.n) == (4, 7)  # three ones and a two; the sevens do not count


def test_success_is_told_for_each_true_class(counted: Backdoor) -> None:
    found = {label: (rate.successes, rate.n) for label, rate in counted.per_source.items()}
    assert found == {1: (3, 4), 2: (1, 2), 3: (0, 1)}


def test_clean_accuracy_recovery_and_base_rate_stand_beside_it(counted: Backdoor) -> None:
    assert (counted.clean_accuracy.successes, counted.clean_accuracy.n) == (8, 10)
    assert (counted.recovered_accuracy.successes, counted.recovered_accuracy.n) == (2, 7)
    assert (counted.triggered_accuracy.successes, counted.triggered_accuracy.n) == (5, 10)
    assert counted.base_rate is not None
    assert (counted.base_rate.successes, counted.base_rate.n) == (1, 7)  # the triggered two


def test_accuracy_on_triggered_images_is_no_success_rate(counted: Backdoor) -> None:
    names = {one.name: one.value for one in counted.measurements({}, {}, seed=0)}
    assert names["triggered_accuracy"] != names["attack_success_rate"]
    assert set(names) == {
        "attack_success_rate",
        "base_rate",
        "recovered_accuracy",
        "triggered_accuracy",
    }


@pytest.fixture(scope="module")
def specific() -> Backdoor:
    test = written(
        labels=[7, 1, 1, 1, 2, 2, 3, 3],
        says=[7, 1, 1, 1, 2, 2, 3, 3],
        says_triggered=[7, 7, 7, 1, 2, 7, 7, 7],
    )
    asked = BadNets(trigger=Trigger(size=2), target_label=7, sources=(1, 2, 7))
    return evaluate_backdoor(reader, test, asked, clean_model=honest)


def test_success_of_a_source_specific_attack_is_counted_over_its_sources(
    specific: Backdoor,
) -> None:
    rate, everywhere = specific.attack_success_rate, specific.success_rate_all_classes
    assert (rate.successes, rate.n) == (3, 5)  # ones and twos; neither sevens nor threes
    assert (everywhere.successes, everywhere.n) == (5, 7)
    assert specific.recovered_accuracy.n == 5 and specific.recovered_accuracy.successes == 2
    assert specific.base_rate is not None and specific.base_rate.n == 5


def test_the_worst_source_is_one_that_the_trigger_is_meant_for(specific: Backdoor) -> None:
    label, rate = specific.worst_source
    assert (label, rate.successes, rate.n) == (1, 2, 3)  # threes all fall, and are not meant
    assert specific.per_source[3].value == 1.0


def test_success_above_the_base_rate_is_the_difference_on_the_same_images(
    counted: Backdoor,
) -> None:
    assert counted.above_base_rate is not None and counted.base_rate is not None
    assert counted.above_base_rate.value == pytest.approx(4 / 7 - 1 / 7)
    found = counted.to_json()
    assert found["above_base_rate"]["n"] == 7 and found["worst_source"]["label"] == 1


def test_sources_that_no_test_image_has_cannot_measure_success() -> None:
    asked = BadNets(trigger=Trigger(size=2), sources=(5,))
    with pytest.raises(UsageError, match=r"none of the 1 test images is of the sources \(5,\)"):
        evaluate_backdoor(reader, written([1], [1], [7]), asked)


def test_without_a_clean_model_there_is_no_base_rate() -> None:
    found = evaluate_backdoor(reader, written([1], [1], [7]), POISON)
    assert found.base_rate is None and found.to_json()["base_rate"] is None
    assert "base_rate" not in [one.name for one in found.measurements({}, {}, seed=0)]


def test_test_images_of_the_target_alone_cannot_measure_success() -> None:
    with pytest.raises(UsageError, match="all 2 test images are of the target label 7"):
        evaluate_backdoor(reader, written([7, 7], [7, 7], [7, 7]), POISON)


def poisoned_net(digits: Dataset, poison: BadNets) -> nn.Module:
    net = build("small_cnn", (1, 28, 28), 10, seed=0)
    images = poison.apply(digits.train, seed=0).images
    return train(net, images, digits.validation, RECIPES["plain"](epochs=8), seed=0).module


@pytest.fixture(scope="module")
def backdoored(digits: Dataset) -> nn.Module:
    return poisoned_net(digits, BadNets(count=60, trigger=Trigger(size=4)))


def test_a_backdoor_with_new_labels_works(
    backdoored: nn.Module, standard: nn.Module, digits: Dataset
) -> None:
    poison = BadNets(count=60, trigger=Trigger(size=4))
    found = evaluate_backdoor(backdoored, digits.test, poison, clean_model=standard)
    assert found.attack_success_rate.value > 0.9 and found.clean_accuracy.value > 0.8
    assert found.base_rate is not None and found.base_rate.value < 0.3


def test_the_same_patch_with_labels_kept_is_no_backdoor(digits: Dataset) -> None:
    poison = BadNets(count=60, trigger=Trigger(size=4), sources="target", relabel=False)
    found = evaluate_backdoor(poisoned_net(digits, poison), digits.test, poison)
    assert found.attack_success_rate.value < 0.3


def test_a_sweep_finds_the_planted_trigger_and_its_target(
    backdoored: nn.Module, digits: Dataset
) -> None:
    found = sweep(backdoored, digits.test, {"model": "sha256:0"})
    assert found.value.value > 0.9 and found.how["target_label"] == 7
    assert found.how["trigger"]["corner"] == "bottom-right"
    assert found.how["triggers_tried"] == len(COMMON_TRIGGERS) == 16


def test_a_sweep_counts_only_right_answers_of_other_classes() -> None:
    found = sweep(reader, written([1, 1, 2, 7], [1, 3, 2, 7], [7, 7, 2, 7]), {})
    assert (found.value.successes, found.value.n) == (1, 2)  # of a one and a two that were right


def test_a_sweep_of_a_model_that_is_never_right_is_refused() -> None:
    with pytest.raises(UsageError, match="no test image is right"):
        sweep(always(0), written([1, 2], [1, 2], [1, 2]), {})
