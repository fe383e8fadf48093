"""What a model answers: logits for images, in float32, without touching the model.

The answer of a model that draws random numbers is the mean of its logits over many draws.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from purpleteam.core.errors import ModelError, UsageError
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import device_of, frozen, to_batch
from purpleteam.models.guard import Classifier as Classifier

CACHE_BATCH = 100
"""Images a call: small enough that a layer's activations stay in the processor's cache."""

DRAWS = 32
"""Calls whose mean is the answer of a model that draws random numbers."""

SHOWN = 16
"""Images that are shown again and again to see whether the answers change."""
REPEATED = 128
"""Of them in all, where torch's generator moved: one that errs in 1 call of 10 shows itself."""
UNMOVED = 32
"""Of them in all, where it did not: the model may have a generator of its own."""
SAME = 1e-5
"""Share of the scores' spread by which they may differ from call to call: rounding on a GPU."""


def logits(
    model: Classifier, images: NDArray[np.uint8], *, batch_size: int = CACHE_BATCH
) -> NDArray[np.float32]:
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
    device = device_of(model)
    rows: list[NDArray[np.float32]] = []
    with frozen(model) as net, torch.no_grad(), forked(device):
        draws, may_refuse = 1, not net.differentiable
        for start in range(0, len(images), batch_size):
            batch = to_batch(images[start : start + batch_size], device)
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
    """Say whether the model's scores change from call to call.

    Args:
        net: as `frozen` yields it.
        x: (N, C, H, W); the first 16 are asked about until chance would have shown itself.
    """
    few = x[:SHOWN]
    with forked(x.device), torch.no_grad():
        before = torch.get_rng_state()
        first = net(few)
        moved = x.is_cuda or not torch.equal(before, torch.get_rng_state())
        repeats = math.ceil((REPEATED if moved else UNMOVED) / len(few))
        return any(_differ(first, net(few)) for _ in range(repeats))


def forked(device: torch.device) -> AbstractContextManager[None]:
    """Leave torch's generators where they are, whatever a model draws."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def _differ(scores: Tensor, others: Tensor) -> bool:
    scores, others = torch.nan_to_num(scores), torch.nan_to_num(others)
    return bool((scores - others).abs().amax() > SAME * (scores.amax() - scores.amin()))


def correct(
    model: Classifier, images: ImageSet, *, batch_size: int = CACHE_BATCH
) -> NDArray[np.bool_]:
    """Return for each image whether the model's label is the true one; a refusal is none."""
    scores = logits(model, images.images, batch_size=batch_size)
    refused = np.isnan(scores).any(1)
    return np.asarray((scores.argmax(1) == images.labels) & ~refused)
