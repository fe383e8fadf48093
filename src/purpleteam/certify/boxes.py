"""Boxes of neurons, and how far the numbers that make them are off.

Numbers are computed in float32 or float64, and the error of computing them is added: a sum of n
products is off by at most gamma(n) times the sum of their magnitudes, in any order of adding
(Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.1). What underflows is off
by less than the smallest normal number for each product; what overflows is not known at all.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

UNITS = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}
LIMIT, KNOWN = 2.0**48, 2.0**24  # no sum below it overflows; a span below it is carried on
SAFETY = 2.0  # on gamma: fast convolutions add and multiply a little more than the sum says


class Box(NamedTuple("Box", [("lower", Tensor), ("upper", Tensor)])):
    """Intervals [lower, upper], (N, ...), one for each neuron of each image."""

    @cached_property
    def span(self) -> tuple[float, float]:
        """What no end is below, and what no magnitude is above: measured, unless `within` told."""
        if not self.lower.numel():
            return 0.0, 0.0
        least = self.lower.amin()
        return float(least), float(torch.maximum(-least, self.upper.amax()))

    def within(self, least: float, reach: float) -> Box:
        self.__dict__["span"] = least, reach
        return self

    @cached_property
    def magnitude(self) -> Tensor:
        """The largest absolute value in each interval."""
        return torch.maximum(-self.lower, self.upper)

    def meet(self, other: Box) -> Box:
        """Return what both say; each is right, so both are."""
        return Box(torch.maximum(self.lower, other.lower), torch.minimum(self.upper, other.upper))

    def rows(self, rows: Tensor | slice) -> Box:
        return Box(self.lower[rows], self.upper[rows])


def unknown_as_infinite(lower: Tensor, upper: Tensor) -> Box:
    """Return a box in which an end that is no number, as of inf - inf, holds everything."""
    inf = math.inf
    return Box(lower.nan_to_num(-inf, inf, -inf), upper.nan_to_num(inf, inf, -inf))


def unit(dtype: torch.dtype) -> float:
    """Return the unit roundoff of a number format."""
    return UNITS[dtype]


def tiny(dtype: torch.dtype) -> float:
    """Return the smallest normal number of a format: a product that underflows is off by less."""
    return torch.finfo(dtype).tiny


def gamma(terms: int, dtype: torch.dtype) -> float:
    """Return the relative error of a sum of `terms` products."""
    return SAFETY * (terms + 2) * unit(dtype)
