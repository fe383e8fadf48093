"""Each neuron times a factor, plus an offset: normalisations, by a batch's statistics too."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from purpleteam.certify.boxes import KNOWN, Box, tiny, unit
from purpleteam.certify.layers import Affine, Pair

ORDINARY = 2.0**100


def ordinary(factor: Tensor) -> bool:
    """Return whether no factor is so small or large that a product of a few is no number."""
    size = factor.abs()
    return bool(((size == 0) | ((size >= 1 / ORDINARY) & (size <= ORDINARY))).all())


@dataclass(frozen=True, eq=False)
class Scaling(Affine):
    """Each neuron times a factor, plus an offset: normalisations, constants; both broadcast."""

    factor: Tensor
    offset: Tensor | None = None

    def product(self, x: Tensor, weight: Tensor, offset: Tensor | None = None) -> Tensor:
        return x * weight if offset is None else torch.addcmul(offset, x, weight)

    def interval(self, *boxes: Box, rounding: bool = True, spare: bool = False) -> Box:
        _, reach = boxes[0].span
        rises, gain, shift = self.once("rise", self._rise)
        most = 2 * (gain * reach + shift) + unit(self.factor.dtype)
        if not (rounding and rises and most <= KNOWN):
            return super().interval(*boxes, rounding=rounding, spare=spare)
        # Each end is a few roundings off: of factor and offset, where they were folded, of the
        # product, the sum, and the offset of that end.
        exponent = math.frexp(reach)[1]
        ends = self.once(f"ends {exponent}", lambda: self._ends(2.0**exponent))
        lower, upper = (
            torch.addcmul(offset, end, self.factor, out=end if spare else None)
            for offset, end in zip(ends, boxes[0], strict=True)
        )
        return Box(lower, upper).within(-most, most)

    def _rise(self) -> tuple[bool, float, float]:
        """Return whether no factor is below 0, and the largest factor and offset."""
        shift = 0.0 if self.offset is None else float(self.offset.detach().abs().max())
        factor = self.factor.detach()
        return bool((factor >= 0).all()), float(factor.abs().max()), shift

    def _ends(self, reach: float) -> tuple[Tensor, Tensor]:
        """Return the offsets of the lower and of the upper end, where no input is above `reach`."""
        factor = self.factor.detach()
        offset = torch.zeros_like(factor) if self.offset is None else self.offset.detach()
        slack = 8 * unit(factor.dtype) * (factor * reach + offset.abs()) + 8 * tiny(
            factor.dtype
        ) * (1 + reach)
        return offset - slack, offset + slack

    def behind(self, other: Scaling) -> Scaling | None:
        """Return it and another after it as one; None where two offsets might cancel."""
        if self.offset is not None and other.offset is not None:
            return None
        factor = self.factor * other.factor
        offset = other.offset if self.offset is None else self.offset * other.factor
        return Scaling(factor, offset) if ordinary(factor) else None

    def transpose(self, form: Tensor, shape: tuple[int, ...]) -> Tensor:
        return form * self.factor

    @property
    def kind(self) -> Tensor:
        return self.factor

    @property
    def terms(self) -> Pair:
        return 1, 1


@dataclass(frozen=True, eq=False)
class BatchNorm(Scaling):
    """A batch normalisation; factor and offset are by the statistics that the net had when read."""

    weight: Tensor | None = None  # (C,), as `shift`
    shift: Tensor | None = None
    stabiliser: float = 1e-5

    def by(self, mean: Tensor, variance: Tensor, axes: int) -> Self:
        """Return it by the mean and variance (C,) of its channels; an image has `axes` axes."""
        factor = (variance.double() + self.stabiliser).rsqrt()
        factor = factor if self.weight is None else factor * self.weight
        offset = -mean * factor if self.shift is None else self.shift - mean * factor
        sides = (-1, *(1,) * (axes - 1))
        factor, offset = (part.to(mean.dtype).reshape(sides) for part in (factor, offset))
        return replace(self, factor=factor, offset=offset)

    def by_batch(self, x: Tensor) -> Self:
        """Return it by the statistics of a batch (N, C, ...), through which gradients go."""
        others = [axis for axis in range(x.ndim) if axis != 1]
        variance, mean = torch.var_mean(x, others, correction=0)
        return self.by(mean, variance, x.ndim - 1)
