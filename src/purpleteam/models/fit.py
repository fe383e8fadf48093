"""Does a brought model fit these images? What a few answers show, before any number is taken.

A classifier is asked for logits of images in [0, 1]. Other people's answer with probabilities,
want another range, or answer at random; each of these is seen on a few images and said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from purpleteam.data.images import ImageSet
from purpleteam.models.adapters import Normalised, Ordered, Scored
from purpleteam.models.black_box import OnnxFile
from purpleteam.models.devices import device_of, frozen, to_batch
from purpleteam.models.hints import hints
from purpleteam.models.inference import DRAWS, is_random, logits
from purpleteam.models.loading import LoadedModel
from purpleteam.models.nets import Nets
from purpleteam.models.objects import ObjectClassifier, ObjectNet

SAMPLE = 200
"""Images that a model is shown, spread evenly over the split."""

SUM = 1e-3
"""How far a row of probabilities may be from adding up to 1."""


def opened(loaded: LoadedModel, images: ImageSet) -> LoadedModel:
    """Return the model as it will be attacked: a MAITE model may have more than answers."""
    if not isinstance(loaded.module, ObjectClassifier):
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
    while isinstance(inner[-1], Normalised | Ordered | Scored):
        inner.append(inner[-1].module)
    plain = () if isinstance(inner[-1], ObjectNet | ObjectClassifier | OnnxFile) else _form(scores)
    notes = [*plain, *_habits(module, to_batch(sample.images[:100], device_of(module)))]
    if any(getattr(part, "normalisation", None) for part in inner):  # the user has said it already
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


def _habits(module: nn.Module, x: Tensor) -> tuple[str, ...]:
    """Say how it answers: in what form and precision, at random, or for its neighbours' sake."""
    notes = []
    with frozen(module) as net, torch.no_grad():
        scores = net(x)
        if net.form:
            notes.append(f"it returns {net.form}")
        if net.precision != torch.float32:
            kind = str(net.precision).removeprefix("torch.")
            notes.append(
                f"its weights are in {kind}: it gets images in that, its logits in float32"
            )
        # layers that go on as in training: eval() does not reach them, or they keep no statistics
        kinds = {
            type(layer).__name__
            for layer in module.modules()
            if isinstance(layer, _BatchNorm | _DropoutNd)
            and (layer.training or getattr(layer, "running_mean", module) is None)
        }
        awake = ", ".join(sorted(kinds))
        cause = f": eval() does not stop its {awake}" if awake else ", in eval mode too"
        if is_random(net, x):
            notes.append(
                f"its answers change from call to call{cause}: the mean over {DRAWS} draws counts "
                "as its answer, and attacks average with samples, as in apgd_ce:samples=20"
            )
        elif not torch.allclose(scores[:2], net(x[:2]), rtol=1e-3, atol=1e-3):
            notes.append(
                f"its answer for an image depends on the images beside it{cause}: is it "
                "batch-normalised by the batch?"
            )
        if net.differentiable and not Nets.of(net, x[:8]).differentiable:
            notes.append(
                "no gradient reaches the images (inference_mode, no_grad, detach or quantised "
                "layers in its forward?): only attacks that need none can be made"
            )
    return tuple(notes)
