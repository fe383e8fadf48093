"""The tiny networks: the steps of any optimizer, but on a part's images; chance by part number."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from purpleteam.certify.features import FEATURES
from purpleteam.certify.learners import Layers, seeded
from purpleteam.certify.learners.networks import SCALE, TinyNetworks
from purpleteam.data.images import Dataset, ImageSet

LEARNER = TinyNetworks(width=5, steps=30, turn=12.0, seed=3)
ROUNDING = 1e-5
"""Another shape or place in a batch may round differently: so far apart, as a share of the largest.

Equal bytes are promised for one machine, shape, place and number of threads alone.
"""


@pytest.fixture(scope="module")
def parts(digits: Dataset) -> list[ImageSet]:
    """Two parts, of 20 images and of 31."""
    return [digits.train.part(0, 20), digits.train.part(20, 51)]


def fitted(parts: list[ImageSet], first: int = 6) -> list[Layers]:
    return alone(LEARNER.fit(parts, first=first, capacity=32, classes=10))


def alone(networks: Layers) -> list[Layers]:
    return [tuple(layer[place] for layer in networks) for place in range(len(networks[0]))]


def assert_alike(one: Tensor, other: Tensor) -> None:
    """Compare what was computed in different shapes or places."""
    torch.testing.assert_close(
        one, other, rtol=0, atol=ROUNDING * float(other.detach().abs().max())
    )


def by_torch(part: ImageSet, number: int) -> nn.Sequential:
    """Train a part's network as anyone would: torch's layers, loss and optimizer."""
    inner, outer = nn.Linear(FEATURES, LEARNER.width), nn.Linear(LEARNER.width, 10)
    first, second = LEARNER.first_weights([number], 10)
    for layer, weights in ((inner, first[0].T), (outer, second[0].T)):
        layer.weight.data, layer.bias.data = weights.clone(), torch.zeros_like(layer.bias)
    net = nn.Sequential(inner, nn.ReLU(), outer)
    descent = torch.optim.SGD(net.parameters(), lr=LEARNER.learning_rate, momentum=LEARNER.momentum)
    fall = torch.optim.lr_scheduler.LambdaLR(descent, lambda step: 1 - step / LEARNER.steps)
    features, y, counts = LEARNER.lesson(part, 10)
    x = SCALE * features
    weights = counts.clamp_min(1) ** -LEARNER.balance
    for _ in range(LEARNER.steps):
        descent.zero_grad()
        F.cross_entropy(net(x), y, weight=weights).backward()
        descent.step()
        fall.step()
    return net


def test_a_network_is_what_torch_makes_of_the_same_part(parts: list[ImageSet]) -> None:
    for number, part, (inner, inner_bias, outer, bias) in zip(
        (6, 7), parts, fitted(parts), strict=True
    ):
        with torch.random.fork_rng():
            net = by_torch(part, number)
        assert_alike(inner / SCALE, cast(Tensor, net[0].weight).T)
        assert_alike(inner_bias, cast(Tensor, net[0].bias))
        assert_alike(outer, cast(Tensor, net[2].weight).T)
        seen = ~bias.isneginf()
        assert_alike(bias[seen], cast(Tensor, net[2].bias)[seen])


def test_scores_are_those_of_each_network_alone(parts: list[ImageSet]) -> None:
    x = torch.rand(4, FEATURES, generator=torch.Generator().manual_seed(0))
    networks = LEARNER.fit(parts, first=0, capacity=32, classes=10)
    for place, (inner, inner_bias, outer, bias) in enumerate(alone(networks)):
        by_itself = (x @ inner + inner_bias).relu() @ outer + bias
        assert_alike(LEARNER.scores(networks, x)[:, place], by_itself)


def test_the_number_of_a_part_and_the_seed_draw_its_first_weights(parts: list[ImageSet]) -> None:
    same = [parts[0], parts[0]]
    (one, *_), (other, *_) = fitted(same)
    assert float((one - other).abs().max()) > 0.1
    assert_alike(fitted(same, first=7)[0][0], other)
    drawn = TinyNetworks(width=5, seed=4).first_weights([6], 10)[0]
    assert not torch.equal(drawn, LEARNER.first_weights([6], 10)[0])


def test_the_seed_goes_to_the_learner_that_has_one() -> None:
    assert seeded("networks", 8) == TinyNetworks(seed=8)
    assert seeded("readout", 8).describe()["name"] == "readout"


@pytest.mark.parametrize(
    ("field", "value"),
    [("width", 0), ("steps", 0), ("learning_rate", 0), ("momentum", 1.5), ("turn", 181)],
)
def test_what_no_network_can_be_trained_by_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field} must be .*, not {value}"):
        TinyNetworks(**{field: value})  # type: ignore[arg-type]


def test_images_of_a_part_alone_move_the_first_layer(parts: list[ImageSet]) -> None:
    (inner, *_), _ = fitted(parts)
    moved = inner / SCALE - LEARNER.first_weights([6], 10)[0][0]
    x, _, _ = LEARNER.lesson(parts[0], 10)
    back = x.T @ torch.linalg.lstsq(x.T, moved).solution
    assert float((back - moved).norm() / moved.norm()) < 1e-3
    assert np.linalg.matrix_rank(moved.numpy()) == LEARNER.width
