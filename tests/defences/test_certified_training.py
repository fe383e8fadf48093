"""Training by bounds: its losses bound what they say, its special cases are each other."""

from __future__ import annotations

import dataclasses
import math
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from purpleteam.certify.bounds import ball, intervals
from purpleteam.certify.boxes import Box
from purpleteam.certify.network import Network, network_of
from purpleteam.data.images import Dataset
from purpleteam.defences import DEFENCES, Hardening
from purpleteam.defences.training.crown_ibp import fused_loss
from purpleteam.defences.training.ibp import imbalance, initialise, worst_loss
from purpleteam.defences.training.sabr import small_box, worst_point
from purpleteam.models import build
from purpleteam.models.adapters import Normalisation

SHAPE = (2, 6, 6)
seeds = st.integers(0, 2**31)
few = settings(max_examples=40, deadline=None)


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def tiny(classes: int) -> tuple[nn.Sequential, Network]:
    """Return a convolution and two linear layers, with batch norm between."""
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(27, 8),
        nn.BatchNorm1d(8),
        nn.LeakyReLU(0.1),
        nn.Linear(8, classes),
    )
    return net, network_of(net, SHAPE)


def case(seed: int, classes: int = 4) -> tuple[nn.Sequential, Network, Tensor, Tensor]:
    """Return the tiny net with other weights, as a graph by the batch of images that follows."""
    net, network = tiny(classes)
    rng = drawn(seed)
    with torch.no_grad():
        for one in net.parameters():
            one.copy_(0.5 * torch.randn(one.shape, generator=rng))
    x = torch.rand(5, *SHAPE, generator=rng)
    y = torch.randint(classes, (5,), generator=rng)
    return net, network.by_batch(x)[1], x, y


@few
@given(seed=seeds, epsilon=st.floats(1e-3, 0.5), classes=st.sampled_from([2, 4]))
@pytest.mark.parametrize("loss", [worst_loss, fused_loss], ids=["ibp", "crown_ibp"])
def test_a_certified_loss_bounds_that_of_every_image_in_the_box(loss, seed, epsilon, classes):
    _, live, x, y = case(seed, classes)
    box = ball(x, epsilon)
    bound = loss(live, intervals(live, box, rounding=False), y)
    for share in (torch.rand(x.shape, generator=drawn(seed)), torch.rand(x.shape).round()):
        inside = torch.lerp(box.lower, box.upper, share)
        assert F.cross_entropy(live(inside), y) <= bound + 1e-4


@few
@given(seed=seeds, scale=st.floats(1e-3, 1e3))
def test_a_fused_loss_is_finite_with_its_gradient_however_wide_the_boxes(seed, scale):
    net, live, x, y = case(seed)
    with torch.no_grad():
        net[-1].weight.mul_(scale)
    loss = fused_loss(live, intervals(live, ball(x, 0.3), rounding=False), y)
    loss.backward()
    assert all(torch.isfinite(one.grad).all() for one in net.parameters() if one.grad is not None)


@few
@given(seed=seeds, epsilon=st.floats(1e-3, 0.5), size=st.floats(0.01, 1))
def test_the_small_box_lies_inside_the_ball(seed, epsilon, size):
    _, live, x, y = case(seed)
    whole = ball(x, epsilon)
    point = worst_point(live, whole, y, 2, drawn(seed))
    small = small_box(whole, point, size)
    assert (small.lower >= whole.lower - 1e-6).all() and (small.upper <= whole.upper + 1e-6).all()
    widths = [box.upper - box.lower for box in (small, whole)]
    torch.testing.assert_close(widths[0], size * widths[1])
    assert (point >= whole.lower).all() and (point <= whole.upper).all()


def test_behind_a_ramp_the_point_is_looked_for_in_the_box_where_gradients_are():
    net = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0], [-1.0]]))
    ramped = network_of(Normalisation.ramp(0.3).before(net), (1, 1, 1))
    box = intervals(ramped, ball(torch.full((1, 1, 1, 1), 0.75), 0.3))[ramped.root]
    point = worst_point(ramped, box, torch.tensor([0]), 4, drawn(0))
    assert float(point) == pytest.approx((0.45 - 0.3) / 0.4, abs=1e-4)  # the box is rounded outward


@pytest.mark.parametrize(
    ("name", "options"),
    [("sabr", {"relative_size": 1.0}), ("mtl_ibp", {"bound_share": 1.0}), ("crown_ibp", {})],
)
def test_at_one_end_each_other_recipe_is_ibp(name, options):
    _, live, x, y = case(3)
    ibp, other = DEFENCES["ibp"](), DEFENCES[name](**options)
    wanted, found = (kind.robust_loss(live, x, y, 1.0, drawn(0))[0] for kind in (ibp, other))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("name", "options"),
    [("sabr", {"relative_size": 0.3}), ("mtl_ibp", {"bound_share": 0.3}), ("crown_ibp", {})],
)
def test_away_from_it_each_asks_for_less_than_ibp(name, options):
    _, live, x, y = case(3)
    ibp, other = DEFENCES["ibp"](), DEFENCES[name](**options)
    most, found = (kind.robust_loss(live, x, y, 0.5, drawn(0))[0] for kind in (ibp, other))
    assert found < most - 0.01


def test_mtl_ibp_goes_straight_from_the_attack_to_the_bound():
    _, live, x, y = case(3)
    kinds = [DEFENCES["mtl_ibp"](bound_share=share) for share in (0.0, 0.3, 1.0)]
    attack, mixed, bound = (kind.robust_loss(live, x, y, 0.5, drawn(0))[0] for kind in kinds)
    torch.testing.assert_close(mixed, 0.7 * attack + 0.3 * bound)


def test_a_net_by_a_batch_answers_and_learns_as_the_module_in_training():
    net, _, x, y = case(1)
    logits, live = tiny(4)[1].by_batch(x)
    torch.testing.assert_close(logits, net.train()(x))
    torch.testing.assert_close(live(x), logits)
    grads = [
        torch.autograd.grad(F.cross_entropy(out, y), list(net.parameters()))
        for out in (live(x), net(x))
    ]
    torch.testing.assert_close(*grads)


def test_a_norm_without_a_linear_layer_before_it_is_a_layer_of_its_own():
    net = nn.Sequential(nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4))
    _, _, x, y = case(2)
    logits, live = network_of(net, SHAPE).by_batch(x)
    torch.testing.assert_close(logits, net.train()(x))
    torch.testing.assert_close(live(x), logits)
    DEFENCES["sabr"]().robust_loss(live, x, y, 1.0, drawn(0))[0].backward()
    assert all(torch.isfinite(one.grad).all() for one in net.parameters())


def test_weights_for_boxes_are_drawn_by_their_inputs_and_the_last_layer_stays():
    net = build("small_cnn", (1, 28, 28), 10, seed=0)
    before = [one.detach().clone() for one in net.parameters()]
    initialise(network_of(net, (1, 28, 28)), drawn(0))
    dense = net[6].weight.detach()
    assert dense.std() == pytest.approx(math.sqrt(2 * math.pi) / dense[0].numel(), rel=0.05)
    changed = [not torch.equal(*pair) for pair in zip(before, net.parameters(), strict=True)]
    assert changed == [True, False, True, False, True, False, False, False]


def test_boxes_that_keep_their_width_between_balanced_neurons_cost_nothing():
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2))
    network = network_of(net, (1, 1, 2))
    box = Box(torch.tensor([[[[0.4, 0.4]]]]), torch.tensor([[[[0.6, 0.6]]]]))
    for weights, penalty in (
        ([[1.0, 0.0], [0.0, -1.0]], 0.0),  # one on, one off, as wide as the input
        ([[4.0, 0.0], [0.0, -4.0]], 0.5),  # four times as wide: (0.5 - 1 / 4) / 0.5
        ([[1.0, 0.0], [0.0, 1.0]], 2.0),  # none is off, for mean and variance
    ):
        with torch.no_grad():
            net[1].weight.copy_(torch.tensor(weights))
            found = imbalance(network, intervals(network, box, rounding=False))
        assert float(found) == pytest.approx(penalty, abs=1e-4)


def test_boxes_in_training_are_twice_as_large_but_not_beyond_reason():
    radii = [DEFENCES["ibp"](epsilon=epsilon).radius for epsilon in (0.1, 0.2, 0.3, 0.4)]
    assert radii == pytest.approx([0.2, 0.3, 0.3, 0.4])
    assert DEFENCES["ibp"](epsilon=0.1, train_epsilon=0.15).radius == 0.15


def test_on_the_same_images_certified_are_no_more_than_attacked_than_right(
    digits: Dataset,
) -> None:
    data = dataclasses.replace(digits, validation=digits.validation.first(100))
    recipe = DEFENCES["ibp"](epsilon=0.05, epochs=4, batch_size=32, learning_rate=5e-3)
    work = Hardening(net=build("small_cnn", (1, 28, 28), 10, seed=0), dataset=data)
    epochs = recipe.harden(work).epochs
    attacked = [one for one in epochs if one.attacked is not None]
    assert [one.epoch for one in attacked] == [2, 3, 4]  # once the boxes are whole
    assert all(one.certified <= one.attacked <= one.validation_accuracy for one in attacked)
    assert epochs[-1].certified > 0.3
