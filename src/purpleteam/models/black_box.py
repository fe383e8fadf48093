"""Classifiers that answer and tell nothing else: no weights, no gradient.

A deployed app and an ONNX file are asked like a net: images in [0, 1] go in, a row of scores for
each comes out. Who gives labels alone is written as one-hot rows, who gives confidences as
log-probabilities, so `argmax` means the label everywhere. An image that is refused ("this is no
digit") has a row of NaN: the adversary wanted another label and got none, so a refusal never
counts as an error that an attack made, and never as a right answer either.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from purpleteam.core.cards import ModelCard
from purpleteam.core.errors import ModelError
from purpleteam.models.class_order import check_count

__all__ = ["REFUSED", "BlackBox", "Gives", "as_bytes", "log_scores"]

Gives = Literal["labels", "scores"]

REFUSED = -1
"""Stands in `answers` where a label would stand."""
LEVELS = 255


class BlackBox(nn.Module, ABC):
    """A classifier of which only the answers are known; it is a module without parameters.

    Attributes:
        name: what records call it.
        digest: what it was; see `notes` for how much that is worth.
        shape: channels, height and width of the images it takes; None where any will do.
        classes: number of scores that it gives an image.
        gives: whether it tells labels alone, or scores.
        card: the card of a stored model.
        notes: what a reader of its numbers should know.
        calls: images that were really sent and answered; `ask` counts them.
        refusals: images that were answered without a label.
    """

    differentiable = False
    quantised = True
    """Whether images reach it as bytes; the adversary's precision is lost on the way."""

    def __init__(
        self,
        name: str,
        *,
        digest: str,
        shape: tuple[int | None, int | None, int | None],
        classes: int,
        gives: Gives,
        card: ModelCard | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.name = name
        self.digest = digest
        self.shape = shape
        self.classes = classes
        self.gives: Gives = gives
        self.card = card
        self.notes = notes
        self.refusals = 0
        self.calls = 0
        self._order: tuple[tuple[str, ...], tuple[int, ...]] | None = None

    @property
    def waited(self) -> float:
        """Seconds that were spent waiting because the classifier asked for that."""
        return 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (N, classes) for images (N, C, H, W); NaN where one was refused."""
        self._check_fits(x)
        images = x.detach().cpu().float()
        if self.quantised:
            images = torch.from_numpy(as_bytes(images)).float() / LEVELS
        scores = self.ask(images) if len(x) else images.new_empty(0, self.classes)
        if self._order is not None:
            names, order = self._order
            check_count(scores, names)
            scores = scores[:, order]
        self.refusals += int(scores.isnan().any(1).sum())
        return scores.to(x.device)

    def order(self, names: tuple[str, ...], order: tuple[int, ...]) -> None:
        """Give the scores in another order of classes from now on, or those of some classes.

        Args:
            names: of all scores, as they come.
            order: the places of the wanted ones.
        """
        if self.gives == "labels" and len(order) < len(names):
            raise ModelError(f"model {self.name!r} gives labels: it cannot choose among some")
        self._order = names, order

    @property
    def is_ordered(self) -> bool:
        """Whether its scores are brought into the order of the data's classes."""
        return self._order is not None

    def answers(self, x: Tensor) -> Tensor:
        """Return the labels (N,), int64, and `REFUSED` where there is none."""
        scores = self(x)
        labels = scores.nan_to_num().argmax(1)
        return torch.where(scores.isnan().any(1), REFUSED, labels)

    @abstractmethod
    def ask(self, images: Tensor) -> Tensor:
        """Return float32 scores (N, classes) for images on the CPU, in steps of 1/255."""

    def close(self) -> None:
        """Give back what is held open; nothing, here."""

    def __deepcopy__(self, memo: object) -> BlackBox:
        """Return the classifier itself: there is one app, and a copy would be the same one."""
        return self

    def _check_fits(self, x: Tensor) -> None:
        shape = tuple(x.shape[1:])
        fits = len(shape) == len(self.shape) and all(
            want in (None, have) for want, have in zip(self.shape, shape, strict=True)
        )
        if not fits:
            raise ModelError(f"model {self.name!r} takes images {self._takes}, not {shape}")

    @property
    def _takes(self) -> str:
        return f"({', '.join('any' if side is None else str(side) for side in self.shape)})"


def as_bytes(x: Tensor) -> NDArray[np.uint8]:
    """Return images in [0, 1] as the bytes that are sent: steps of 1/255, the nearest one."""
    if not torch.isfinite(x).all():
        raise ModelError("an image holds NaN or infinity, which cannot be sent")
    images: NDArray[np.uint8] = (x.clamp(0, 1) * LEVELS).round().byte().cpu().numpy()
    return images


def log_scores(probabilities: Tensor, faintest: float) -> Tensor:
    """Return the logarithm of probabilities (N, classes), none below `faintest`."""
    return probabilities.clamp_min(faintest).log().float()
