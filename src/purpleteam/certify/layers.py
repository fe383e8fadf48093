"""The affine layers that bounds go through: values, boxes, and forms brought back to the input.

A linear form in the output of an affine layer is one in its input, exactly.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter

from purpleteam.certify.boxes import (
    KNOWN,
    LIMIT,
    Box,
    gamma,
    tiny,
    unit,
    unknown_as_infinite,
)

if TYPE_CHECKING:
    from purpleteam.certify.scaling import Scaling

Pair = tuple[int, int]


def sizes(weight: Tensor, factor: float) -> Tensor:
    """Return |W| times a factor, in the same layout: products of two layouts add up slowly."""
    return (weight * factor).abs_()


@dataclass(frozen=True, eq=False)
class Layer(ABC):
    """One layer; its tensors are those of the net, so gradients reach them."""

    affine: ClassVar[bool] = False

    @abstractmethod
    def value(self, *inputs: Tensor) -> Tensor:
        """Return the output (N, ...) for inputs (N, ...)."""

    def interval(self, *boxes: Box, rounding: bool = True, spare: bool = False) -> Box:
        """Return a box that holds all outputs for inputs in the boxes: here, it never falls.

        With `spare` the boxes are of no use any more, and their memory may be written.
        """
        return Box(*(self.value(*ends) for ends in zip(*boxes, strict=True)))

    def to(self, dtype: torch.dtype, device: torch.device | None = None) -> Self:
        """Return the layer with its tensors in another number format."""
        moved = {
            part.name: value.detach().to(device=device, dtype=dtype)
            for part in fields(self)
            if isinstance(value := getattr(self, part.name), Tensor) and part.name != "exact"
        }
        return replace(self, **moved)


class Outward(NamedTuple):
    """What makes the width of a layer larger by all that is off."""

    error: float
    sizes: Tensor  # |W|, larger
    slack: Tensor
    gain: float  # most that a magnitude of the input is multiplied by, and `shift` added
    shift: float
    underflow: float  # of a sum of products whose factors are at most 1


class Affine(Layer):
    """A layer out = W x + b, of one input unless `inputs` says more."""

    affine: ClassVar[bool] = True
    offset: Tensor | None

    @abstractmethod
    def product(self, x: Tensor, weight: Tensor, offset: Tensor | None = None) -> Tensor:
        """Return weight x + offset for x (N, ...); both are shaped as the layer's own."""

    def value(self, *inputs: Tensor) -> Tensor:
        return self.product(inputs[0], self.kind, self.offset)

    def weigh(self, x: Tensor) -> Tensor:
        """Return |W| x for x (N, ...) at least 0."""
        return self.product(x, self.once("sizes", lambda: sizes(self.kind, 1.0)))

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what is made of the weight; of a net that is cut off from its parameters once."""
        kept = self.__dict__.get(f"_{name}")
        if kept is None:
            kept = make()
            if not (self.kind.requires_grad or isinstance(self.kind, Parameter)):
                self.__dict__[f"_{name}"] = kept
        return kept

    @abstractmethod
    def transpose(self, form: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return W^T a for forms a (R, ...) in the output; `shape` is that of the input."""

    @property
    @abstractmethod
    def kind(self) -> Tensor:
        """A tensor that has the number format and the device of the layer."""

    @property
    @abstractmethod
    def terms(self) -> Pair:
        """How many products an output, and an entry of the transpose, adds up."""

    @property
    def bias(self) -> Tensor | None:
        """The part b, in the shape of an output or of what broadcasts to it."""
        return self.offset

    @property
    def summed(self) -> Tensor | None:
        """The magnitudes that the offset was added up from, in its shape: by them it is rounded."""
        return None if self.offset is None else self.offset.abs()

    @property
    def bias_summed(self) -> Tensor | None:
        """`summed` in the shape of `bias`."""
        return self.summed

    def interval(self, *boxes: Box, rounding: bool = True, spare: bool = False) -> Box:
        ((lower, upper),) = boxes
        half = self.once("half", lambda: 0.5 * self.kind)
        if not rounding:
            middle = self.product(lower + upper, half, self.offset)
            radius = self.product(upper - lower, self.once("wide", lambda: sizes(self.kind, 0.5)))
            return Box(middle - radius, middle + radius)
        # With e for `error`: the middle and the ends are off by at most e (|W| |total| / 2 + |b|),
        # the radius by e of itself. So it has to be |W| (upper - lower + e |total|) / 2 + e |b|
        # times 1 + 2 e, where e <= 1/16. The weight that makes twice that is |W| times 1 + 4 e, and
        # (1 + 4 e) (1 - e) >= 1 + 2 e. Of ends at least 0, one pass makes enough: (1 + e) upper -
        # (1 - e) lower <= (1 + 2 e) (upper - (1 - 4 e) lower), with e / 4 for its own rounding.
        by = self.once("outward", self._outward)
        least, reach = boxes[0].span
        # Memory that was written is faster than new memory: so the ends are made where their parts
        # were, and the total of the width and the lower end, which is off by 3 roundings of itself
        # and of the width.
        near = 1 - 4 * by.error if least >= 0 else 1.0
        wide = torch.sub(upper, lower, alpha=near, out=upper if spare else None)
        total = torch.add(wide, lower, alpha=1 + near, out=lower if spare else None)
        if not least >= 0:
            wide.add_(total.abs(), alpha=2 * by.error)
        middle = self.product(total, half, self.offset)
        width = self.product(wide, by.sizes, by.slack)
        most = 4 * (by.gain * max(reach, 1.0) + by.shift)
        if reach <= LIMIT and most <= LIMIT:
            lower = middle.sub_(width, alpha=0.5)
            box = Box(lower, width.add_(lower))
            return box.within(-most, most) if most <= KNOWN else box
        # Something may overflow, and stays infinite or NaN; or underflow by more than `slack` has.
        most = torch.finfo(middle.dtype).max
        radius = 0.5 * width + by.underflow * (1 + (reach if reach < most else most) + by.gain)
        lower, upper = middle - radius, middle.add_(radius)
        inf = math.inf  # an end beyond all numbers tells nothing of that side
        return Box(lower.nan_to_num(-inf, -inf, -inf), upper.nan_to_num(inf, inf, inf))

    def _gain(self) -> float:
        """Return the most that |W| makes of inputs that are at most 1, but for rounding."""
        return self.terms[0] * float(self.kind.detach().abs().max())

    def _outward(self) -> Outward:
        weight, terms, dtype = self.kind.detach(), self.terms[0], self.kind.dtype
        error = gamma(terms, dtype) + 8 * unit(dtype)
        offset = weight.new_zeros(weight.shape[:1] if isinstance(self, Linear) else ())
        offset = offset if self.summed is None else self.summed.detach()
        underflow = 8 * (terms + 2) * tiny(dtype) if error <= 1 / 16 else math.inf
        slack = 4 * error * offset + 2 * underflow * LIMIT
        gain, shift = self._gain(), float((offset + slack).max())
        return Outward(error, sizes(weight, 1 + 4 * error), slack, gain, shift, underflow)


@dataclass(frozen=True, eq=False)
class Linear(Affine):
    """A layer with a weight (outputs, ...) and an offset (outputs,)."""

    weight: Tensor
    offset: Tensor | None = None
    parts: Tensor | None = field(default=None, kw_only=True)
    """`summed`, where the offset is the sum of several (outputs,)."""
    exact: Tensor | None = field(default=None, kw_only=True)
    """What the weight was rounded from, in float64: of two rows, the difference may be less."""

    def scaled(self, scaling: Scaling) -> Self:
        """Return it with a scaling of its outputs after it, as one layer."""
        factor, offset = scaling.factor.flatten(), scaling.offset
        shift = torch.zeros_like(factor) if offset is None else offset.flatten()
        moved = shift if self.offset is None else self.offset * factor + shift
        sides = (-1, *(1,) * (self.weight.ndim - 1))
        return replace(self, weight=self.weight * factor.reshape(sides), offset=moved)

    def _gain(self) -> float:
        return float(self.weight.detach().abs().flatten(1).sum(1).max())

    @property
    def kind(self) -> Tensor:
        return self.weight

    @property
    def summed(self) -> Tensor | None:
        return super().summed if self.parts is None else self.parts

    @abstractmethod
    def rows(self, neurons: Tensor, shape: tuple[int, ...], out: tuple[int, ...]) -> Tensor:
        """Return the rows of W (R, *shape) of neurons (R,), by their number in an output `out`."""


@dataclass(frozen=True, eq=False)
class Dense(Linear):
    """A linear layer: weight (outputs, inputs), offset (outputs,)."""

    def product(self, x: Tensor, weight: Tensor, offset: Tensor | None = None) -> Tensor:
        return F.linear(x, weight, offset)

    def transpose(self, form: Tensor, shape: tuple[int, ...]) -> Tensor:
        return form @ self.weight

    def rows(self, neurons: Tensor, shape: tuple[int, ...], out: tuple[int, ...]) -> Tensor:
        return self.weight[neurons]

    @property
    def terms(self) -> Pair:
        return self.weight.shape[1], self.weight.shape[0]


@dataclass(frozen=True, eq=False)
class Convolution(Linear):
    """A convolution, or an average pooling: weight (out, in / groups, rows, columns)."""

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def apart(self, out: tuple[int, ...]) -> bool:
        """Whether no input goes to two outputs, of shape `out`, and nothing is added: a mean."""
        sides = zip(out[1:], self.weight.shape[2:], self.stride, self.dilation, strict=True)
        alone = self.weight.shape[1] == 1 and self.weight.shape[0] == self.groups
        split = all(places == 1 or (k <= s and d == 1) for places, k, s, d in sides)
        return alone and self.offset is None and split

    def product(self, x: Tensor, weight: Tensor, offset: Tensor | None = None) -> Tensor:
        return F.conv2d(x, weight, offset, self.stride, self.padding, self.dilation, self.groups)

    def transpose(self, form: Tensor, shape: tuple[int, ...]) -> Tensor:
        (out, within, *_), side = self.weight.shape, (shape[-2], shape[-1])
        if self.groups == 1 and within < out // 8:  # few channels: most time is in the adding up
            parts = self.weight.reshape(out, -1).T @ form.flatten(2)
            kernel = (self.weight.shape[2], self.weight.shape[3])
            return F.fold(parts, side, kernel, self.dilation, self.padding, self.stride)
        sides = zip(
            side, self.stride, self.padding, self.dilation, self.weight.shape[2:], strict=True
        )
        left = [(have + 2 * pad - wide * (k - 1) - 1) % step for have, step, pad, wide, k in sides]
        return F.conv_transpose2d(
            form, self.weight, None, self.stride, self.padding, left, self.groups, self.dilation
        )

    def rows(self, neurons: Tensor, shape: tuple[int, ...], out: tuple[int, ...]) -> Tensor:
        # Each is the kernel of its channel, put where its window lies in the padded image.
        height, width = out[1:]
        channel, place = neurons // (height * width), neurons % (height * width)
        kernels = self.weight[channel]  # (R, in / groups, rows, columns)
        within, group = self.weight.shape[1], channel // (self.weight.shape[0] // self.groups)
        padded = [side + 2 * pad for side, pad in zip(shape[1:], self.padding, strict=True)]
        forms = kernels.new_zeros(len(neurons), shape[0], *padded)
        steps = [torch.arange(side, device=neurons.device) for side in kernels.shape[1:]]
        tops = (place // width * self.stride[0])[:, None, None, None]
        lefts = (place % width * self.stride[1])[:, None, None, None]
        forms[
            torch.arange(len(neurons), device=neurons.device)[:, None, None, None],
            (group * within)[:, None, None, None] + steps[0][:, None, None],
            tops + self.dilation[0] * steps[1][:, None],
            lefts + self.dilation[1] * steps[2],
        ] = kernels
        rows, columns = (
            slice(pad, pad + side) for pad, side in zip(self.padding, shape[1:], strict=True)
        )
        return forms[:, :, rows, columns]

    @property
    def terms(self) -> Pair:
        out, within, rows, columns = self.weight.shape
        return within * rows * columns, out // self.groups * rows * columns

    @property
    def bias(self) -> Tensor | None:
        return None if self.offset is None else self.offset[:, None, None]

    @property
    def bias_summed(self) -> Tensor | None:
        return None if self.summed is None else self.summed[:, None, None]


@dataclass(frozen=True, eq=False)
class Rearranged(Layer):
    """The same numbers in another shape or order: flatten, reshape, permute."""

    affine: ClassVar[bool] = True

    shape: tuple[int, ...]
    order: tuple[int, ...] | None = None  # of the axes after the first, before they are reshaped

    def value(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        if self.order is not None:
            x = x.permute(0, *(axis + 1 for axis in self.order))
        return x.reshape(len(x), *self.shape)

    def interval(self, *boxes: Box, rounding: bool = True, spare: bool = False) -> Box:
        box = super().interval(*boxes)
        return box.within(*boxes[0].span) if rounding else box

    def transpose(self, form: Tensor, shape: tuple[int, ...]) -> Tensor:
        if self.order is None:
            return form.reshape(len(form), *shape)
        form = form.reshape(len(form), *(shape[axis] for axis in self.order))
        back = sorted(range(len(self.order)), key=self.order.__getitem__)
        return form.permute(0, *(axis + 1 for axis in back))


@dataclass(frozen=True, eq=False)
class Sum(Layer):
    """The sum of several inputs: residual connections."""

    affine: ClassVar[bool] = True

    def value(self, *inputs: Tensor) -> Tensor:
        return sum(inputs[1:], inputs[0])

    def interval(self, *boxes: Box, rounding: bool = True, spare: bool = False) -> Box:
        lower, upper = (self.value(*sides) for sides in zip(*boxes, strict=True))
        if rounding:
            slack = self.value(*(box.magnitude for box in boxes))
            slack = slack * (2 * len(boxes) * unit(slack.dtype))
            lower, upper = lower - slack, upper + slack
        return unknown_as_infinite(lower, upper)


@dataclass(frozen=True, eq=False)
class Stacked(Layer):
    """Inputs one after the other along the first axis of an image: dense connections."""

    affine: ClassVar[bool] = True

    sizes: tuple[int, ...]

    def value(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, 1)
