"""Rotation and translation: where pixels go, and that the whole grid is searched."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from purpleteam.attacks.evasion.spatial import Spatial, moved
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import to_batch


def some_images(height: int = 6, width: int = 6, channels: int = 1) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.rand((3, channels, height, width), generator=rng)


def test_a_quarter_turn_is_that_of_numpy() -> None:
    x = some_images(channels=3)
    for quarters in (-1, 1, 2):
        torch.testing.assert_close(
            moved(x, 90.0 * quarters, 0, 0), torch.rot90(x, quarters, (2, 3)), rtol=0, atol=1e-5
        )


def test_a_shift_goes_right_and_down_and_leaves_black() -> None:
    x = some_images(5, 8)
    expected = torch.zeros_like(x)
    expected[:, :, 2:, 1:] = x[:, :, :-2, :-1]
    torch.testing.assert_close(moved(x, 0, 1, 2), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(9, 9), (7, 13)])
@pytest.mark.parametrize("move", [(30.0, 0.0, 0.0), (-17.0, 1.5, -2.25)])
def test_any_move_is_that_of_scipy(
    height: int, width: int, move: tuple[float, float, float]
) -> None:
    x = some_images(height, width)
    degrees, right, down = move
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[cosine, sine], [-sine, cosine]])  # rows, columns; anticlockwise, seen
    centre = (np.array([height, width]) - 1) / 2
    offset = centre - turn @ (centre + np.array([down, right]))
    expected = np.stack(
        [ndimage.affine_transform(one[0].double().numpy(), turn, offset, order=1) for one in x]
    )
    ours = moved(x, *move)[:, 0].numpy()
    inside = ndimage.minimum_filter(expected > 0, (1, 3, 3))  # the two end at other borders
    assert inside.sum() > 20
    np.testing.assert_allclose(ours[inside], expected[inside], atol=1e-4)


def test_the_grid_holds_every_combination_once() -> None:
    attack = Spatial(degrees=20, pixels=2, turns=3, shifts=5)
    expected = set(itertools.product((-20.0, 0.0, 20.0), *[(-2.0, -1.0, 0.0, 1.0, 2.0)] * 2))
    assert set(attack.grid()) == expected and len(attack.grid()) == len(expected) == 75
    half = Spatial(epsilon=0.5, degrees=20, pixels=2, turns=3, shifts=5).grid()
    assert {tuple(2 * one for one in move) for move in half} == expected
    assert Spatial(epsilon=0).grid() == [(0, 0, 0)]
    assert Spatial(degrees=0, pixels=0).planned_steps == 1


class Watchful(nn.Module):
    """Errs when the one bright pixel stands where it is looked for."""

    def __init__(self, row: int, column: int) -> None:
        super().__init__()
        self.row, self.column = row, column

    def forward(self, x: Tensor) -> Tensor:
        seen = x[:, 0, self.row, self.column]
        return torch.stack([torch.full_like(seen, 0.9), seen], 1)


@pytest.mark.parametrize(("row", "column", "falls"), [(2, 7, True), (6, 2, True), (4, 8, False)])
def test_it_finds_the_one_shift_that_matters(row: int, column: int, falls: bool) -> None:
    x = torch.zeros((2, 1, 9, 9))
    x[:, 0, 4, 4] = 1
    attack = Spatial(degrees=0, pixels=3, shifts=7)
    found = attack.run(Watchful(row, column), x, torch.zeros(2, dtype=torch.int64))
    assert found.broken.tolist() == [falls, falls]
    if falls:
        assert found.x_adv[:, 0, row, column].min() > 0.99


def test_what_it_returns_is_one_of_its_moves(standard: nn.Module, images: ImageSet) -> None:
    x, y = to_batch(images.images), torch.from_numpy(images.labels.copy())
    attack = Spatial(epsilon=0.4, turns=5, shifts=3)
    found = attack.run(standard, x, y)
    assert found.broken.any() and not found.broken.all()
    candidates = torch.stack([x, *(moved(x, *move) for move in attack.grid())])
    closest = (candidates - found.x_adv).abs().amax((2, 3, 4)).amin(0)
    assert closest.max() == 0
    left = found.queries[~found.broken]
    assert (45 < left).all() and (left <= 45 + 2).all()  # and the last candidate


def test_its_verdict_is_that_of_a_loop_over_all_moves(
    standard: nn.Module, images: ImageSet
) -> None:
    x, y = to_batch(images.images), torch.from_numpy(images.labels.copy())
    attack = Spatial(turns=5, shifts=3, epsilon=0.4)
    with torch.no_grad():
        wrong = [standard(moved(x, *move)).argmax(1) != y for move in attack.grid()]
    expected = torch.stack([*wrong, standard(x).argmax(1) != y]).any(0)
    assert torch.equal(attack.run(standard, x, y).broken, expected)


@pytest.mark.parametrize("field", ["degrees", "pixels"])
def test_a_move_without_end_is_refused(field: str) -> None:
    for value in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"{field} must be at least 0"):
            Spatial(**{field: value})
    with pytest.raises(ValueError, match="turns must be at least 1"):
        Spatial(turns=0)
