"""What an adversary knows of images before asking: a map from what is searched to images."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from purpleteam.data.images import ImageSet
from purpleteam.models.devices import to_batch
from purpleteam.privacy.inversion import Kind

COMPONENTS = 40  # directions in which images of the pool differ most
FITTED = 2000  # images of the pool that tell these, at most
FITTED_VALUES = 64 << 20  # numbers in them together: of large images fewer are taken
WIDTH = 3.0  # standard deviations along a direction that an image may be from the mean


@dataclass(frozen=True, eq=False)
class Prior:
    """Images as a function of free numbers (B, D).

    `none` and `smooth` have a number for each pixel, through a sigmoid. `images` has one for each
    principal component of the pool (Pearson 1901), so that all it can make looks like the pool.
    """

    kind: Kind
    mean: Tensor  # (C, H, W)
    directions: Tensor  # (D, C * H * W); empty where each pixel is free

    @classmethod
    def of(cls, kind: Kind, pool: ImageSet) -> "Prior":
        """Return the prior that a pool tells."""
        most = max(2, FITTED_VALUES // int(np.prod(pool.images.shape[1:])))
        x = to_batch(np.asarray(pool.images[: min(FITTED, most)]))
        mean = x.mean(0)
        if kind != "images":
            return cls(kind, mean, x.new_zeros(0, mean.numel()))
        _, sizes, directions = torch.linalg.svd((x - mean).flatten(1), full_matrices=False)
        count = min(COMPONENTS, len(directions))
        scale = sizes[:count, None] / max(1, len(x) - 1) ** 0.5
        return cls(kind, mean, directions[:count] * scale)

    @property
    def dimensions(self) -> int:
        """How many numbers make an image."""
        return len(self.directions) or self.mean.numel()

    def images(self, free: Tensor) -> Tensor:
        """Return images (B, C, H, W) in [0, 1]."""
        if self.kind != "images":
            return free.sigmoid().reshape(-1, *self.mean.shape)
        offset = (WIDTH * (free / WIDTH).tanh()) @ self.directions
        return (self.mean + offset.reshape(-1, *self.mean.shape)).clamp(0, 1)

    def cost(self, x: Tensor) -> Tensor:
        """Return (B,) how much neighbouring pixels differ, where images are known to be smooth."""
        if self.kind != "smooth":
            return x.new_zeros(len(x))
        down, right = x.diff(dim=2).abs(), x.diff(dim=3).abs()
        return down.mean((1, 2, 3)) + right.mean((1, 2, 3))
