"""A model as attacks ask it: the exact model, and a fast replica of it.

An attack asks a net thousands of times for each image. The replica is a float32 copy whose weights
lie in memory as the processor likes them; it is compared with the model when it is made, and not
used where it differs. The model itself stays untouched and has the last word wherever two classes
are so close that rounding could matter.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from purpleteam.core.errors import ModelError
from purpleteam.models.devices import channels_last_copy
from purpleteam.models.guard import Classifier, Guarded, guarded
from purpleteam.models.inference import forked, is_random

CLEAR = 1e-3
"""Lead of the first score over the second, as a share of their spread, that no rounding undoes."""
SHOWN = 16
"""Images that a model is shown to see what it is."""
INWARD = 1e-6
"""How far inside the range a gradient is taken of a net that has none at its ends."""


@dataclass(frozen=True, eq=False)
class Nets:
    """A model and its fast replica.

    Attributes:
        model: as the user has it, asked with copies; the truth.
        fast: the same function in float32, or the model itself.
        classes: number of scores that it gives an image.
        differentiable: whether gradients of its scores reach the images.
        random: whether its scores change from call to call.
        inward: how far inside [0, 1] gradients are taken: above 0 for a net that clips its input
            by a function without a slope at the ends of the range.
    """

    model: Guarded
    fast: Guarded
    classes: int
    differentiable: bool = True
    random: bool = False
    inward: float = 0.0

    @classmethod
    def of(cls, model: Classifier | Nets, x: Tensor) -> Nets:
        """Return what an attack asks of `model`, which is in eval mode, seen on some of `x`."""
        if isinstance(model, Nets):
            return model
        asked = guarded(model)
        if len(x) == 0 or not asked.differentiable:
            classes = int(getattr(asked.model, "classes", 0))
            return cls(asked, asked, classes, asked.differentiable)
        x = x[:SHOWN].detach()
        with forked(x.device):
            slope = _slope(asked, x[:4])
            random = is_random(asked, x)
            inward = 0.0 if random or slope is None else _inward(asked, x)
            with torch.no_grad():
                classes = asked(x).shape[1]
        fast = asked
        if not random and isinstance(asked.model, nn.Module):
            replica = channels_last_copy(asked.model, x)
            fast = asked if replica is None else guarded(replica)
        return cls(asked, fast, classes, slope is not None, random, inward)

    def too_close_to_call(self, scores: Tensor) -> Tensor:
        """Say for which scores of `fast`, (N, classes), the model itself might say otherwise."""
        if self.fast is self.model or scores.shape[1] < 2:
            return torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
        first, second = scores.topk(2, dim=1).values.unbind(1)
        spread = scores.amax(1) - scores.amin(1)
        return ~(first - second > CLEAR * spread)  # NaN is no clear answer

    @property
    def quantised(self) -> bool:
        """Whether images reach the model as bytes, in steps of 1/255."""
        return self.model.quantised


def _slope(net: Classifier, x: Tensor) -> Tensor | None:
    """Return the slope of a mixture of the scores at `x`; None where the images get no gradient."""
    asked = x.clone().requires_grad_(True)
    with torch.enable_grad():
        try:
            scores = net(asked)
        except ModelError:  # as of x.numpy(), or of weights made in inference_mode
            with torch.no_grad():
                net(x)
            return None
        mixture = (scores * torch.linspace(-1, 1, scores.shape[1], device=x.device)).sum()
        if not mixture.requires_grad:
            return None
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message=".*autograd kernel was not registered")
                return torch.autograd.grad(mixture, asked, allow_unused=True)[0]
        except (RuntimeError, UserWarning):  # an operation without a derivative
            return None


def _inward(net: Classifier, x: Tensor) -> float:
    """Return how far inside the range to take gradients, for a net whose slope ends at its ends."""
    rng = torch.Generator().manual_seed(0)
    noise = (3 * torch.rand(x[:2].shape, generator=rng) - 1).clamp(0, 1).to(x.device)
    at, inside = _slope(net, noise), _slope(net, noise.clamp(INWARD, 1 - INWARD))
    if at is None or inside is None:
        return 0.0
    ends = [end for end in (noise == 0, noise == 1) if end.any()]
    flat = any(not at[end].any() and bool(inside[end].any()) for end in ends)
    return INWARD if flat else 0.0
