"""The tiny networks: the steps of any optimizer, but on a part's images; chance by part number."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from purpleteam.certify.partition.features import FEATURES
from purpleteam.certify.partition.learners import Part, seeded
from purpleteam.certify.partition.learners._base import described
from purpleteam.certify.partition.learners.networks import SCALE, TinyNetworks
from purpleteam.data.images import Dataset
from purpleteam.models.devices import to_batch

LEARNER = TinyNetworks(width=5, steps=30, turn=12.0, seed=3)
ROUNDING = 1e-5
"""Another shape or place in a batch may round differently: so far apart, as a share of the largest.

Equal bytes are promised for one machine, shape, place and number of threads alone.
"""


@pytest.fixture(scope="module")
def parts(digits: Dataset) -> list[Part]:
    """Two parts, of 20 images and of 31."""
    train = digits.train
    cuts = (slice(0, 20), slice(20, 51))
    return [Part(to_batch(train.images[c]), torch.tensor(train.labels[c])) for c in cuts]


def fitted(parts: list[Part], first: int = 6) -> list[tuple[Tensor, ...]]:
    group = LEARNER.fit(parts, first=first, capacity=32, classes=10)
    return [group.network(place) for place in range(len(parts))]


def assert_alike(one: Tensor, other: Tensor) -> None:
    """Compare what was computed in different shapes or places."""
    torch.testing.assert_close(
        one, other, rtol=0, atol=ROUNDING * float(other.detach().abs().max())
    )


def by_torch(part: Part, number: int) -> nn.Sequential:
    """Train a part's network as anyone would: torch's layers, loss and optimizer."""
    inner, outer = nn.Linear(FEATURES, LEARNER.width), nn.Linear(LEARNER.width, 10)
    first, second = LEARNER._drawn(number, 1, 10)
    for layer, weights in ((inner, first[0].T), (outer, second[0].T)):
        layer.weight.data, layer.bias.data = weights.clone(), torch.zeros_like(layer.bias)
    net = nn.Sequential(inner, nn.ReLU(), outer)
    descent = torch.optim.SGD(net.parameters(), lr=LEARNER.learning_rate, momentum=LEARNER.momentum)
    fall = torch.optim.lr_scheduler.LambdaLR(descent, lambda step: 1 - step / LEARNER.steps)
    weights = torch.bincount(part.labels, minlength=10).clamp_min(1).float() ** -LEARNER.balance
    x, y = SCALE * described(part.images, LEARNER.turn), part.labels.repeat(3)
    for _ in range(LEARNER.steps):
        descent.zero_grad()
        F.cross_entropy(net(x), y, weight=weights).backward()
        descent.step()
        fall.step()
    return net


def test_a_network_is_what_torch_makes_of_the_same_part(parts: list[Part]) -> None:
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


def test_scores_are_those_of_each_network_alone(parts: list[Part]) -> None:
    x = torch.rand(4, FEATURES, generator=torch.Generator().manual_seed(0))
    group = LEARNER.fit(parts, first=0, capacity=32, classes=10)
    for place, (inner, inner_bias, outer, bias) in enumerate(map(group.network, (0, 1))):
        alone = (x @ inner + inner_bias).relu() @ outer + bias
        assert_alike(group.scores(x)[:, place], alone)


def test_the_number_of_a_part_and_the_seed_draw_its_first_weights(parts: list[Part]) -> None:
    same = [parts[0], parts[0]]
    (one, *_), (other, *_) = fitted(same)
    assert float((one - other).abs().max()) > 0.1
    assert_alike(fitted(same, first=7)[0][0], other)
    drawn = TinyNetworks(width=5, seed=4)._drawn(6, 1, 10)[0]
    assert not torch.equal(drawn, LEARNER._drawn(6, 1, 10)[0])


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


def test_images_of_a_part_alone_move_the_first_layer(parts: list[Part]) -> None:
    (inner, *_), _ = fitted(parts)
    moved = inner / SCALE - LEARNER._drawn(6, 1, 10)[0][0]
    x = described(parts[0].images, LEARNER.turn)
    back = x.T @ torch.linalg.lstsq(x.T, moved).solution
    assert float((back - moved).norm() / moved.norm()) < 1e-3
    assert np.linalg.matrix_rank(moved.numpy()) == LEARNER.width
