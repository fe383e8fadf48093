"""The parts of repairs by hand: pruned units, the sharpness-aware step, losses, what is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from purpleteam.core.errors import DataError, UsageError
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.defences.repair import Loop, Repairing, divergence, generator, held_out
from purpleteam.defences.repair.fine_prune import prune, units_of
from purpleteam.defences.repair.ft_sam import sharpness_aware
from purpleteam.defences.repair.i_bau import universal
from purpleteam.defences.repair.retrain import without_flagged
from purpleteam.defences.repair.unlearn_set import denial, flagged_of_one_label
from purpleteam.models import RECIPES, build, train
from purpleteam.models.devices import to_batch


def two_units() -> nn.Module:
    """Two units, of the left and the right pixel; the reader gives each a class."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        for layer in (net[1], net[3]):
            layer.weight.copy_(torch.eye(2))
            layer.bias.zero_()
    return net


def pairs(left: list[int], right: list[int], labels: list[int]) -> ImageSet:
    images = np.array([left, right], np.uint8).T.reshape(-1, 1, 2, 1)
    return ImageSet(images, np.array(labels, np.int64))


def test_activity_is_the_mean_of_what_the_last_layer_reads() -> None:
    units = units_of(two_units(), pairs([255, 51], [51, 51], [0, 0]))
    assert units.reader == "3" and units.activity.tolist() == pytest.approx([0.6, 0.2])


def test_the_least_active_unit_is_pruned_and_the_other_answers_alone() -> None:
    net = two_units()
    _, pruned = prune(net, pairs([255, 255], [51, 51], [0, 0]), loss_of_accuracy=0.0)
    assert pruned.tolist() == [1]
    assert net[3].weight.tolist() == [[1, 0], [0, 0]]
    assert net(torch.tensor([[[[0.0, 1.0]]]])).tolist() == [[0, 0]]  # what the right unit said


def test_a_unit_that_accuracy_needs_is_kept() -> None:
    net, images = two_units(), pairs([255, 255, 0], [0, 0, 255], [0, 0, 1])
    assert prune(net, images, loss_of_accuracy=0.3)[1].tolist() == []
    assert net[3].weight.tolist() == [[1, 0], [0, 1]]
    assert prune(net, images, loss_of_accuracy=0.34)[1].tolist() == [1]


@pytest.mark.parametrize(
    ("architecture", "units"), [("small_cnn", 16), ("classic_cnn", 64), ("residual_cnn", 48)]
)
def test_the_units_of_a_convolution_are_its_channels(
    architecture: str, units: int, digits: Dataset
) -> None:
    net, x = build(architecture, (1, 28, 28), 10, seed=0), torch.rand(3, 1, 28, 28)
    found = units_of(net, digits.validation.first(5))
    assert len(found.activity) == units
    found.silence(net, torch.arange(units))
    assert torch.equal(net(x)[0], net(x)[1])  # nothing of the image is left


def test_silencing_a_channel_is_the_same_as_setting_it_to_zero(digits: Dataset) -> None:
    net, x = build("small_cnn", (1, 28, 28), 10, seed=0), torch.rand(4, 1, 28, 28)
    features = net[:5](x)
    features[:, 3] = 0
    expected = net[5:](features)
    units_of(net, digits.validation.first(5)).silence(net, torch.tensor([3]))
    assert torch.allclose(net(x), expected, atol=1e-6)


def test_activity_is_the_mean_over_all_images_whatever_the_batch(digits: Dataset) -> None:
    net, images = build("small_cnn", (1, 28, 28), 10, seed=0), digits.validation.first(130)
    features = net[:5](to_batch(images.images))  # (N, 16, 7, 7)
    expected = features.abs().mean((0, 2, 3))
    assert torch.allclose(units_of(net, images).activity, expected, rtol=1e-4)


def test_a_net_that_ends_in_a_convolution_is_pruned_before_it() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1), nn.Flatten())
    found = units_of(net, pairs([9], [9], [0]))
    assert found.reader == "2" and len(found.activity) == 2


def test_a_net_without_layers_cannot_be_pruned() -> None:
    with pytest.raises(UsageError, match="no convolution and no linear layer"):
        units_of(nn.Flatten(), pairs([1], [1], [0]))


class Quadratic(nn.Module):
    def __init__(self, start: list[float]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(start, dtype=torch.float64))


@given(st.lists(st.floats(0.1, 3), min_size=3, max_size=3), st.floats(0.01, 2))
def test_the_sharpness_aware_gradient_of_a_quadratic_is_the_formula(
    start: list[float], radius: float
) -> None:
    net, curvature = Quadratic(start), torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    sharpness_aware(net, lambda: (curvature * net.w.square()).sum() / 2, radius)
    w = torch.tensor(start, dtype=torch.float64)
    g = curvature * w
    worst = w + radius * w.square() * g / (w * g).norm()
    assert net.w.grad is not None and torch.allclose(net.w.grad, curvature * worst)
    assert torch.equal(net.w.detach(), w)


def test_the_worst_addition_stays_within_its_radius_and_harms() -> None:
    net, x = build("small_cnn", (1, 28, 28), 10, seed=0), torch.rand(8, 1, 28, 28)
    y = net(x).argmax(1)
    addition = universal(net, x, y, radius=4.0, steps=5)
    assert addition.shape == (1, 1, 28, 28) and addition.norm() <= 4.0001
    cross_entropy = nn.functional.cross_entropy
    assert cross_entropy(net((x + addition).clamp(0, 1)), y) > cross_entropy(net(x), y)


@given(st.lists(st.floats(-30, 30), min_size=4, max_size=4), st.integers(0, 3))
def test_denial_is_minus_log_of_one_minus_the_probability(row: list[float], label: int) -> None:
    given_ = torch.tensor([row], dtype=torch.float64)
    others = torch.softmax(given_, 1)[0][torch.arange(4) != label].sum()
    assert denial(given_, label).item() == pytest.approx(-others.log().item(), abs=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_divergence_is_the_sum_over_classes_and_the_mean_over_images(temperature: float) -> None:
    given_, wanted = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    p, q = (wanted / temperature).softmax(1), (given_ / temperature).softmax(1)
    expected = temperature**2 * (p * (p.log() - q.log())).sum() / 5
    assert divergence(given_, wanted, temperature).item() == pytest.approx(expected.item())
    assert divergence(wanted, wanted, temperature).item() == pytest.approx(0, abs=1e-6)


def test_held_out_images_are_not_learned_from(digits: Dataset) -> None:
    work = Repairing(model=nn.Flatten(), trusted=digits.validation.first(50))
    learned, others = held_out(work, 0.2)
    both = np.concatenate([learned.images, others.images])
    assert (len(learned), len(others)) == (40, 10)
    assert sorted(map(bytes, both)) == sorted(map(bytes, digits.validation.images[:50]))


def test_too_few_to_hold_any_out_serve_for_both(digits: Dataset) -> None:
    work = Repairing(model=nn.Flatten(), trusted=digits.validation.first(4))
    assert [len(one) for one in held_out(work, 0.2)] == [4, 4]


def test_the_best_check_is_kept_not_the_last(digits: Dataset) -> None:
    scores = iter([3.0, 1.0, 2.0])
    seen: list[Tensor] = []

    def score(net: nn.Module) -> float:
        seen.append(net[1].weight.detach().clone())
        return next(scores)

    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    loop = Loop(steps=3, checks=3, batch_size=4)
    loop.tune(net, digits.train.first(8), 0, loss=lambda n, x, *_: n(x).mean(), score=score)
    assert torch.equal(net[1].weight, seen[1]) and not torch.equal(net[1].weight, seen[2])


def test_the_chance_of_a_step_is_a_function_of_seed_and_step_alone() -> None:
    first, again, other_seed, other_step = (
        torch.rand(3, generator=generator(*key)) for key in ((0, 1), (0, 1), (1, 1), (0, 2))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other_seed) and not torch.equal(first, other_step)


def test_retraining_is_training_on_what_was_not_flagged(digits: Dataset) -> None:
    from purpleteam.defences.repair.retrain import Retrain

    images, recipe = digits.train.first(60), RECIPES["plain"](epochs=2)
    work = Repairing(
        model=nn.Flatten(),
        net=lambda: build("small_cnn", (1, 28, 28), 10, seed=1),
        train=images,
        flagged=np.array([59, 0, 7]),
        recipe=recipe,
        validation=digits.validation.first(20),
        seed=4,
    )
    found = Retrain().mend(nn.Flatten(), work)
    by_hand = images.take([one for one in range(60) if one not in (0, 7, 59)])
    net = build("small_cnn", (1, 28, 28), 10, seed=1)
    expected = train(net, by_hand, digits.validation.first(20), recipe, seed=4).module
    wanted = expected.state_dict()
    assert all(torch.equal(one, wanted[name]) for name, one in found.state_dict().items())


@pytest.mark.parametrize("place", [-1, 3])
def test_a_flagged_place_outside_the_set_is_refused(place: int) -> None:
    images = pairs([1, 2, 3], [1, 2, 3], [0, 1, 1])
    with pytest.raises(DataError, match=rf"from {place} to {place}, but .* has 3 images"):
        without_flagged(images, np.array([place]))


def test_a_class_that_is_flagged_whole_is_refused() -> None:
    with pytest.raises(DataError, match="all images of class 0 are flagged"):
        without_flagged(pairs([1, 2, 3], [1, 2, 3], [0, 1, 1]), np.array([0]))


@pytest.mark.parametrize(("target", "kept"), [(None, [1, 3]), (0, [0]), (5, [1, 3])])
def test_of_the_flagged_those_of_one_label_are_unlearned(
    target: int | None, kept: list[int]
) -> None:
    images = pairs([0, 1, 2, 3], [0, 0, 0, 0], [0, 1, 2, 1])
    work = Repairing(
        model=nn.Flatten(), train=images, flagged=np.array([0, 1, 2, 3]), target_label=target
    )
    assert flagged_of_one_label(work).images[:, 0, 0, 0].tolist() == kept
