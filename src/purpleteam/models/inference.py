"""What a model answers: logits for images, in float32, without touching the model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from purpleteam.core.errors import ModelError, PurpleError
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import device_of, frozen, to_batch

__all__ = ["Classifier", "correct", "logits"]

Classifier = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) in [0, 1] to logits (N, classes)."""

CACHE_BATCH = 100
"""Images a call: small enough that a layer's activations stay in the processor's cache."""


def logits(
    model: Classifier, images: NDArray[np.uint8], *, batch_size: int = CACHE_BATCH
) -> NDArray[np.float32]:
    """Return float32 logits (N, classes) for uint8 images (N, H, W, C).

    A model behind an app may refuse an image, which is then a row of NaN.

    Raises:
        ModelError: the model does not take such images, or does not return one row of finite
            numbers for each.
    """
    device = device_of(model)
    may_refuse = not getattr(model, "differentiable", True)
    rows = []
    with frozen(model), torch.inference_mode():
        for start in range(0, len(images), batch_size):
            batch = to_batch(images[start : start + batch_size], device)
            try:
                out = model(batch)
            except PurpleError:  # of ours: it names what is wrong already
                raise
            except Exception as error:  # the model may be anybody's code
                shape = tuple(batch.shape[1:])
                reason = " ".join(str(error).split())[:200]
                raise ModelError(
                    f"the model does not take images of shape {shape}: {reason}"
                ) from None
            rows.append(_checked(out, len(batch), may_refuse))
    return np.concatenate(rows)


def correct(
    model: Classifier, images: ImageSet, *, batch_size: int = CACHE_BATCH
) -> NDArray[np.bool_]:
    """Return for each image whether the model's label is the true one; a refusal is none."""
    scores = logits(model, images.images, batch_size=batch_size)
    refused = np.isnan(scores).any(1)
    return np.asarray((scores.argmax(1) == images.labels) & ~refused)


def _checked(out: object, n: int, may_refuse: bool) -> NDArray[np.float32]:
    if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != n:
        form = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ModelError(f"the model returned {form}, not logits ({n}, classes)")
    answered = out[~out.isnan().all(1)] if may_refuse else out
    if not torch.isfinite(answered).all():
        raise ModelError("the model returned NaN or infinite logits")
    return out.float().cpu().numpy()
