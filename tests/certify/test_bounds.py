"""Every bound holds what is in the ball: bound <= exact <= attack, and none is ever NaN."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from milp import TOLERANCE, least_margin
from tiny_nets import SHAPE, conv, dense, every_layer
from torch import Tensor, nn

from purpleteam.certify.bends import Clip, Lines, Rectifier
from purpleteam.certify.bounds import (
    Boxes,
    ball,
    elided,
    interval_margins,
    intervals,
    last_box,
    lower_bound,
    margins,
    worst_logits,
)
from purpleteam.certify.boxes import Box
from purpleteam.certify.folding import folded
from purpleteam.certify.layers import Affine, Convolution, Dense, Layer, Sum
from purpleteam.certify.network import Network, network_of
from purpleteam.certify.scaling import Scaling
from purpleteam.certify.slopes import optimise
from purpleteam.certify.tighten import tighten

NETS = {
    "every_layer": (every_layer(), SHAPE),
    "conv": (conv(), (1, 6, 6)),
    "dense": (dense(4, 6, 5, 3), (1, 1, 4)),
}


def images(shape: tuple[int, ...], count: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def stages(network: Network, x: Tensor, epsilon: float) -> tuple[Boxes, dict[str, Tensor]]:
    """Return the boxes, and the margins' lower bounds by each method, the loosest first."""
    labels = network(x).argmax(1)
    form = margins(labels, network.classes).to(x.dtype)
    boxes = intervals(network, ball(x, epsilon))
    found = {"ibp": lower_bound(network, boxes, form, elide=True)}
    found["crown_ibp"] = torch.maximum(found["ibp"], lower_bound(network, boxes, form))
    tight = tighten(network, boxes)
    found["crown"] = torch.maximum(found["crown_ibp"], lower_bound(network, tight, form))
    found["alpha_crown"] = optimise(network, tight, form, steps=3)[0]
    return tight, {name: value.detach() for name, value in found.items()}


@pytest.mark.parametrize("name", NETS)
@settings(max_examples=6)
@given(epsilon=st.floats(0, 0.5), seed=st.integers(0, 1000), double=st.booleans())
def test_no_image_of_the_ball_is_below_a_bound(
    name: str, epsilon: float, seed: int, double: bool
) -> None:
    net, shape = NETS[name]
    network = network_of(net, shape).to(torch.float64 if double else torch.float32)
    x = images(shape, 2, seed).to(torch.float64 if double else torch.float32)
    boxes, found = stages(network, x, epsilon)
    box = ball(x, epsilon)
    noise = torch.rand(32, *x.shape, generator=torch.Generator().manual_seed(seed)).to(x)
    inside = box.lower + (box.upper - box.lower) * torch.cat([noise, noise.round()])
    exact = network.to(torch.float64)
    form = margins(network(x).argmax(1), network.classes).double()
    for place in range(len(x)):
        values = exact.values(inside[:, place].double())
        for held, value in zip(boxes, values, strict=True):
            assert (value >= held.lower[place]).all() and (value <= held.upper[place]).all()
        least = (values[-1] @ form[place].T).amin(0)
        for method, bound in found.items():
            assert not bound.isnan().any()
            assert (least >= bound[place].double()).all(), method


@pytest.mark.parametrize("name", NETS)
def test_searched_slopes_never_end_looser_than_they_began(name: str) -> None:
    net, shape = NETS[name]
    network = network_of(net, shape).to(torch.float32)
    for epsilon in (0.01, 0.1, 0.3):
        x = images(shape)
        form = margins(network(x).argmax(1), network.classes)
        boxes = tighten(network, intervals(network, ball(x, epsilon)))
        begun = lower_bound(network, boxes, form)
        assert (optimise(network, boxes, form, steps=3)[0] >= begun).all()


@pytest.mark.parametrize("name", ["conv", "dense"])
def test_a_bound_is_at_most_the_exact_margin(name: str) -> None:
    net, shape = NETS[name]
    network, x = network_of(net, shape).to(torch.float64), images(shape, 2).double()
    for epsilon in (0.02, 0.1):
        boxes, found = stages(network, x, epsilon)
        form = margins(network(x).argmax(1), network.classes)
        for place, column in product(range(len(x)), range(network.classes - 1)):
            one = [box.rows(torch.tensor([place])) for box in boxes]
            exact = least_margin(network, one, form[place, column])
            attained = float(network(x)[place] @ form[place, column].double())
            assert exact <= attained + TOLERANCE
            for bound in found.values():
                assert float(bound[place, column]) <= exact + TOLERANCE
        assert (found["alpha_crown"] - found["ibp"]).min() >= 0


def test_a_linear_net_is_bounded_exactly() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    x = torch.full((1, 1, 2, 2), 0.5)
    with torch.no_grad():
        weight, bias = net[1].weight, net[1].bias
        form = margins(net(x).argmax(1), 3)
        exact = form[0] @ (weight @ x.flatten() + bias) - 0.1 * (form[0] @ weight).abs().sum(1)
        _, found = stages(network_of(net, (1, 2, 2)).to(torch.float32), x, 0.1)
    for bound in found.values():
        torch.testing.assert_close(bound[0], exact, atol=1e-5, rtol=0)


def test_float32_that_cancels_is_not_believed() -> None:
    # In float32 1e8 + 1 - 1e8 is 0; the exact margin is below 0 and no bound may be above it.
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        net[1].weight[:] = torch.tensor([[1e8, -1.0], [1e8, 0.0]])
        net[2].weight[:] = torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    x = torch.tensor([[[[1.0, 0.5]]]])
    network = network_of(net, (1, 1, 2)).to(torch.float32)
    form = torch.tensor([[[1.0, -1.0]]])
    boxes = intervals(network, ball(x, 0.25))
    for bound in (lower_bound(network, boxes, form), lower_bound(network, boxes, form, elide=True)):
        assert float(bound) <= -0.75


@pytest.mark.parametrize("factors", [(1e-30, 1e-20, 1e25, 1e25), (1e30, 1e30, 1e-30, 1e-30)])
@pytest.mark.parametrize("sign", [1, -1])
def test_what_leaves_the_range_of_float32_is_not_believed(
    factors: tuple[float, ...], sign: int
) -> None:
    layers = [nn.Linear(1, 1, bias=False) for _ in factors]
    net = nn.Sequential(nn.Flatten(), *(part for one in layers for part in (one, nn.ReLU())))
    net.append(nn.Linear(1, 2))
    with torch.no_grad():
        for layer, factor in zip(layers, factors, strict=True):
            layer.weight.fill_(factor)
        net[-1].weight[:], net[-1].bias[:] = torch.tensor([[1.0], [0]]), torch.tensor([0, 0.5])
        network = network_of(net, (1, 1, 1)).to(torch.float32)
        x, form = torch.ones(1, 1, 1, 1), torch.tensor([[[sign, -sign]]])
        exact = float(form[0, 0].double() @ network.to(torch.float64)(x.double())[0])
        boxes = intervals(network, ball(x, 0.0))
        for elide in (True, False):
            assert float(lower_bound(network, boxes, form, elide=elide)) <= exact


CANCELLING = {
    "weights": (1e4, 1.0),
    "an offset": (1.0, 1e6),
    "a small weight": (1e-3, 1e3),
}


@pytest.mark.parametrize("kind", ["dense", "convolution", "scaling"])
@pytest.mark.parametrize("cancelling", CANCELLING)
@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), signed=st.booleans(), width=st.sampled_from([0.0, 1e-6, 0.5]))
def test_a_box_of_float32_holds_the_exact_one(
    kind: str, cancelling: str, seed: int, signed: bool, width: float
) -> None:
    rng, (size, shift) = torch.Generator().manual_seed(seed), CANCELLING[cancelling]
    lower = torch.rand(4, 3, 4, 4, generator=rng) - (0.5 if signed else 0)
    box = Box(lower, lower + width)
    offset = shift * torch.randn(5, generator=rng)
    layers: dict[str, Affine] = {
        "dense": Dense(size * torch.randn(5, 48, generator=rng), offset),
        "convolution": Convolution(size * torch.randn(5, 3, 3, 3, generator=rng), offset),
        "scaling": Scaling(size * torch.rand(3, 1, 1, generator=rng), offset[:3, None, None]),
    }
    layer = layers[kind]
    box = Box(*(side.flatten(1) for side in box)) if kind == "dense" else box
    found, exact = layer.interval(box), layer.to(torch.float64)
    centre, radius = ((box.upper.double() + sign * box.lower.double()) / 2 for sign in (1, -1))
    middle, reach = exact.value(centre), exact.weigh(radius)
    near = 1e-3 * (1 + middle.abs() + reach) + 1e-5 * size * 48
    for side, sign in zip(found, (-1, 1), strict=True):
        gap = sign * (side.double() - middle) - reach
        assert (gap >= 0).all()
        assert (gap <= near).all()


def test_the_elided_bound_is_that_of_the_last_layer_brought_back() -> None:
    for net, shape in NETS.values():
        network, x = network_of(net, shape).to(torch.float32), images(shape)
        labels = torch.arange(3)
        boxes = intervals(network, ball(x, 0.1))
        form = margins(labels, network.classes)
        held = elided(network, boxes, labels)
        exact = lower_bound(network.to(torch.float64), to_double(boxes), form, elide=True)
        assert (held <= exact).all()
        torch.testing.assert_close(held, exact.float(), atol=1e-4, rtol=1e-3)


def to_double(boxes: Boxes) -> Boxes:
    return [Box(box.lower.double(), box.upper.double()) for box in boxes]


class Steep(Rectifier):
    """A ReLU whose upper line is planted too low."""

    def lines(self, box: Box) -> Lines:
        lines = super().lines(box)
        return lines._replace(ceiling=0.5 * lines.ceiling)


def changed(network: Network, kind: type[Layer], change: Callable[[Any], Layer]) -> Network:
    nodes = [
        replace(node, layer=change(node.layer)) if isinstance(node.layer, kind) else node
        for node in network.nodes
    ]
    return Network(network.image, tuple(nodes))


@pytest.mark.parametrize("planted", ["a dropped bias", "a line too low"])
def test_a_planted_unsound_bound_is_above_some_image(planted: str) -> None:
    true, x = (
        network_of(NETS["dense"][0], (1, 1, 4)).to(torch.float64),
        images((1, 1, 4), 20).double(),
    )
    wrong = changed(true, Dense, lambda layer: replace(layer, offset=None))
    if planted == "a line too low":
        wrong = changed(true, Rectifier, lambda layer: Steep(layer.slope))
    form = margins(true(x).argmax(1), 3).double()
    form = torch.cat([form, -form], 1)
    box = ball(x, 0.1)
    least = lower_bound(wrong, intervals(wrong, box), form)
    corners = [
        torch.where(torch.tensor(c, dtype=torch.bool).view(1, 1, 1, 4), box.upper, box.lower)
        for c in product((0, 1), repeat=4)
    ]
    attained = torch.stack([(form @ true(x)[..., None])[..., 0] for x in corners]).amin(0)
    sound = lower_bound(true, intervals(true, box), form)
    assert (attained >= sound).all()
    assert (attained < least).any()


def test_worst_logits_have_at_least_the_loss_of_every_image_of_the_ball() -> None:
    net, shape = NETS["conv"]
    network, x = network_of(net, shape).to(torch.float32), images(shape)
    labels = torch.tensor([0, 1, 2])
    boxes = intervals(network, ball(x, 0.1))
    worst = worst_logits(lower_bound(network, boxes, margins(labels, 3), elide=True), labels)
    most = nn.functional.cross_entropy(worst, labels, reduction="none")
    noise = torch.rand(50, *x.shape, generator=torch.Generator().manual_seed(1))
    for sample in boxes[0].lower + (boxes[0].upper - boxes[0].lower) * noise.round():
        assert (
            nn.functional.cross_entropy(network(sample), labels, reduction="none") <= most
        ).all()


@pytest.mark.parametrize("name", NETS)
def test_in_memory_that_is_used_again_the_box_of_each_node_is_the_same(name: str) -> None:
    net, shape = NETS[name]
    network, box = network_of(net, shape).to(torch.float32), ball(images(shape), 0.1)
    before = [side.clone() for side in box]
    for at, kept in enumerate(intervals(network, box)):
        found = last_box(network, box, at)
        assert all(map(torch.equal, found, kept)), network[at].place
    assert all(map(torch.equal, box, before))
    labels = torch.arange(3)
    held = elided(network, intervals(network, box), labels)
    assert torch.equal(interval_margins(network, box, labels), held)


@given(
    factors=st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=2),
    offset=st.floats(-1e3, 1e3, width=32),
    reach=st.floats(2**-20, 2.0**30, width=32),
)
def test_the_box_of_a_scaling_holds_its_exact_ends(
    factors: list[float], offset: float, reach: float
) -> None:
    layer = Scaling(torch.tensor(factors)[:, None, None], torch.tensor(offset))
    ends = reach * torch.rand(2, 5, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    lower, upper = ends.amin(0) - reach / 4, ends.amax(0) - reach / 4
    exact = torch.stack([layer.to(torch.float64).value(end.double()) for end in (lower, upper)])
    spared = layer.interval(Box(lower.clone(), upper.clone()), spare=True)
    for box in (layer.interval(Box(lower, upper)), spared):
        assert (box.lower <= exact.amin(0)).all() and (box.upper >= exact.amax(0)).all()
        least, most = box.span
        assert least <= float(box.lower.min()) and most >= float(box.magnitude.max())


@pytest.mark.parametrize("pool", [nn.AdaptiveAvgPool2d(1), nn.AvgPool2d(3), nn.AvgPool2d(3, 2)])
def test_a_mean_before_the_last_layer_is_a_part_of_it(pool: nn.Module) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = (nn.Conv2d(1, 4, 3), nn.ReLU(), pool, nn.Flatten())
        net = nn.Sequential(*body, nn.LazyLinear(3)).eval()
        net(images((1, 8, 8)))
    network = network_of(net, (1, 8, 8)).to(torch.float32)
    small, labels, box = folded(network), torch.arange(3), ball(images((1, 8, 8)), 0.05)
    alone = getattr(pool, "stride", 3) == 3  # else windows overlap
    assert len(small) == len(network) - alone
    torch.testing.assert_close(small(images((1, 8, 8))), net(images((1, 8, 8))))
    by_form = elided(network, intervals(network, box), labels)
    torch.testing.assert_close(interval_margins(small, box, labels), by_form, atol=1e-4, rtol=0)


@given(seed=st.integers(0, 10**6), apart=st.floats(-7, 0), batch_norm=st.booleans())
def test_what_folding_rounds_is_no_proof_where_two_rows_are_nearly_the_same(
    seed: int, apart: float, batch_norm: bool
) -> None:
    rng = torch.Generator().manual_seed(seed)
    last: list[nn.Module] = [nn.Linear(2, 2)]
    last += [nn.BatchNorm1d(2, affine=False)] if batch_norm else []
    net = nn.Sequential(nn.ReLU(), nn.AvgPool2d(3), nn.Flatten(), *last).eval()
    with torch.no_grad():
        row = 1e3 * torch.randn(2, generator=rng)
        net[3].weight.copy_(row + 10**apart * torch.randn(2, 2, generator=rng))
        net[3].bias.copy_(torch.randn(2, generator=rng) * 10**apart)
    x = images((2, 3, 3), 4, seed)
    network, box = network_of(net, (2, 3, 3)).to(torch.float32), ball(x, 0.0)
    exact = network.to(torch.float64)(torch.cat([box.lower, box.upper, x]).double())
    for label in (0, 1):
        labels = torch.full((4,), label)
        true = (exact[:, label] - exact[:, 1 - label]).reshape(3, 4).amin(0)
        assert (interval_margins(folded(network), box, labels)[:, 0].double() <= true).all()


class Times(nn.Module):
    """The input minus a number, times several others, one after the other."""

    def __init__(self, minus: float, factors: list[float]) -> None:
        super().__init__()
        self.minus, self.factors = minus, factors

    def forward(self, x: Tensor) -> Tensor:
        x = x - self.minus if self.minus else x
        for factor in self.factors:
            x = x * factor
        return x


@given(
    minus=st.sampled_from([0.0, 1e3]),
    factors=st.lists(st.floats(0.5, 2, width=32), min_size=1, max_size=30),
    extreme=st.sampled_from([(), (1e-30, 1e-30, 1e30, 1e30), (1e-25, 1e-20, 1e25, 1e20)]),
)
def test_however_many_scalings_are_folded_into_one_its_box_holds(
    minus: float, factors: list[float], extreme: tuple[float, ...]
) -> None:
    net = nn.Sequential(Times(minus, [*factors, *extreme]), nn.Flatten(), nn.Linear(4, 2))
    network, x = network_of(net, (1, 2, 2)).to(torch.float32), images((1, 2, 2))
    exact = network.to(torch.float64).values(x.double())
    scaled = exact[len(network) - 3]  # before it is flattened
    last = next(place for place, one in enumerate(folded(network).nodes, 1)
                if not isinstance(one.layer, Scaling)) - 1  # fmt: skip
    box = intervals(folded(network), ball(x, 0.0))[last]
    assert (box.lower <= scaled).all() and (box.upper >= scaled).all()


def test_an_image_that_overflows_costs_no_other_its_rounding() -> None:
    layer = Dense(torch.randn(1, 20, generator=torch.Generator().manual_seed(0)))
    x = 1e13 * torch.rand(1, 20, generator=torch.Generator().manual_seed(1))
    alone = layer.interval(Box(x, x))
    beside = torch.cat([x, torch.full((1, 20), math.nan)])
    both = layer.interval(Box(beside, beside))
    exact = layer.to(torch.float64).value(x.double())
    for box in (alone, both.rows(slice(0, 1))):
        assert (box.lower <= exact).all() and (exact <= box.upper).all()
    huge = Box(torch.full((1, 2), -3e38), torch.full((1, 2), 3e38))
    far = Sum().interval(huge, huge)
    assert not far.lower.isnan().any() and not Sum().interval(far, far).upper.isnan().any()
    bent = Rectifier(torch.tensor([0.0, 0.25])).interval(far)
    assert not bent.lower.isnan().any() and not bent.upper.isnan().any()


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), apart=st.floats(-8, 1), epsilon=st.sampled_from([0.0, 0.05]))
def test_bounds_of_a_folded_net_hold_for_the_net_as_it_was(
    seed: int, apart: float, epsilon: float
) -> None:
    # Bias and mean are nearly the same: of both together little is left.
    net, rng = conv_behind_a_norm(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for one in net.parameters():
            one.copy_(torch.randn(one.shape, generator=rng))
        net[0].bias.mul_(1e4)
        net[1].running_mean.copy_(net[0].bias * (1 + 10**apart))
    x, network = images((1, 3, 3), 4, seed), network_of(net, (1, 3, 3)).to(torch.float32)
    small, exact = folded(network), network_of(net.double(), (1, 3, 3))  # by its statistics
    assert len(small) == len(network) - 1
    labels, box = exact(x.double()).argmax(1), ball(x, epsilon)
    form = margins(labels, exact.classes).double()
    inside = box.lower + (box.upper - box.lower) * torch.rand(16, *x.shape, generator=rng)
    least = torch.stack([(form @ exact(one.double())[..., None])[..., 0] for one in inside]).amin(0)
    for bound in (
        interval_margins(small, box, labels),
        lower_bound(small, intervals(small, box), form),
    ):
        assert (bound.double() <= least).all()


@pytest.mark.parametrize("ends", [(-math.inf, 0.2), (0.1, math.inf), (0.1, 0.2)])
def test_lines_of_a_cut_are_near_it_where_an_end_is_open(ends: tuple[float, float]) -> None:
    box = Box(torch.tensor([[-1.0, 0.0, 0.15]]), torch.tensor([[0.0, 1.0, 0.3]]))
    lines, clip = Clip(*ends).lines(box), Clip(*ends)
    for x in torch.linspace(0, 1, 11):
        at = torch.lerp(*box, x)
        below, above = (
            slope * at + shift for slope, shift in zip(lines[::2], lines[1::2], strict=True)
        )
        assert (below <= clip.value(at)).all() and (clip.value(at) <= above).all()
        assert (above - below <= 1).all()


def conv_behind_a_norm() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)
    ).eval()


def test_offsets_that_cancel_behind_a_batch_norm_are_not_believed() -> None:
    # A bias of 1e6 less 1/16 and a mean of 1e6 leave 0.1 x - 1/16, which float32 cannot tell.
    net = nn.Sequential(
        nn.Conv2d(1, 1, 1),
        nn.ReLU(),
        nn.Conv2d(1, 1, 1),
        nn.BatchNorm2d(1),
        nn.ReLU(),
        nn.Flatten(),
    ).eval()
    with torch.no_grad():
        net[0].weight.fill_(1)
        net[0].bias.fill_(0)
        net[2].weight.fill_(0.1)
        net[2].bias.fill_(1e6 - 1 / 16)
        net[3].running_mean.fill_(1e6)
    network, x = network_of(net, (1, 2, 2)).to(torch.float32), images((1, 2, 2), 8)
    boxes = tighten(network, intervals(network, ball(x, 0.3)))
    for held, value in zip(boxes, network.to(torch.float64).values(x.double()), strict=True):
        assert (value >= held.lower).all() and (value <= held.upper).all()
