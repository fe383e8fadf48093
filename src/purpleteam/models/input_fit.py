"""How a net reads images behind an input, and when one input is clearly better than another.

A scale alone is no evidence: it makes any net more or less sure of the same answers, so a better
one must also be better at the temperature that suits it best (Guo et al. 2017, arXiv:1706.04599).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import nn

from purpleteam.core.errors import PurpleError
from purpleteam.data.images import ImageSet
from purpleteam.models.inference import logits
from purpleteam.models.normalisation import Normalisation
from purpleteam.models.onnx_file import OnnxFile

__all__ = ["GOOD", "NEAR", "SHARE", "InputFit"]

GOOD = 0.02
"""Loss below which nothing can be far better."""
SHARE = 0.75
"""Of the loss of images as they are: a candidate's must be below it, and so at its best scale."""
HALF = 0.5
"""The same where only the scale is better."""
UNSURE, OFF = 2.0, 2.5
"""Temperatures: below the first a net is as sure as it is right, above the second it is not."""
CLEAR = 4.0
"""Standard errors, or the like for counts, that make a difference clear."""
NEAR = 0.01
"""Difference of losses that is none."""
CHANCE_LOSS = 0.7
"""Of the loss of a uniform guess: what a net has learned brings it below this."""
EACH = 5
"""Images of each class that an order of classes needs."""
TEMPERATURES = np.geomspace(1 / 16, 64, 31)


@dataclass(frozen=True, eq=False)
class InputFit:
    """How a net reads images behind an input, its scores in an order of classes."""

    layer: Normalisation | None
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    order: NDArray[np.int64] | None = None

    @classmethod
    def of(
        cls, module: nn.Module, images: ImageSet, layer: Normalisation | None = None
    ) -> InputFit | None:
        """Ask the net; None where it gives no numbers for such an input."""
        try:
            net = module
            if layer is not None and isinstance(module, OnnxFile):
                net = module.behind(layer)
            elif layer is not None:
                net = layer.before(module)
            scores = logits(net, images.images).astype(np.float64)
        except PurpleError:  # infinite, so far out of its range; or it takes bytes
            return None
        return cls(layer, scores, images.labels) if np.isfinite(scores).all() else None

    @property
    def name(self) -> str:
        """What `--normalise` would say."""
        return "" if self.layer is None else self.layer.name

    @cached_property
    def loss(self) -> NDArray[np.float64]:
        """The cross-entropy of each image."""
        return self._loss(1.0)

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Whether each image is read as what it is."""
        return np.asarray(self.scores.argmax(1) == self.labels)

    @cached_property
    def temperature(self) -> float:
        """Where the mean loss is least: 1 for a net that is as sure as it is right."""
        return float(min(TEMPERATURES, key=lambda one: float(self._loss(one).mean())))

    @cached_property
    def best_loss(self) -> NDArray[np.float64]:
        """The loss of each image at that temperature."""
        return self._loss(self.temperature)

    def _loss(self, temperature: float) -> NDArray[np.float64]:
        scaled = self.scores / temperature
        shifted = scaled - scaled.max(1, keepdims=True)
        found: NDArray[np.float64] = (
            np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(self.labels)), self.labels]
        )
        return found

    def has_learned(self) -> bool:
        """Say whether it is far from what chance gives: no untrained net is."""
        classes = self.scores.shape[1]
        halfway = (1 + 1 / classes) / 2
        return bool(
            self.right.mean() >= halfway
            and self.loss.mean() <= CHANCE_LOSS * np.log(max(classes, 2))
        )

    def beats(self, other: InputFit) -> bool:
        """Say whether it is clearly and far better than the other on the same images.

        That is with answers that are better whatever the scale, or with answers as good and as
        sure as they are right, where the other's are not.
        """
        if other.best_loss.mean() < GOOD:  # all is right as it is, and the scale says nothing
            return False
        gain = other.loss - self.loss
        share = self.loss.mean() / other.loss.mean()
        at_best = self.best_loss.mean() / other.best_loss.mean()
        sure = 1 / UNSURE < self.temperature < UNSURE
        other_is = 1 / OFF < other.temperature < OFF
        return bool(
            gain.mean() > CLEAR * gain.std() / np.sqrt(len(gain))
            and self.right.sum() >= other.right.sum() - NEAR * len(gain)
            and (
                (share < SHARE and at_best < SHARE)
                or (share < HALF and at_best < 1 + NEAR and sure and not other_is)
            )
        )

    def has_enough(self) -> bool:
        """Say whether there are enough images of each class to tell their order."""
        classes = self.scores.shape[1]
        return bool(np.bincount(self.labels, minlength=classes).min() >= EACH)

    def in_any_order(self) -> InputFit:
        """Return it in the order of classes that makes most images right."""
        classes = self.scores.shape[1]
        table = np.zeros((classes, classes))
        np.add.at(table, (self.labels, self.scores.argmax(1)), 1)
        _, order = linear_sum_assignment(-table)
        return InputFit(self.layer, self.scores[:, order], self.labels, order)

    def reordered(self) -> InputFit | None:
        """Return it in the order of classes that fits far better than the one it has, if any."""
        if self.scores.shape[1] < 2 or not self.has_enough():
            return None
        found = self.in_any_order()
        won = int((found.right & ~self.right).sum())
        lost = int((self.right & ~found.right).sum())
        clear = won - lost > CLEAR * np.sqrt(max(won + lost, 1))
        return found if clear and found.has_learned() else None
