"""Doubles of a net that answer faster: the same function in another layout and precision.

An attack asks a net thousands of times for each image. `exact` is a float32 copy whose weights lie
in memory as the processor likes them; `fast` computes in bfloat16 where the hardware has units for
it, all but the last layer, whose rounding would hide small changes of the loss. Both are compared
with the model when they are made and are not used where they differ. The model itself stays
untouched and has the last word wherever two classes are so close that rounding could matter.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from purpleteam.models.devices import fast_autocast, has_fast_bf16
from purpleteam.models.inference import Classifier

__all__ = ["Twins"]

ALIKE = 1e-4
"""Largest difference, as a share of the spread of the scores, that float32 layouts may have."""
SIMILAR = 0.1
"""The same for bfloat16: a coarse answer is good enough for a single step."""
CLEAR = 1e-3
"""Lead of the first score over the second, as a share of their spread, that no rounding undoes."""
LOOKED_AT = 4
"""Images on which the doubles are compared with the model."""


@dataclass(frozen=True, eq=False)
class Twins:
    """A model and its doubles.

    Attributes:
        model: as the user has it; the truth.
        exact: float32.
        fast: bfloat16 where that is faster.
        classes: number of scores that it gives an image.
    """

    model: Classifier
    exact: Classifier
    fast: Classifier
    classes: int

    @classmethod
    def of(cls, model: Classifier | Twins, x: Tensor) -> Twins:
        """Return the doubles of `model`, which is in eval mode, compared on some of `x`."""
        if isinstance(model, Twins):
            return model
        if len(x) == 0 or not getattr(model, "differentiable", True):
            return cls(model, model, model, int(getattr(model, "classes", 0)))
        x = x[:LOOKED_AT].detach()
        with torch.no_grad():
            scores = model(x)
            exact = fast = model
            if isinstance(model, nn.Module):
                exact = _if_alike(_channels_last, model, x, scores, ALIKE)
            steady = exact is not model or _near(model(x), scores, ALIKE)
            if has_fast_bf16(x.device.type) and steady:
                fast = _if_alike(_coarse, exact, x, scores, SIMILAR)
        return cls(model, exact, fast, scores.shape[1])

    def too_close_to_call(self, scores: Tensor) -> Tensor:
        """Say for which scores of `exact`, (N, classes), the model itself might say otherwise."""
        if self.exact is self.model or scores.shape[1] < 2:
            return torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
        first, second = scores.topk(2, dim=1).values.unbind(1)
        spread = scores.amax(1) - scores.amin(1)
        return ~(first - second > CLEAR * spread)  # NaN is no clear answer

    @property
    def differentiable(self) -> bool:
        """Whether the model is one that gives gradients at all: an app or a file does not."""
        return bool(getattr(self.model, "differentiable", True))

    @property
    def quantised(self) -> bool:
        """Whether images reach the model as bytes, in steps of 1/255."""
        return bool(getattr(self.model, "quantised", False))


def _if_alike(
    make: Callable[[Classifier, Tensor], tuple[Classifier, Tensor]],
    model: Classifier,
    x: Tensor,
    scores: Tensor,
    tolerance: float,
) -> Classifier:
    """Return the double, or the model where none can be made or it answers otherwise."""
    try:
        double, answer = make(model, x)
        return double if _near(answer, scores, tolerance) else model
    except Exception:  # the model may be anybody's code; attacked as it is, it is only slower
        return model


def _near(answer: Tensor, scores: Tensor, tolerance: float) -> bool:
    spread = (scores.amax() - scores.amin()).float()
    difference = (answer.float() - scores.float()).abs().amax()
    return bool(difference <= tolerance * spread + 1e-6)


def _channels_last(model: Classifier, x: Tensor) -> tuple[Classifier, Tensor]:
    """Return a copy whose last layer stays in float32 whatever the rest computes in."""
    double: nn.Module = copy.deepcopy(model).to(  # type: ignore[attr-defined]
        memory_format=torch.channels_last
    )
    return double, _keep_last_layer_exact(double, x)


def _coarse(exact: Classifier, x: Tensor) -> tuple[Classifier, Tensor]:
    def answer(images: Tensor) -> Tensor:
        with fast_autocast(images.device):
            return exact(images)

    return answer, answer(x)


class _Exact(nn.Module):
    """A layer that computes in float32 wherever it stands."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            out: Tensor = self.layer(x.float())
            return out


def _keep_last_layer_exact(net: nn.Module, x: Tensor) -> Tensor:
    """Put the dense layer whose output is the net's under float32, if any; return that output."""
    outputs: dict[str, Tensor] = {}
    hooks = [
        layer.register_forward_hook(lambda _, __, out, name=name: outputs.__setitem__(name, out))
        for name, layer in net.named_modules()
        if isinstance(layer, nn.Linear) and name
    ]
    scores: Tensor = net(x)
    for hook in hooks:
        hook.remove()
    for name, out in outputs.items():
        if out is scores:
            parent, _, leaf = name.rpartition(".")
            setattr(net.get_submodule(parent), leaf, _Exact(net.get_submodule(name)))
    return scores
