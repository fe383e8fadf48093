"""Does a brought model fit these images? What a first look shows, before any number is taken.

A classifier is asked for logits of images in [0, 1]. Other people's answer with probabilities,
want another range, or answer at random; each of these is seen on a few images and said.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from purpleteam.core.errors import ModelError
from purpleteam.core.statistics import Rate
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import device_of, to_batch
from purpleteam.models.inference import correct, logits
from purpleteam.models.loading import LoadedModel
from purpleteam.models.maite import MaiteClassifier, MaiteNet
from purpleteam.models.normalisation import NORMALISATIONS, Normalised

__all__ = ["SAMPLE", "examine", "fitted"]

SAMPLE = 200
"""Images that a model is looked at with, spread evenly over the split."""

GAIN = 0.1
"""How much more accurate another input range must make a model to be named."""

AT_LEAST = 0.5
"""How accurate it must be there: by chance, a wrong range does better than another wrong one."""

SUM = 1e-3
"""How far a row of probabilities may be from adding up to 1."""


def fitted(loaded: LoadedModel, images: ImageSet) -> LoadedModel:
    """Return the model as it will be attacked, with notes on what `images` show of it."""
    module, notes = loaded.module, []
    if isinstance(module, MaiteClassifier):
        module, note = module.opened(to_batch(images.images[:8], device_of(module)))
        notes.append(note)
    return replace(loaded, module=module).noting(*notes, *examine(module, images))


def examine(module: nn.Module, images: ImageSet) -> tuple[str, ...]:
    """Return what is unusual about a model's answers to up to 200 of the images.

    Raises:
        ModelError: it does not take the images, or does not return finite logits (N, classes).
    """
    chosen = np.unique(np.linspace(0, len(images) - 1, min(SAMPLE, len(images))).astype(np.int64))
    sample = images.take(chosen)
    scores = logits(module, sample.images)
    net = module.module if isinstance(module, Normalised) else module
    plain = () if isinstance(net, MaiteNet | MaiteClassifier) else _form(scores)
    notes = [*plain, *_chance(module, sample, scores)]
    right = np.asarray(scores.argmax(1) == sample.labels)
    return (*notes, *_range(module, sample, right))


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


def _range(module: nn.Module, sample: ImageSet, right: NDArray[np.bool_]) -> tuple[str, ...]:
    """Say which usual input range would make the model much more accurate, if any."""
    if isinstance(module, Normalised) or right.mean() > 1 - GAIN:
        return ()
    channels = sample.images.shape[3]
    best, name = right, ""
    for one in NORMALISATIONS.values():
        if len(one.mean) not in (1, channels):
            continue
        other = _correct(one.before(module), sample)
        if other is not None and other.sum() > best.sum():
            best, name = other, one.name
    now, then = (Rate.of(int(one.sum()), len(one)) for one in (right, best))
    if then.value < max(AT_LEAST, now.value + GAIN) or then.low <= now.high:
        return ()
    return (
        f"of {len(sample)} images in [0, 1] it gets {now.value:.0%} right, and "
        f"{then.value:.0%} with --normalise {name}: does it expect that?",
    )


def _correct(module: nn.Module, sample: ImageSet) -> NDArray[np.bool_] | None:
    try:
        return correct(module, sample)
    except ModelError:  # infinite, so far out of its range
        return None
