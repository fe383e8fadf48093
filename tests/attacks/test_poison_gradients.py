"""The poisons made with gradients: in their ball, and nearer to what they are after."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from purpleteam.attacks.poison import PoisonedSet
from purpleteam.attacks.poison.clean_label import CleanLabel
from purpleteam.attacks.poison.evaluate import evaluate_victim
from purpleteam.attacks.poison.witches_brew import WitchesBrew, matching
from purpleteam.core.errors import DataError, UsageError
from purpleteam.data.images import Dataset
from purpleteam.models import logits

CLEAN_LABEL = CleanLabel(count=60, epsilon=0.2, steps=5)
BREW = WitchesBrew(count=20, steps=15, restarts=1, epsilon=0.1)


@pytest.fixture(scope="module")
def hard(digits: Dataset, standard: nn.Module) -> PoisonedSet:
    return CLEAN_LABEL.apply(digits.train, seed=0, model=standard)


@pytest.fixture(scope="module")
def brewed(digits: Dataset, standard: nn.Module) -> PoisonedSet:
    return BREW.apply(digits.train, seed=0, model=standard, validation=digits.validation)


def test_clean_label_images_stay_in_the_ball_apart_from_the_patch(
    digits: Dataset, hard: PoisonedSet
) -> None:
    before = digits.train.images[hard.indices].astype(int)
    moved = np.abs(hard.images.images[hard.indices] - before)
    free = ~CLEAN_LABEL.trigger.mask(28, 28)
    assert 0 < moved[:, free].max() <= 0.2 * 255
    assert (hard.images.images[hard.indices][:, ~free] == 255).all()


def test_clean_label_images_are_hard_to_read_and_their_labels_are_right(
    digits: Dataset, hard: PoisonedSet, standard: nn.Module
) -> None:
    assert np.array_equal(hard.images.labels, digits.train.labels)
    right = [
        (logits(standard, images[hard.indices]).argmax(1) == 7).mean()
        for images in (digits.train.images, hard.images.images)
    ]
    assert right[0] > 0.9 and right[1] < right[0] - 0.3


def test_clean_label_does_to_an_image_what_it_does_to_it_among_fewer(
    digits: Dataset, hard: PoisonedSet, standard: nn.Module
) -> None:
    few = CleanLabel(count=3, epsilon=0.2, steps=5).apply(digits.train, seed=0, model=standard)
    assert np.array_equal(hard.images.images[few.indices], few.images.images[few.indices])


def test_a_surrogate_is_trained_where_none_is_given_and_named_in_the_manifest(
    digits: Dataset, hard: PoisonedSet
) -> None:
    small = digits.train.first(200)
    made = CleanLabel(count=2, steps=1, epochs=1).apply(small, seed=0)
    again = CleanLabel(count=2, steps=1, epochs=1).apply(small, seed=0)
    assert made.manifest == again.manifest
    assert made.manifest["surrogate"]["whose"] == "trained on the clean set"
    assert hard.manifest["surrogate"]["whose"] == "given"


def test_gradient_matching_raises_the_cosine_and_stays_in_the_ball(
    digits: Dataset, brewed: PoisonedSet
) -> None:
    cosine = brewed.manifest["cosine"]
    assert cosine["after"] > cosine["before"] + 0.1
    moved = brewed.images.images[brewed.indices] - digits.train.images[brewed.indices].astype(int)
    assert 0 < np.abs(moved).max() <= 0.1 * 255
    assert np.array_equal(brewed.images.labels, digits.train.labels)


def test_the_match_is_one_minus_the_cosine_of_the_two_gradients() -> None:
    net = nn.Linear(3, 2, bias=False)
    rng = torch.Generator().manual_seed(0)
    aim, x = torch.rand(1, 3, generator=rng), torch.rand(4, 3, generator=rng)
    wanted, y = torch.tensor([1]), torch.tensor([0, 1, 1, 0])

    def gradient(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        chances = (images @ net.weight.T).softmax(1) - F.one_hot(labels, 2)
        return (chances.T @ images / len(images)).flatten()  # of cross entropy, by hand

    expected = 1 - F.cosine_similarity(gradient(aim, wanted), gradient(x, y), dim=0)
    found = matching(net, aim, wanted)(x, y)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), abs=1e-6)


def test_the_model_is_left_as_it_was(digits: Dataset, standard: nn.Module) -> None:
    before = {name: value.clone() for name, value in standard.state_dict().items()}
    BREW.apply(digits.train, seed=1, model=standard, validation=digits.validation)
    assert all(one.requires_grad for one in standard.parameters())
    assert all(torch.equal(value, before[name]) for name, value in standard.state_dict().items())


def test_the_victim_is_found_again_from_the_manifest(
    digits: Dataset, brewed: PoisonedSet, standard: nn.Module
) -> None:
    victim = evaluate_victim(standard, digits.validation, brewed.manifest)
    image = digits.validation.images[victim.index : victim.index + 1]
    scores = torch.from_numpy(logits(standard, image))[0]
    assert victim.label == digits.validation.labels[victim.index] != 7
    assert victim.read_as == int(scores.argmax()) and victim.hit == (victim.read_as == 7)
    assert victim.target_confidence == pytest.approx(float(scores.softmax(0)[7]), abs=1e-5)
    assert victim.to_json()["hit"] == victim.hit


def test_other_images_and_other_poisons_have_no_such_victim(
    digits: Dataset, brewed: PoisonedSet, hard: PoisonedSet, standard: nn.Module
) -> None:
    with pytest.raises(DataError, match="is not the victim sha256:"):
        evaluate_victim(standard, digits.test, brewed.manifest)
    with pytest.raises(UsageError, match="'clean_label' aims at no single image"):
        evaluate_victim(standard, digits.test, hard.manifest)


def test_a_victim_may_be_named_and_must_be_of_another_class(
    digits: Dataset, standard: nn.Module
) -> None:
    sevens, others = (
        int(np.flatnonzero(of)[0])
        for of in (digits.validation.labels == 7, digits.validation.labels != 7)
    )
    found = WitchesBrew(count=2, steps=1, restarts=1, victim=others).apply(
        digits.train, seed=0, model=standard, validation=digits.validation
    )
    assert found.manifest["victim"]["index"] == others
    with pytest.raises(UsageError, match=f"victim {sevens} is no image of another class than 7"):
        WitchesBrew(victim=sevens).apply(
            digits.train, seed=0, model=standard, validation=digits.validation
        )


@pytest.mark.parametrize("fields", [{"epsilon": 0}, {"steps": 0}, {"victim": -1}, {"epochs": 0}])
def test_values_out_of_range_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        WitchesBrew(**fields)


@pytest.mark.parametrize("fields", [{"epsilon": -1}, {"steps": 0}, {"epochs": 0}])
def test_clean_label_takes_the_ranges_of_pgd(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        CleanLabel(**fields)
