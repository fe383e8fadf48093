"""Wavelet scattering (Bruna and Mallat 2013, arXiv:1203.1513) with one learned, linear layer.

The features of Oyallon and Mallat 2015 (arXiv:1412.8659): nothing in them is learned, so training
with differential privacy has few weights to spend its noise on (Tramer and Boneh 2021,
arXiv:2011.11660).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from purpleteam.models.architectures import ARCHITECTURES, Fixed, Normalise, Shape

ANGLES = 8
SLANT = 4 / ANGLES  # of a wavelet's envelope: how much narrower along the wave than across
REACH = 2.5  # deviations of an envelope that are kept to each side
MAPS = 1 + 2 * ANGLES + ANGLES**2  # of a channel: blurred, after one wavelet, after two
WIDEST = 16  # side from which maps are averaged: the linear layer has a weight for each value
SMALLEST = 1e-12  # under the root of a modulus, so that it has a gradient at 0


class Scattering(nn.Module):
    """Two scales, eight angles, second order: 81 maps a channel, a quarter as wide and high."""

    fine: Tensor
    coarse: Tensor
    blur: Tensor
    half_blur: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("fine", _wavelets(0))
        self.register_buffer("coarse", _wavelets(1))
        self.register_buffer("blur", _gaussian(1.6, 5))
        self.register_buffer("half_blur", _gaussian(0.8, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 81 C, H/4, W/4) of images (N, C, H, W), sides rounded up.

        What has gone through a coarse wavelet holds no fine detail: every second value of it, a row
        and a column, tells the rest.
        """
        channels = x.shape[1]
        x = x.flatten(0, 1).unsqueeze(1)  # (N C, 1, H, W): each channel for itself
        fine = _modulus(x, self.fine)  # (N C, 8, H, W)
        coarse = _modulus(x, self.coarse, stride=2)  # (N C, 8, H/2, W/2)
        both = _modulus(fine.flatten(0, 1).unsqueeze(1), self.coarse, stride=2)
        maps = [
            _convolve(x, self.blur, stride=4),
            _blurred(fine, self.blur, stride=4),
            _blurred(coarse, self.half_blur, stride=2),
            _blurred(both.reshape(-1, ANGLES**2, *both.shape[2:]), self.half_blur, stride=2),
        ]
        every = torch.cat(maps, 1)  # (N C, 81, H/4, W/4)
        return every.reshape(-1, channels * MAPS, *every.shape[2:])


def _convolve(x: Tensor, filters: Tensor, stride: int = 1) -> Tensor:
    """Return (N, filters, ...) of maps (N, 1, H, W), which go on at their edges as they end."""
    side = filters.shape[-1] // 2
    return F.conv2d(F.pad(x, (side,) * 4, mode="replicate"), filters, stride=stride)


def _modulus(x: Tensor, filters: Tensor, stride: int = 1) -> Tensor:
    """Return how strong each wave is, (N, 8, ...), in maps (N, 1, H, W)."""
    real, imaginary = _convolve(x, filters, stride).chunk(2, 1)
    return (real * real + imaginary * imaginary + SMALLEST).sqrt()


def _blurred(x: Tensor, blur: Tensor, stride: int) -> Tensor:
    """Return local means of maps (N, maps, H, W)."""
    each = _convolve(x.flatten(0, 1).unsqueeze(1), blur, stride)
    return each.reshape(-1, x.shape[1], *each.shape[2:])


def _wavelets(scale: int) -> Tensor:
    """Return Morlet wavelets (16, 1, K, K): real parts at eight angles, then imaginary ones.

    A plane wave under a Gaussian, less as much of the Gaussian as makes the mean 0.
    """
    deviation, frequency = 0.8 * 2**scale, 3 * math.pi / 4 / 2**scale
    side = math.ceil(REACH * deviation / SLANT)
    rows, columns = _grid(side)
    waves = []
    for number in range(ANGLES):
        angle = math.pi * number / ANGLES
        along = columns * math.cos(angle) + rows * math.sin(angle)
        across = rows * math.cos(angle) - columns * math.sin(angle)
        envelope = (-(along**2 + (SLANT * across) ** 2) / (2 * deviation**2)).exp()
        wave = torch.polar(envelope, frequency * along)
        wave = wave - envelope * (wave.sum() / envelope.sum())
        waves.append(wave * SLANT / (2 * math.pi * deviation**2))
    filters = torch.stack(waves)
    return torch.cat([filters.real, filters.imag]).unsqueeze(1).float()


def _gaussian(deviation: float, side: int) -> Tensor:
    """Return a blur (1, 1, K, K) whose sum is 1."""
    rows, columns = _grid(side)
    blur = (-(rows**2 + columns**2) / (2 * deviation**2)).exp()
    return (blur / blur.sum())[None, None].float()


def _grid(side: int) -> tuple[Tensor, Tensor]:
    ticks = torch.arange(-side, side + 1, dtype=torch.float64)
    rows, columns = torch.meshgrid(ticks, ticks, indexing="ij")
    return rows, columns


@ARCHITECTURES.register("scattering")
def scattering(shape: Shape, classes: int) -> nn.Module:
    """Return fixed wavelet features and a linear layer: 39,700 weights for MNIST."""
    channels, *sides = shape
    height, width = (min(-(-side // 4), WIDEST) for side in sides)
    shrink = max(sides) > 4 * WIDEST
    features = Fixed(
        Normalise(),
        Scattering(),
        *[nn.AdaptiveAvgPool2d((height, width))] * shrink,
        nn.GroupNorm(27 * channels, MAPS * channels, affine=False),  # no batch takes part
        nn.Flatten(),
    )
    return nn.Sequential(features, nn.Linear(MAPS * channels * height * width, classes))
