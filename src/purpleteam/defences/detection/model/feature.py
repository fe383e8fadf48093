"""The shortest shift of the last layer's features that sends every image to one class.

As FeatureRE (Wang et al. 2022, OpenReview FNDJRlbPY1), but no image need cause it: quick and weak.
"""

from contextlib import ExitStack
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from purpleteam.defences.detection.model import _base as base
from purpleteam.models.guard import guarded

AT_ONCE = 256  # images whose features are read in one pass
START = 3.0  # length of the first shift, in deviations of a feature
LARGEST = 1000.0  # length that is not exceeded


@base.part_of(base.MODEL_DETECTORS, "feature")
class FeatureInversion(base.ModelDetector):
    """Sizes are Euclidean lengths, in standard deviations of the features taken together."""

    null: ClassVar[base.Null] = base.Null(location=1.0, scale=0.38, deviation=0.2)

    steps: int = 70
    """Gradient steps."""
    images: int = 12
    """Trusted images for each class and step."""

    def examine(self, work: base.Scanning) -> base.Evidence | None:
        """Invert a shift of the last layer's input; None where no linear layer answers."""
        layer = _last_linear(work.model, work.images[:1])
        if layer is None:
            return None
        read: list[Tensor] = []
        hook = layer.register_forward_pre_hook(lambda _module, given: read.append(given[0]))
        with hook, torch.no_grad():
            for batch in torch.split(work.images, AT_ONCE):
                guarded(work.model)(batch)
        features = torch.cat(read)[:, None, None]  # (N, 1, 1, units)
        unit = features.std().clamp_min(1e-12)
        rectified = bool(features.amin() >= 0)

        def shift(change: Tensor, x: Tensor) -> Tensor:
            shifted = x + unit * change[:, None]
            return shifted.clamp_min(0) if rectified else shifted

        rest = _FromFeatures(work.model, layer, work.images[:1])
        work = replace(work, model=rest, images=features, reference=None)
        search = base.every_target(work, steps=self.steps, images=self.images, stream=70)
        form = tuple(features.shape[1:])
        inverted = base.shrink_radius(search, shift, form, radius=START, largest=LARGEST)
        return self.evidence(inverted.log_sizes)


class _FromFeatures(nn.Module):
    """The model from the features (N, 1, 1, units) on; the layers before get a blank image."""

    def __init__(self, model: nn.Module, layer: nn.Module, image: Tensor) -> None:
        super().__init__()
        self.model, self.layer = model, layer
        self.blank = torch.zeros_like(image)

    def forward(self, features: Tensor) -> Tensor:
        flat = features.flatten(1)
        with self.layer.register_forward_pre_hook(lambda _module, _given: (flat,)):
            answers: Tensor = self.model(self.blank.expand(len(flat), -1, -1, -1))
        return answers


def _last_linear(model: nn.Module, image: Tensor) -> nn.Module | None:
    """Return the linear layer that is asked last, if it is given one vector for each image."""
    asked: list[tuple[nn.Module, int]] = []

    def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        if given:  # by position: what is given by name, a hook does not see
            asked.append((module, given[0].ndim))

    with ExitStack() as hooks, torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                hooks.enter_context(layer.register_forward_pre_hook(note))
        model(image)
    last, dimensions = asked[-1] if asked else (None, 0)
    once = sum(module is last for module, _ in asked) == 1
    return last if once and dimensions == 2 else None
