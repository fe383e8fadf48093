"""Scattering features are those of the papers: waves under Gaussians, their strengths, blurred."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate
from torch import Tensor

from purpleteam.data.sources.digits import load_digits
from purpleteam.models import build
from purpleteam.models.architectures.scattering import ANGLES, Scattering
from purpleteam.models.devices import to_batch

WIDE = 20  # to each side: nothing of an envelope is cut off


@pytest.fixture(scope="module")
def digit() -> Tensor:
    return to_batch(np.array(load_digits().test.images[:1]))


def wave(scale: int, number: int) -> Any:
    """Return a Morlet wavelet as Bruna and Mallat write it, whole."""
    deviation, frequency, angle = 0.8 * 2**scale, 0.75 * math.pi / 2**scale, math.pi * number / 8
    rows, columns = np.mgrid[-WIDE : WIDE + 1, -WIDE : WIDE + 1]
    along = columns * math.cos(angle) + rows * math.sin(angle)
    across = rows * math.cos(angle) - columns * math.sin(angle)
    envelope = np.exp(-(along**2 + across**2 / 4) / (2 * deviation**2))
    plane = envelope * np.exp(1j * frequency * along)
    plane -= envelope * plane.sum() / envelope.sum()
    return plane / (4 * math.pi * deviation**2)


def strength(image: Any, scale: int, number: int) -> Any:
    kernel = wave(scale, number)
    parts = (correlate(image, part, mode="nearest") for part in (kernel.real, kernel.imag))
    return np.hypot(*parts)


def blurred(image: Any) -> Any:
    ticks = np.arange(-WIDE, WIDE + 1)
    line = np.exp(-(ticks**2) / (2 * 1.6**2))
    kernel = np.outer(line, line) / line.sum() ** 2
    return correlate(image, kernel, mode="nearest")[::4, ::4]


def test_the_maps_are_what_the_papers_define(digit: Tensor) -> None:
    maps, image = Scattering()(digit)[0].numpy(), digit[0, 0].double().numpy()
    expected = {0: blurred(image)}
    for number in (0, 3):
        fine = strength(image, 0, number)
        expected[1 + number] = blurred(fine)
        expected[1 + ANGLES + number] = blurred(strength(image, 1, number))
        expected[1 + 2 * ANGLES + ANGLES * number + 5] = blurred(strength(fine, 1, 5))
    for place, whole in expected.items():
        apart = np.abs(maps[place] - whole).max()
        assert apart < 0.06 * whole.max(), place


def test_each_channel_gets_81_maps_of_its_own(digit: Tensor) -> None:
    gray, colour = Scattering()(digit), Scattering()(torch.cat([digit, 1 - digit, digit], 1))
    assert (gray.shape, colour.shape) == ((1, 81, 7, 7), (1, 243, 7, 7))
    torch.testing.assert_close(colour[:, :81], gray)
    torch.testing.assert_close(colour[:, 162:], gray)
    assert not torch.allclose(colour[:, 81:162], gray)


def test_a_blank_image_has_no_waves_and_its_gradient_is_finite() -> None:
    blank = torch.full((1, 1, 28, 28), 0.7, requires_grad=True)
    maps = Scattering()(blank)
    torch.testing.assert_close(maps.detach()[:, 0], torch.full((1, 7, 7), 0.7))
    assert float(maps.detach()[:, 1:].abs().max()) < 1e-5
    maps.sum().backward()
    assert blank.grad is not None and torch.isfinite(blank.grad).all()


def test_a_turn_by_a_right_angle_turns_the_angles(digit: Tensor) -> None:
    maps, turned = Scattering()(digit)[0], Scattering()(digit.rot90(1, (2, 3)))[0]
    first, other = maps[1 : 1 + ANGLES].sum((1, 2)), turned[1 : 1 + ANGLES].sum((1, 2))
    torch.testing.assert_close(other, first.roll(ANGLES // 2), atol=0.05, rtol=0.1)


def test_large_images_do_not_make_the_linear_layer_large() -> None:
    net = build("scattering", (3, 224, 224), 5, seed=0)
    assert sum(one.numel() for one in net.parameters()) == 243 * 16 * 16 * 5 + 5
