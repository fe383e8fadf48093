"""The fixed layers: one image alone, brought to a canvas and told by its edges."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from purpleteam.certify.features import CANVAS, FEATURES, edge_pairs, to_canvas
from purpleteam.data.images import Dataset
from purpleteam.models.devices import to_batch


@pytest.fixture(scope="module")
def few(digits: Dataset) -> Tensor:
    return to_batch(digits.train.images[:20])


def likeness(x: Tensor, y: Tensor) -> float:
    """Return the smallest product of the features of an image and its counterpart."""
    return float((edge_pairs(x) * edge_pairs(y)).sum(dim=1).min())


def test_an_image_is_described_by_shares(few: Tensor) -> None:
    features = edge_pairs(few)
    assert features.shape == (20, FEATURES)
    assert features.min() >= 0
    torch.testing.assert_close(features.norm(dim=1), torch.ones(20))


def test_an_image_without_an_edge_is_described_by_zeros() -> None:
    assert not edge_pairs(torch.full((2, 3, 9, 9), 0.4)).any()


def test_a_moved_figure_is_the_same_figure_and_no_other(few: Tensor) -> None:
    roomy = F.pad(few, (4, 4, 4, 4))
    alike = edge_pairs(roomy) @ edge_pairs(roomy.roll((2, -3), (2, 3))).T
    assert alike.diagonal().min() > 0.98
    assert alike.argmax(dim=1).tolist() == list(range(20))


def test_a_slanted_stroke_is_put_upright_in_the_middle() -> None:
    x = torch.zeros(1, 1, 28, 28)
    for row in range(6, 20):
        x[0, 0, row, 18 - row // 2 : 20 - row // 2] = 1
    mass = to_canvas(x)[0, 0]
    mass = mass[mass.sum(dim=1) > 1]
    middles = (mass * torch.arange(CANVAS)).sum(dim=1) / mass.sum(dim=1)
    assert (middles - (CANVAS - 1) / 2).abs().max() < 0.8


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 40, 61), (4, 224, 200)])
def test_images_of_any_shape_are_described(shape: tuple[int, int, int]) -> None:
    x = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    assert to_canvas(x).shape == (3, shape[0], CANVAS, CANVAS)
    assert edge_pairs(x).shape == (3, FEATURES)


def test_a_scene_keeps_its_frame() -> None:
    x = torch.rand(2, 3, CANVAS, CANVAS, generator=torch.Generator().manual_seed(0))
    x[:, :, 0, :] = 0.0
    ground = to_canvas(x) - x
    torch.testing.assert_close(ground, ground[:, :, :1, :1].expand_as(ground))


def test_of_several_channels_the_strongest_edge_counts(few: Tensor) -> None:
    colour = torch.cat([0.3 * few, few, 0 * few], dim=1)
    assert likeness(colour, few) > 0.9


def test_no_image_sees_another(few: Tensor) -> None:
    alone = torch.cat([edge_pairs(one[None]) for one in few])
    torch.testing.assert_close(edge_pairs(few), alone)
