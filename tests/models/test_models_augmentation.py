"""Random changes: of the same form, in range, and a function of their generator."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from purpleteam.models.recipes import AUGMENTATIONS, shift

every = pytest.mark.parametrize("name", AUGMENTATIONS)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=rng(99))


@every
@pytest.mark.parametrize("shape", [(5, 1, 28, 28), (3, 3, 20, 24), (1, 1, 8, 8)], ids=str)
def test_images_keep_their_form_and_range(name, shape):
    x = noise(*shape)
    before = x.clone()
    out = AUGMENTATIONS[name](x, rng(0))
    assert (out.shape, out.dtype) == (x.shape, x.dtype)
    assert out.min() >= 0 and out.max() <= 1
    assert torch.equal(x, before)


@every
def test_a_change_is_a_function_of_its_generator(name):
    x, before = noise(16, 1, 12, 12), torch.get_rng_state()
    change = AUGMENTATIONS[name]
    assert torch.equal(change(x, rng(1)), change(x, rng(1)))
    assert name == "none" or not torch.equal(change(x, rng(1)), change(x, rng(2)))
    assert torch.equal(torch.get_rng_state(), before)


@every
def test_black_stays_black(name):
    black = torch.zeros(4, 1, 12, 12)
    assert torch.equal(AUGMENTATIONS[name](black, rng(0)), black)


def test_shift_moves_every_image_by_whole_pixels_within_its_bound():
    x = torch.zeros(400, 2, 9, 11)
    x[:, 0, 4, 5], x[:, 1, 4, 6] = 1.0, 0.5
    out = shift(x, rng(0), pixels=2)
    places = out[:, 0].flatten(1).argmax(1)
    moves = {(int(place) // 11 - 4, int(place) % 11 - 5) for place in places}
    assert moves == {(row, column) for row in range(-2, 3) for column in range(-2, 3)}
    assert torch.equal(out[:, 1].flatten(1).argmax(1), places + 1)  # channels move together
    assert torch.equal(out.sum((1, 2, 3)), torch.full((400,), 1.5))


def test_what_is_shifted_out_is_lost_and_zeros_come_in():
    out = shift(torch.ones(200, 1, 5, 5), rng(0), pixels=1)
    assert set(out.sum((1, 2, 3)).tolist()) == {25.0, 20.0, 16.0}


def test_freehand_keeps_a_stroke_near_its_place():
    x = torch.zeros(64, 1, 28, 28)
    x[:, :, 4:24, 13:15] = 1.0
    out = AUGMENTATIONS["freehand"](x, rng(0))
    centre = torch.linspace(-13.5, 13.5, 28)
    column = (out.sum(2) * centre).sum((1, 2)) / out.sum((1, 2, 3))
    assert column.abs().max() < 4
    assert (out.amax((1, 2, 3)) > 0.2).all()
    ink = out.sum((1, 2, 3)) / x.sum((1, 2, 3))
    assert ink.min() < 0.8 and ink.max() > 1.3  # strokes both thinner and thicker
