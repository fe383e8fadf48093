"""The layers that are no affine maps: activations that never fall, and the largest of a window.

Each says between which lines it lies while its input stays in a box: CROWN (Zhang et al. 2018,
arXiv:1811.00866) for any activation made of straight pieces.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from purpleteam.certify.boxes import Box, tiny, unit, unknown_as_infinite
from purpleteam.certify.layers import Layer, Pair


class Lines(NamedTuple):
    """Two lines for each neuron: below * x + floor <= layer(x) <= above * x + ceiling."""

    below: Tensor
    floor: Tensor
    above: Tensor
    ceiling: Tensor


class Activation(Layer):
    """A function of one number that never falls, applied to each neuron."""

    @abstractmethod
    def lines(self, box: Box) -> Lines:
        """Return the lines that hold over the box; below is the better of two by area."""

    @abstractmethod
    def bent(self, box: Box) -> Tensor:
        """Say for each input whether the function is no line over its interval."""


@dataclass(frozen=True, eq=False)
class Rectifier(Activation):
    """ReLU, leaky and parametric ReLU: x above 0, `slope` times x below; the slope in [0, 1]."""

    slope: Tensor

    def value(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        return F.relu(x) if self.plain else torch.maximum(x, self.slope * x)

    @cached_property
    def plain(self) -> bool:
        """Whether it is a ReLU, which costs a tenth of the general form with its gradient."""
        return not self.slope.requires_grad and not self.slope.any()

    def interval(self, *boxes: Box, rounding: bool = True, spare: bool = False) -> Box:
        (box,) = boxes
        if self.plain and rounding:
            least, reach = box.span  # before its memory is written
            cut = Box(*map(F.relu_ if spare else F.relu, box))
            return cut.within(max(least, 0.0), reach)
        lower, upper = map(self.value, box)
        if not rounding:
            return Box(lower, upper)
        lower = lower - 2 * unit(lower.dtype) * lower.abs() - tiny(lower.dtype)
        upper = upper + 2 * unit(lower.dtype) * upper.abs() + tiny(upper.dtype)
        return unknown_as_infinite(lower, upper)  # a slope of 0 times -inf

    def bent(self, box: Box) -> Tensor:
        return (box.lower < 0) & (box.upper > 0)

    def lines(self, box: Box) -> Lines:
        lower, upper = box
        open_ = (lower < 0) & (upper > 0)
        least = self.slope.expand_as(lower)
        wide = torch.where(open_, upper - lower, 1)
        above = torch.where(
            open_, (upper - least * lower) / wide, torch.where(lower >= 0, 1, least)
        )
        ceiling = torch.maximum(lower * (least - above), upper * (1 - above))
        slack = 8 * unit(lower.dtype) * above * torch.maximum(-lower, upper) + tiny(lower.dtype)
        ceiling = torch.where(open_, ceiling + slack, 0)
        below = torch.where(open_, torch.where(upper > -lower, 1, least), above)
        return Lines(below, torch.zeros_like(below), above, ceiling)


@dataclass(frozen=True, eq=False)
class Clip(Activation):
    """min(max(x, least), most): clamp, hardtanh, ReLU6; the ends as float32 has them."""

    least: float
    most: float

    def __post_init__(self) -> None:
        for name in ("least", "most"):
            object.__setattr__(self, name, float(np.float32(getattr(self, name))))

    @property
    def reach(self) -> float:
        """The magnitudes of its ends; one that is open changes nothing."""
        return sum(abs(end) for end in (self.least, self.most) if math.isfinite(end))

    def value(self, *inputs: Tensor) -> Tensor:
        return inputs[0].clamp(self.least, self.most)

    def bent(self, box: Box) -> Tensor:
        first, second = ((box.lower < at) & (box.upper > at) for at in (self.least, self.most))
        return first | second

    def lines(self, box: Box) -> Lines:
        lower, upper = box
        low, high = self.value(lower), self.value(upper)
        one, zero = torch.ones_like(lower), torch.zeros_like(lower)
        inside = (lower >= self.least) & (upper <= self.most)
        shut = (upper <= self.least) | (lower >= self.most)
        wide = (upper - lower).clamp_min(torch.finfo(lower.dtype).tiny)
        # The upper line goes through (lower, low) and the upper corner, or the right end before it;
        # the lower line mirrors that. Where the flat side is the larger one, the line is flat.
        before, after = upper <= self.most, lower >= self.least
        rise = torch.where(
            before,
            (high - low) / wide,
            (self.most - low) / (self.most - lower).clamp_min(torch.finfo(lower.dtype).tiny),
        )
        above = torch.where(before | (self.most - lower > upper - self.most), rise, zero)
        fall = torch.where(
            after,
            (high - low) / wide,
            (high - self.least) / (upper - self.least).clamp_min(torch.finfo(lower.dtype).tiny),
        )
        below = torch.where(after | (upper - self.least > self.least - lower), fall, zero)
        above, below = (
            torch.where(inside, one, torch.where(shut, zero, line)).clamp(0, 1)
            for line in (above, below)
        )
        # The intercepts are the least and most that the corners and ends allow: any slope is sound.
        points = [
            lower,
            upper,
            lower.clamp_min(self.least).minimum(upper),
            upper.clamp_max(self.most).maximum(lower),
        ]
        gaps = [(self.value(x) - above * x, self.value(x) - below * x) for x in points]
        slack = 8 * unit(lower.dtype) * (torch.maximum(-lower, upper).abs() + self.reach)
        ceiling = torch.stack([gap for gap, _ in gaps]).amax(0) + slack
        floor = torch.stack([gap for _, gap in gaps]).amin(0) - slack
        return Lines(below, floor, above, ceiling)


@dataclass(frozen=True, eq=False)
class MaxPool(Layer):
    """The largest of each window (kernel, stride), cells outside the image left out.

    `padding` is left, right, top, bottom.
    """

    kernel: Pair
    stride: Pair
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    def _padded(self, x: Tensor) -> Tensor:
        return F.pad(x, self.padding, value=-math.inf) if any(self.padding) else x

    def value(self, *inputs: Tensor) -> Tensor:
        return F.max_pool2d(self._padded(inputs[0]), self.kernel, self.stride)

    def bent(self, box: Box) -> Tensor:
        """Say for each input whether it is not known: any may decide a window."""
        return box.upper > box.lower

    def choices(self, box: Box) -> tuple[Tensor, Tensor, Tensor]:
        """Return for each window (N, C, H', W') the one whose lower bound is highest.

        As a place in the padded image; whether no other can be larger; and the upper bound.
        """
        lower, upper = self._padded(box.lower), self._padded(box.upper)
        top, place = F.max_pool2d(lower, self.kernel, self.stride, return_indices=True)
        cells = F.unfold(
            upper.nan_to_num(neginf=torch.finfo(upper.dtype).min), self.kernel, stride=self.stride
        )
        n, channels = upper.shape[:2]
        size = self.kernel[0] * self.kernel[1]
        cells = cells.reshape(n, channels, size, -1)
        places = torch.arange(
            upper.shape[2] * upper.shape[3], device=upper.device, dtype=upper.dtype
        )
        window = F.unfold(places.reshape(1, 1, *upper.shape[2:]), self.kernel, stride=self.stride)
        own = window.long()[:, None] == place.flatten(2)[:, :, None]
        others = cells.masked_fill(own, -math.inf).amax(2).reshape(top.shape)
        return place, others <= top, cells.amax(2).reshape(top.shape)

    def transpose(self, form: Tensor, place: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return forms (N, S, C, H', W') put at the chosen places, as forms of the input."""
        left, right, top, bottom = self.padding
        height, width = shape[1] + top + bottom, shape[2] + left + right
        n, rows, channels = form.shape[:3]
        put = form.new_zeros(n, rows, channels, height * width)
        places = place.flatten(2)[:, None].expand(n, rows, channels, -1)
        put.scatter_add_(3, places, form.flatten(3))
        put = put.reshape(n, rows, channels, height, width)
        return put[..., top : top + shape[1], left : left + shape[2]]
