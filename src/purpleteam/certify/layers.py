"""The affine layers that bounds go through: values, boxes, and forms brought back to the input.

A linear form in the output of an affine layer is one in its input, exactly.

Numbers are computed in float32 or float64, and the error of computing them is added: a sum of n
products is off by at most gamma(n) times the sum of their magnitudes, in any order of adding
(Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.1). What underflows is off
by less than the smallest normal number for each product; what overflows is not known at all.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter

Pair = tuple[int, int]
UNITS = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}
SAFETY = 2.0  # on gamma: fast convolutions add and multiply a little more than the sum says


class Box(NamedTuple):
    """Intervals [lower, upper], (N, ...), one for each neuron of each image."""

    lower: Tensor
    upper: Tensor

    @property
    def magnitude(self) -> Tensor:
        """The largest absolute value in each interval."""
        return torch.maximum(-self.lower, self.upper)

    def meet(self, other: Box) -> Box:
        """Return what both say; each is right, so both are."""
        return Box(torch.maximum(self.lower, other.lower), torch.minimum(self.upper, other.upper))

    def rows(self, rows: Tensor | slice) -> Box:
        return Box(self.lower[rows], self.upper[rows])


def unit(dtype: torch.dtype) -> float:
    """Return the unit roundoff of a number format."""
    return UNITS[dtype]


def tiny(dtype: torch.dtype) -> float:
    """Return the smallest normal number of a format: a product that underflows is off by less."""
    return torch.finfo(dtype).tiny


def gamma(terms: int, dtype: torch.dtype) -> float:
    """Return the relative error of a sum of `terms` products."""
    return SAFETY * (terms + 2) * unit(dtype)


@dataclass(frozen=True, eq=False)
class Layer(ABC):
    """One layer; its tensors are those of the net, so gradients reach them."""

    affine: ClassVar[bool] = False

    @abstractmethod
    def value(self, *inputs: Tensor) -> Tensor:
        """Return the output (N, ...) for inputs (N, ...)."""

    @abstractmethod
    def interval(self, *boxes: Box, rounding: bool = True) -> Box:
        """Return a box that holds the output for all inputs in the boxes."""

    def to(self, dtype: torch.dtype, device: torch.device | None = None) -> Self:
        """Return the layer with its tensors in another number format."""
        moved = {
            part.name: value.detach().to(device=device, dtype=dtype)
            for part in fields(self)
            if isinstance(value := getattr(self, part.name), Tensor)
        }
        return replace(self, **moved)


class Affine(Layer):
    """A layer out = W x + b, of one input unless `inputs` says more."""

    affine: ClassVar[bool] = True
    offset: Tensor | None

    def sizes(self, weight: Tensor) -> Tensor:
        """Return |W|; of a net that is cut off from its parameters it is computed once."""
        if weight.requires_grad or isinstance(weight, Parameter):
            return weight.abs()
        if "_sizes" not in self.__dict__:
            self.__dict__["_sizes"] = weight.abs()
        kept: Tensor = self.__dict__["_sizes"]
        return kept

    @abstractmethod
    def weigh(self, x: Tensor, offset: Tensor | None = None) -> Tensor:
        """Return |W| x + offset for x (N, ...) at least 0; the offset is shaped as the layer's."""

    @abstractmethod
    def transpose(self, form: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return W^T a for forms a (R, ...) in the output; `shape` is that of the input."""

    def rows(self, neurons: Tensor, shape: tuple[int, ...], out: tuple[int, ...]) -> Tensor:
        """Return the rows of W (R, *shape) of neurons (R,), by their number in an output `out`."""
        one = torch.zeros(
            len(neurons), math.prod(out), dtype=self.kind.dtype, device=self.kind.device
        )
        one.scatter_(1, neurons[:, None], 1)
        return self.transpose(one.reshape(-1, *out), shape)

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
        return None

    def interval(self, *boxes: Box, rounding: bool = True) -> Box:
        (box,) = boxes
        centre = (box.lower + box.upper).mul_(0.5)
        radius = box.upper - centre
        if not rounding:
            middle, radius = self.value(centre), self.weigh(radius)
            return Box(middle - radius, middle + radius)
        # What is off: the centre and the radius by their rounding, the value at the centre by at
        # most `error` times |W| |centre| + |b|, and the product with the radius likewise. |centre|
        # and radius together are the magnitude, so one product with |W| carries all of it.
        dtype, offset = centre.dtype, self.offset
        error = gamma(self.terms[0], dtype) + 8 * unit(dtype)
        radius.add_(box.magnitude.mul_(4 * error))
        middle = self.value(centre)
        radius = self.weigh(radius, None if offset is None else error * offset.abs())
        radius = radius + 4 * (self.terms[0] + 2) * tiny(dtype)
        lower, upper, inf = middle - radius, middle.add_(radius), math.inf
        return Box(lower.nan_to_num(-inf, -inf, -inf), upper.nan_to_num(inf, inf, inf))


@dataclass(frozen=True, eq=False)
class Linear(Affine):
    """A layer with a weight (outputs, ...) and an offset (outputs,)."""

    weight: Tensor
    offset: Tensor | None = None

    def scaled(self, scaling: Scaling) -> Self:
        """Return it with a scaling of its outputs after it, as one layer."""
        factor, offset = scaling.factor.flatten(), scaling.offset
        shift = torch.zeros_like(factor) if offset is None else offset.flatten()
        moved = shift if self.offset is None else self.offset * factor + shift
        sides = (-1, *(1,) * (self.weight.ndim - 1))
        return replace(self, weight=self.weight * factor.reshape(sides), offset=moved)

    @property
    def kind(self) -> Tensor:
        return self.weight


@dataclass(frozen=True, eq=False)
class Dense(Linear):
    """A linear layer: weight (outputs, inputs), offset (outputs,)."""

    def value(self, *inputs: Tensor) -> Tensor:
        return F.linear(inputs[0], self.weight, self.offset)

    def weigh(self, x: Tensor, offset: Tensor | None = None) -> Tensor:
        return F.linear(x, self.sizes(self.weight), offset)

    def transpose(self, form: Tensor, shape: tuple[int, ...]) -> Tensor:
        return form @ self.weight

    def rows(self, neurons: Tensor, shape: tuple[int, ...], out: tuple[int, ...]) -> Tensor:
        return self.weight[neurons]

    @property
    def terms(self) -> Pair:
        return self.weight.shape[1], self.weight.shape[0]

    @property
    def bias(self) -> Tensor | None:
        return self.offset


@dataclass(frozen=True, eq=False)
class Convolution(Linear):
    """A convolution, or an average pooling: weight (out, in / groups, rows, columns)."""

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def value(self, *inputs: Tensor) -> Tensor:
        return self._with(inputs[0], self.weight, self.offset)

    def weigh(self, x: Tensor, offset: Tensor | None = None) -> Tensor:
        return self._with(x, self.sizes(self.weight), offset)

    def _with(self, x: Tensor, weight: Tensor, offset: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, offset, self.stride, self.padding, self.dilation, self.groups)

    def transpose(self, form: Tensor, shape: tuple[int, ...]) -> Tensor:
        reached = [
            (out - 1) * step - 2 * pad + wide * (kernel - 1) + 1
            for out, step, pad, wide, kernel in zip(
                form.shape[-2:],
                self.stride,
                self.padding,
                self.dilation,
                self.weight.shape[-2:],
                strict=True,
            )
        ]
        left = tuple(side - have for side, have in zip(shape[-2:], reached, strict=True))
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


@dataclass(frozen=True, eq=False)
class Scaling(Affine):
    """Each neuron times a factor, plus an offset: normalisations, constants; both broadcast."""

    factor: Tensor
    offset: Tensor | None = None

    def value(self, *inputs: Tensor) -> Tensor:
        scaled = inputs[0] * self.factor
        return scaled if self.offset is None else scaled + self.offset

    def weigh(self, x: Tensor, offset: Tensor | None = None) -> Tensor:
        scaled = x * self.factor.abs()
        return scaled if offset is None else scaled + offset

    def transpose(self, form: Tensor, shape: tuple[int, ...]) -> Tensor:
        return form * self.factor

    @property
    def kind(self) -> Tensor:
        return self.factor

    @property
    def terms(self) -> Pair:
        return 1, 1

    @property
    def bias(self) -> Tensor | None:
        return self.offset


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

    def interval(self, *boxes: Box, rounding: bool = True) -> Box:
        return Box(self.value(boxes[0].lower), self.value(boxes[0].upper))

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

    def interval(self, *boxes: Box, rounding: bool = True) -> Box:
        lower, upper = (self.value(*sides) for sides in zip(*boxes, strict=True))
        if rounding:
            slack = self.value(*(box.magnitude for box in boxes))
            slack = slack * (2 * len(boxes) * unit(slack.dtype))
            lower, upper = lower - slack, upper + slack
        return Box(lower, upper)


@dataclass(frozen=True, eq=False)
class Stacked(Layer):
    """Inputs one after the other along the first axis of an image: dense connections."""

    affine: ClassVar[bool] = True

    sizes: tuple[int, ...]

    def value(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, 1)

    def interval(self, *boxes: Box, rounding: bool = True) -> Box:
        return Box(*(self.value(*sides) for sides in zip(*boxes, strict=True)))
