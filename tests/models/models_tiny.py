"""Small images that a small net can learn, and nets by hand."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from purpleteam.data.images import ImageSet
from purpleteam.models.recipes import Recipe

__all__ = ["QUICK", "SHAPE", "Says", "bars", "equal_weights", "scores_as_pixels"]

SHAPE = (1, 12, 12)
QUICK = Recipe(epochs=4, batch_size=16, learning_rate=5e-3, augmentation="shift")


def bars(n: int, seed: int = 0) -> ImageSet:
    """Return noisy images of three classes, 12x12: a bright bar at the top, middle or bottom."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.int64) % 3
    images = rng.integers(0, 120, (n, 12, 12, 1)).astype(np.uint8)
    for image, label in zip(images, labels):
        image[4 * label : 4 * label + 4] += 90
    return ImageSet(images, labels)


def scores_as_pixels(scores: list[list[int]], labels: list[int]) -> ImageSet:
    """Return images whose pixels are the scores that `Says` gives them."""
    pixels = np.array(scores, np.uint8)[:, None, :, None]  # (N, 1, classes, 1)
    return ImageSet(pixels, np.array(labels, np.int64))


class Says(nn.Module):
    """A net whose logits are the pixels of its images, times a factor."""

    def __init__(self, factor: float = 255.0) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))
        self.dropout = nn.Dropout(0.5)  # in eval mode it does nothing

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.factor * x.flatten(1))


def equal_weights(one: nn.Module, other: nn.Module) -> bool:
    """Say whether two nets have the same bytes."""
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)
