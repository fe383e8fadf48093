"""Sound bounds of what a net answers for every image in a box.

- `intervals`   IBP (Gowal et al. 2018, arXiv:1810.12715): a box for each layer
- `lower_bound` CROWN (Zhang et al. 2018, arXiv:1811.00866): a linear form in the logits, brought
  back layer by layer to the image; behind intervals it is CROWN-IBP (arXiv:1906.06316)

With `rounding` the error of the arithmetic is added: the bounds hold in the reals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from purpleteam.certify.bends import Activation, Lines, MaxPool, Rectifier
from purpleteam.certify.boxes import Box, gamma, tiny, unit
from purpleteam.certify.layers import Affine, Dense, Rearranged, Stacked, Sum
from purpleteam.certify.network import Network

MOST = 32  # classes of which each is compared with each, by one more layer
FEW = 8  # most layers in a row that scale, which a single neuron goes back through at once
Boxes = list[Box]  # one for each node of a net, the image's first


def ball(x: Tensor, epsilon: float) -> Box:
    """Return the L-infinity ball around images (N, C, H, W), cut to [0, 1], rounded outward."""
    reach = epsilon + 4 * unit(x.dtype)
    return Box((x - reach).clamp_min_(0), (x + reach).clamp_max_(1)).within(0.0, 1.0)


def intervals(network: Network, box: Box, *, at: int = 0, rounding: bool = True) -> Boxes:
    """Return a box for each node, by interval bound propagation.

    `box` is that of node `at`: of the image, or up to the net's `root`; earlier ones get it too.
    """
    boxes = [box] * (at + 1)
    for node in network.nodes[at:]:
        inputs = (boxes[source] for source in node.inputs)
        boxes.append(node.layer.interval(*inputs, rounding=rounding))
    return boxes


def last_box(network: Network, box: Box, at: int) -> Box:
    """Return the box of node `at` alone, by interval bound propagation from that of the image.

    The memory of others is written again, which takes less time than new memory.
    """
    boxes = {0: box}
    for number, (spare, done) in enumerate(network.memory[:at], 1):
        layer, inputs = network[number].layer, network[number].inputs
        boxes[number] = layer.interval(*(boxes[one] for one in inputs), spare=spare)
        for one in done:
            del boxes[one]
    return boxes[at]


def interval_margins(network: Network, box: Box, labels: Tensor) -> Tensor:
    """Return what `elided` does of all boxes of images in a box; in less memory, and faster."""
    if _is_led(network):
        return _led(network, last_box(network, box, network.nodes[-1].inputs[0]), labels, True)
    return elided(network, intervals(network, box), labels)


def elided(network: Network, boxes: Boxes, labels: Tensor, *, rounding: bool = True) -> Tensor:
    """Return IBP's lower bounds (N, classes - 1) of margins, the last layer of the net elided."""
    if _is_led(network):
        return _led(network, boxes[network.nodes[-1].inputs[0]], labels, rounding)
    form = margins(labels, network.classes)
    return lower_bound(network, boxes, form, elide=True, rounding=rounding)


def _is_led(network: Network) -> bool:
    """Say whether the last layer takes what is bent: then one more layer compares its outputs."""
    last = network.nodes[-1]
    before = last.inputs[0]
    while before > network.root and isinstance(network[before].layer, Rearranged):
        before = network[before].inputs[0]
    mixed = before > network.root and network[before].layer.affine
    return isinstance(last.layer, Dense) and not mixed and network.classes <= MOST


def _led(network: Network, box: Box, labels: Tensor, rounding: bool) -> Tensor:
    classes, layer = network.classes, cast("Dense", network.nodes[-1].layer)
    leads: Dense = layer.once("leads", lambda: _leads(layer))
    places: Tensor = layer.once("places", lambda: _places(classes, labels.device))
    return leads.interval(box, rounding=rounding).lower.gather(1, places[labels])


def _leads(layer: Dense) -> Dense:
    """Return a layer of the leads of each class over each; `interval` has room for its rounding."""
    weight, offset = layer.weight, layer.offset
    exact = weight if layer.exact is None else layer.exact  # of which the lead is rounded once
    weights = (exact[:, None] - exact).flatten(0, 1).to(weight.dtype)
    if offset is None or layer.summed is None:
        return Dense(weights)
    parts = (layer.summed[:, None] + layer.summed).flatten()
    return Dense(weights, (offset[:, None] - offset).flatten(), parts=parts)


def _places(classes: int, device: torch.device) -> Tensor:
    """Return (classes, classes - 1) where among all leads those of each class lie."""
    each = torch.arange(classes, device=device)
    return each[:, None] * classes + _others(each, classes)


def _others(labels: Tensor, classes: int) -> Tensor:
    """Return (N, classes - 1) the classes that are not the labels, in order."""
    places = torch.arange(classes - 1, device=labels.device).expand(len(labels), -1)
    return places + (places >= labels[:, None])


def margins(labels: Tensor, classes: int, columns: Tensor | None = None) -> Tensor:
    """Return forms (N, classes - 1, classes), or of columns (N, S): label minus others."""
    eye = torch.eye(classes, device=labels.device)
    other = _others(labels, classes)
    other = other if columns is None else other.gather(1, columns)
    return eye[labels][:, None] - eye[other]


@dataclass
class Choices:
    """What is free in a linear bound: slopes of lower lines, and multipliers of split neurons.

    By number of the node that an activation takes: (N, S or 1, ...).
    """

    slopes: dict[int, Tensor] = field(default_factory=dict)
    multipliers: dict[int, Tensor] = field(default_factory=dict)


def lower_bound(
    network: Network,
    boxes: Boxes,
    form: Tensor,
    at: int | None = None,
    *,
    choices: Choices | None = None,
    elide: bool = False,
    rounding: bool = True,
) -> Tensor:
    """Return a lower bound (N, S) of linear forms (N, S, *shape) in the output of node `at`.

    Args:
        network: the net, in the number format of the boxes.
        boxes: of each node, sound for the same N images.
        form: what is bounded; the last node's margins, say.
        at: the node; the logits by default.
        choices: slopes and multipliers; by default the slope that leaves less area, and none.
        elide: stop at the first layer that is not affine, and take its box (the last layer of
            IBP is elided so).
        rounding: add the error of the arithmetic.
    """
    form = form.to(boxes[0].lower.dtype)
    return Backward(network, boxes, choices or Choices(), rounding, elide).bound(
        {len(network.nodes) if at is None else at: form}
    )


class Backward:
    """One way back through the net, with what it has added up so far."""

    def __init__(
        self, network: Network, boxes: Boxes, choices: Choices, rounding: bool, elide: bool
    ) -> None:
        self.network, self.boxes, self.choices = network, boxes, choices
        self.rounding, self.elide = rounding, elide
        self.total: Tensor | float = 0.0
        self.error: Tensor | float = 0.0
        self.forms: dict[int, Tensor] = {}

    def linear(self, form: Tensor, at: int) -> tuple[Tensor, Tensor]:
        """Return forms (N, S, ...) of the root and what is added: exact where no layer is bent."""
        self.forms, self.total = {at: form}, form.new_zeros(form.shape[:2])
        for number in range(at, self.network.root, -1):
            if number in self.forms:
                self._step(number, self.forms.pop(number))
        root = self.network.shape(self.network.root)
        nothing = form.new_zeros(*form.shape[:2], *root)
        return self.forms.get(self.network.root, nothing), self.total

    def bound(
        self,
        forms: Mapping[int, Tensor],
        total: Tensor | float = 0.0,
        reach: Tensor | float = 0.0,
    ) -> Tensor:
        """Return lower bounds (N, S) of forms and what is added to them.

        `reach` is the sum of magnitudes that `total` adds up; where it is given, the forms are
        products of a few numbers too.
        """
        self.forms, self.total = dict(forms), total
        if self.rounding and isinstance(reach, Tensor):
            self.error = gamma(FEW, reach.dtype) * reach
            for number, form in forms.items():
                self._add_error(form, gamma(FEW, form.dtype) * self.boxes[number].magnitude)
        for number in range(max(self.forms), self.network.root, -1):
            if number in self.forms:
                self._step(number, self.forms.pop(number))
        for number, form in self.forms.items():
            self._settle(number, form)
        total = self.total if isinstance(self.total, Tensor) else torch.as_tensor(self.total)
        if self.rounding:
            total = total - 1.01 * self.error - 8 * unit(total.dtype) * total.abs()
            total = total - 2**26 * tiny(total.dtype)  # products that were added up
        return torch.nan_to_num(total, -math.inf, -math.inf, -math.inf)

    def _step(self, number: int, form: Tensor) -> None:
        node = self.network[number]
        layer, (first, *_) = node.layer, node.inputs
        if self.elide and not layer.affine:
            self._settle(number, form)
        elif isinstance(layer, Affine):
            self._affine(layer, first, form)
        elif isinstance(layer, Rearranged):
            self._send(
                first, _each(form, lambda rows: layer.transpose(rows, self.network.shape(first)))
            )
        elif isinstance(layer, Sum):
            for source in node.inputs:
                self._send(source, form)
        elif isinstance(layer, Stacked):
            for source, part in zip(
                node.inputs, torch.split(form, list(layer.sizes), 2), strict=True
            ):
                self._send(source, part)
        elif isinstance(layer, MaxPool):
            self._pool(layer, first, form)
        elif isinstance(layer, Activation):
            self._activation(layer, first, form)
        else:  # pragma: no cover
            raise TypeError(f"no linear bound of {type(layer).__name__}")

    def _send(self, number: int, form: Tensor, terms: int = 0) -> None:
        """Pass a form to a node; each of its entries sums up `terms` products."""
        if self.rounding and terms:  # some may have underflowed
            reach = self.boxes[number].magnitude.flatten(1).sum(1, keepdim=True)
            self.error = self.error + 4 * terms * tiny(form.dtype) * reach
        self.forms[number] = self.forms[number] + form if number in self.forms else form

    def _affine(self, layer: Affine, source: int, form: Tensor) -> None:
        box = self.boxes[source]
        shape = self.network.shape(source)
        if (bias := layer.bias) is not None:
            bias = bias.expand(form.shape[2:])
            self.total = self.total + form.flatten(2) @ bias.flatten()
        if self.rounding:
            slack = gamma(layer.terms[1], form.dtype) * layer.weigh(box.magnitude)
            if (summed := layer.bias_summed) is not None:
                slack = slack + gamma(_size(form), form.dtype) * summed
            self._add_error(form, slack)
        back = _each(form, lambda rows: layer.transpose(rows, shape))
        self._send(source, back, layer.terms[1])

    def _activation(self, layer: Activation, source: int, form: Tensor) -> None:
        box = self.boxes[source]
        lines = with_slopes(layer, box, self.choices.slopes.get(source))
        # A positive entry takes the floor, a negative one the ceiling.
        size, middle = form.abs(), 0.5 * (lines.ceiling + lines.floor)
        self.total = self.total + _dot(form, middle) - _dot(size, lines.ceiling - middle)
        back = form * torch.where(form > 0, lines.below, lines.above)
        if self.rounding:
            ends = torch.maximum(lines.floor.abs(), lines.ceiling.abs())
            steepest = torch.maximum(lines.below, lines.above)
            slack = 8 * unit(form.dtype) * box.magnitude[:, None] * steepest
            slack = slack + gamma(_size(form), form.dtype) * ends + tiny(form.dtype)
            self.error = self.error + _dot(size, slack)
        if (multiplier := self.choices.multipliers.get(source)) is not None:
            back = back + multiplier
        self._send(source, back, 2)

    def _pool(self, layer: MaxPool, source: int, form: Tensor) -> None:
        box = self.boxes[source]
        place, alone, top = layer.choices(box)
        up, down = form.clamp_min(0), form.clamp_max(0)
        loose = torch.where(alone, 0, top)
        self.total = self.total + _dot(down, loose[:, None])
        if self.rounding:
            self._add_error(form, gamma(_size(form), form.dtype) * loose.abs())
        used = up + down * alone[:, None]
        back = layer.transpose(used, place, self.network.shape(source))
        windows = layer.kernel[0] * layer.kernel[1]
        if self.rounding:
            self._add_error(back.abs(), gamma(windows, form.dtype) * box.magnitude)
        self._send(source, back)

    def _settle(self, number: int, form: Tensor) -> None:
        """Take the least of a form over the box of a node."""
        lower, upper = self.boxes[number]
        centre = (lower + upper) / 2
        reach = torch.maximum(upper - centre, centre - lower)
        if self.rounding:
            reach = reach * (1 + 4 * unit(form.dtype))
            self._add_error(form, gamma(_size(form), form.dtype) * (centre.abs() + reach))
        self.total = self.total + _dot(form, centre[:, None]) - _dot(form.abs(), reach[:, None])

    def _add_error(self, form: Tensor, slack: Tensor) -> None:
        """Add |form| times the error (N, ...) of each neuron."""
        self.error = self.error + _dot(form.abs(), slack[:, None] + tiny(slack.dtype))


def with_slopes(layer: Activation, box: Box, slopes: Tensor | None) -> Lines:
    """Return lines (N, 1 or S, ...); lower slopes that are given hold where a rectifier is bent."""
    wide = Lines(*(line[:, None] for line in layer.lines(box)))
    if slopes is None or not isinstance(layer, Rectifier):
        return wide
    chosen = torch.maximum(slopes, layer.slope).clamp_max(1)
    return wide._replace(below=torch.where(layer.bent(box)[:, None], chosen, wide.below))


def _dot(form: Tensor, vector: Tensor) -> Tensor:
    """Return (N, S) products of forms (N, S, ...) and vectors (N, 1 or S, ...)."""
    if vector.shape[1] == 1:
        return (form.flatten(2) @ vector.expand(len(form), -1, *form.shape[2:]).flatten(2).mT)[
            ..., 0
        ]
    return (form * vector).flatten(2).sum(2)


def _each(form: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Change forms (N, S, ...) as rows (N * S, ...)."""
    n, rows = form.shape[:2]
    out = change(form.reshape(n * rows, *form.shape[2:]))
    return out.contiguous().reshape(n, rows, *out.shape[1:])


def _size(form: Tensor) -> int:
    return math.prod(form.shape[2:])


def worst_logits(least: Tensor, labels: Tensor) -> Tensor:
    """Return logits (N, classes) in which each other class leads by as much as it may.

    `least` (N, classes - 1) are lower bounds of the margins; cross-entropy of the result bounds
    that of every image in the box from above.
    """
    classes = least.shape[1] + 1
    return least.new_zeros(len(least), classes).scatter(1, _others(labels, classes), -least)
