"""What a model answers: logits for images, in float32, without touching it; and how attacks ask it.

An attack asks a fast replica, whose weights lie in memory as the processor likes them; the model
itself has the last word wherever two classes are so close that rounding could matter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from purpleteam.core.arrays import Bools, Pixels, Singles
from purpleteam.core.errors import ModelError, UsageError
from purpleteam.data.images import ImageSet
from purpleteam.models import devices
from purpleteam.models.guard import Classifier as Classifier
from purpleteam.models.guard import Guarded, guarded

CACHE_BATCH = 100  # images a call: a layer's activations stay in the processor's cache
DRAWS = 32  # calls whose mean is the answer of a model that draws random numbers
SHOWN = 16  # images that are shown again and again to see whether the answers change
REPEATED, UNMOVED = 128, 32  # of them in all, where torch's generator moved, and where it did not
SAME = 1e-5  # share of the scores' spread by which they may differ from call to call, on a GPU
CLEAR = 1e-3  # lead of the first score, as a share of the spread, that no rounding undoes
INWARD = 1e-6  # how far inside the range a gradient is taken of a net that has none at its ends


def logits(model: Classifier, images: Pixels, *, batch_size: int = CACHE_BATCH) -> Singles:
    """Return float32 logits (N, classes) for uint8 images (N, H, W, C).

    A model behind an app may refuse an image, which is then a row of NaN. Of a model that answers
    at random it is the mean over 32 draws, the same ones each time where they are torch's.

    Raises:
        UsageError: the images are none.
        ModelError: the model does not take such images, or does not return one row of finite
            numbers for each.
    """
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4:
        # floats in [0, 1] would be divided by 255 and answered
        kind = getattr(images, "dtype", None)
        came = type(images).__name__ if kind is None else f"{kind} {tuple(images.shape)}"
        raise UsageError(f"images are {came}; wanted: a NumPy array of uint8 (N, H, W, C)")
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {batch_size}")
    device = devices.device_of(model)
    rows: list[Singles] = []
    with devices.frozen(model) as net, torch.no_grad(), devices.forked(device):
        draws, may_refuse = 1, not net.differentiable
        for start in range(0, len(images), batch_size):
            batch = devices.to_batch(images[start : start + batch_size], device)
            if start == 0 and not may_refuse and is_random(net, batch):
                draws = DRAWS
                torch.manual_seed(0)
            answer = net(batch)
            for _ in range(draws - 1):
                answer += net(batch)
            answer = answer / draws if draws > 1 else answer
            answered = answer[~answer.isnan().all(1)] if may_refuse else answer
            if not torch.isfinite(answered).all():
                raise ModelError("the model returned NaN or infinite logits")
            rows.append(answer.cpu().numpy())
    if not rows:
        raise ModelError("there is no image to ask the model about")
    return np.concatenate(rows)


def is_random(net: Classifier, x: Tensor) -> bool:
    """Say whether the scores of images change from call to call, of a net as `frozen` yields it."""
    few = x[:SHOWN]
    with devices.forked(x.device), torch.no_grad():
        before = torch.get_rng_state()
        first = torch.nan_to_num(net(few))
        apart = SAME * (first.amax() - first.amin())
        moved = x.is_cuda or not torch.equal(before, torch.get_rng_state())
        repeats = math.ceil((REPEATED if moved else UNMOVED) / len(few))
        others = (torch.nan_to_num(net(few)) for _ in range(repeats))
        return any(bool((first - other).abs().amax() > apart) for other in others)


def correct(model: Classifier, images: ImageSet, *, batch_size: int = CACHE_BATCH) -> Bools:
    """Return for each image whether the model's label is the true one; a refusal is none."""
    scores = logits(model, images.images, batch_size=batch_size)
    refused = np.isnan(scores).any(1)
    return np.asarray((scores.argmax(1) == images.labels) & ~refused)


@dataclass(frozen=True, eq=False)
class Nets:
    """A model and its fast replica, which is compared with it and not used where it differs."""

    model: Guarded  # as the user has it: the truth
    fast: Guarded  # the same function in float32, or the model itself
    classes: int
    differentiable: bool = True  # gradients of its scores reach the images
    random: bool = False  # its scores change from call to call
    inward: float = 0.0
    """How far inside [0, 1] gradients are taken: above 0 for a net that clips its input by a
    function without a slope at the ends of the range."""

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
        with devices.forked(x.device):
            slope = _slope(asked, x[:4])
            random = is_random(asked, x)
            inward = 0.0 if random or slope is None else _inward(asked, x)
            with torch.no_grad():
                classes = asked(x).shape[1]
        fast = None
        if not random and isinstance(asked.model, nn.Module):
            fast = devices.channels_last_copy(asked, x)
        return cls(asked, fast or asked, classes, slope is not None, random, inward)

    def too_close_to_call(self, scores: Tensor) -> Tensor:
        """Say for which scores of `fast`, (N, classes), the model itself might say otherwise."""
        if self.fast is self.model or scores.shape[1] < 2:
            return torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
        first, second = scores.topk(2, dim=1).values.unbind(1)
        spread = scores.amax(1) - scores.amin(1)
        return ~(first - second > CLEAR * spread)  # NaN is no clear answer


def _slope(net: Classifier, x: Tensor) -> Tensor | None:
    """Return the slope of a mixture of the scores at `x`; None where the images get no gradient."""
    try:
        return devices.scores_and_slope(net, x)[1]
    except ModelError:  # as of x.numpy(), or of weights made in inference_mode
        with torch.no_grad():
            net(x)
    except (RuntimeError, UserWarning):  # an operation without a derivative
        pass
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
