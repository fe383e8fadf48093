"""Does a brought model fit these images? What a first look shows, before any number is taken.

A classifier is asked for logits of images in [0, 1]. Other people's answer with probabilities,
want another range, or answer at random; each of these is seen on a few images and said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from purpleteam.data.images import ImageSet
from purpleteam.models.class_order import Ordered
from purpleteam.models.devices import device_of, to_batch
from purpleteam.models.hints import hints
from purpleteam.models.inference import logits
from purpleteam.models.loading import LoadedModel
from purpleteam.models.maite import MaiteClassifier, MaiteNet
from purpleteam.models.normalisation import Normalised
from purpleteam.models.onnx_file import OnnxFile

__all__ = ["SAMPLE", "examine", "opened"]

SAMPLE = 200
"""Images that a model is looked at with, spread evenly over the split."""

SUM = 1e-3
"""How far a row of probabilities may be from adding up to 1."""


def opened(loaded: LoadedModel, images: ImageSet) -> LoadedModel:
    """Return the model as it will be attacked: a MAITE model may have more than answers."""
    if not isinstance(loaded.module, MaiteClassifier):
        return loaded
    few = to_batch(images.images[:8], device_of(loaded.module))
    module, note = loaded.module.opened(few)
    return replace(loaded, module=module).noting(note)


def examine(
    module: nn.Module, images: ImageSet, classes: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Return what is unusual about a model's answers to a few of the images.

    Args:
        module: images (N, C, H, W) in [0, 1] to logits, one for each class of the images.
        images: up to 200 of them are shown to it, and up to 1,000 where another input or order
            of classes may be what it learned.
        classes: their names; numbers by default.

    Raises:
        ModelError: it does not take the images, or does not return finite logits (N, classes).
    """
    chosen = np.unique(np.linspace(0, len(images) - 1, min(SAMPLE, len(images))).astype(np.int64))
    sample = images.take(chosen)
    scores = logits(module, sample.images)
    inner = [module]
    while isinstance(inner[-1], Normalised | Ordered):
        inner.append(inner[-1].module)
    plain = () if isinstance(inner[-1], MaiteNet | MaiteClassifier | OnnxFile) else _form(scores)
    notes = [*plain, *_chance(module, sample, scores)]
    if any(getattr(one, "normalisation", None) for one in inner):  # the user has said it already
        return tuple(notes)
    names = classes or [str(number) for number in range(scores.shape[1])]
    return (*notes, *hints(module, images, names))


def _form(scores: NDArray[np.float32]) -> tuple[str, ...]:
    """Say where rows are distributions: a softmax flattens the loss that attacks climb."""
    wide = scores.astype(np.float64)
    if (wide >= 0).all() and (abs(wide.sum(1) - 1) < SUM).all():
        return (
            "it returns probabilities, not logits, which flattens the gradients of white-box "
            "attacks: return what goes into its softmax",
        )
    if (wide <= 0).all() and (abs(np.logaddexp.reduce(wide, axis=1)) < SUM).all():
        return ("it returns log-probabilities; attacks take them as logits",)
    return ()


def _chance(module: nn.Module, sample: ImageSet, scores: NDArray[np.float32]) -> tuple[str, ...]:
    """Say where the same image gets another answer: at random, or for its neighbours' sake."""
    few = sample.images[:100]  # one batch of `logits`
    again = logits(module, few)
    if not np.array_equal(scores[: len(few)], again):
        return ("its answers change from call to call: a robust accuracy must average over that",)
    alone = logits(module, few[:1])
    if not np.allclose(alone, again[:1], rtol=1e-3, atol=1e-3):
        return (
            "its answer for an image depends on the images beside it: is it batch-normalised "
            "by the batch?",
        )
    return ()
