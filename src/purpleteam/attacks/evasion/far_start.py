"""PGD from images of other classes, in a ball that shrinks to the adversary's.

A net can be flat around an image and err inside its ball; attacks that come back from beyond the
boundary find this (Brendel et al. 2019, arXiv:1907.01003). The larger balls of the first steps are
those of Auto-PGD in L1 (Croce & Hein 2021, arXiv:2103.01208).
"""

from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from purpleteam.attacks.driver import margin
from purpleteam.attacks.evasion import ATTACKS, Driver, GradientAttack, Noise, part_of
from purpleteam.attacks.norms import CONVEX, NORMS, column, project
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import device_of, to_batch
from purpleteam.models.inference import Classifier, correct

POOL = 500  # images that are kept to start from
STEP = 0.5  # length of a step, as a share of the radius; in the adversary's ball they shrink to 0
SPARSITY = 0.95  # share of the values that a step in L1 leaves alone


@part_of(ATTACKS, "far_start")
class FarStart(GradientAttack):
    """Starts at images of the nearest other classes, or noise, and climbs the margin on the way."""

    norms = CONVEX
    ranges = "starts at least 1; farther at least 1 and finite"

    steps: int = 20
    """Gradient steps from each start; in the first half the ball shrinks."""
    starts: int = 3
    """Other classes to start from, the nearest first: at the nearest image of each."""
    farther: float = 3.0
    """Radius of the first ball, in parts of epsilon."""

    others: ClassVar[tuple[Tensor, Tensor] | None] = None
    """Images (M, C, H, W) and their labels (M,); no option, so no field."""

    def prepare(self, model: Classifier, images: ImageSet, *, seed: int = 0) -> Self:
        """Return the attack with images to start from, those that the model reads rightly."""
        if self.others is not None:
            return self
        rows = np.unique(np.linspace(0, len(images) - 1, POOL).round().astype(np.int64))
        known = images.take(rows)
        known = known.take(np.flatnonzero(correct(model, known)))
        x = to_batch(known.images[:], device_of(model))
        return self._with(others=(x, torch.from_numpy(known.labels.copy()).to(x.device)))

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        x_adv = x
        for there in self._starts(x, driver.y, noise):
            x_adv = project(there, x, self.farther * self.epsilon, self.norm)
            for step in range(1, self.steps + 1):
                if not driver.standing.any():
                    break
                way = 2 * step / self.steps  # 1 where the ball is the adversary's, 2 at the end
                radius = self.epsilon * self.farther ** max(0.0, 1 - way)
                length = STEP * radius * min(1.0, 2 - way + 2 / self.steps)
                slope = driver.gradient(x_adv, margin)
                move = NORMS[self.norm].step(slope, x_adv, length, SPARSITY)
                x_adv = project(x_adv + move, x, radius, self.norm)  # (N, C, H, W)
            driver.settle(x_adv)
        return x_adv

    def _starts(self, x: Tensor, y: Tensor, noise: Noise) -> list[Tensor]:
        """Return for each start an image of another class for each image, noise where none is."""
        if self.others is None or len(self.others[1]) == 0 or len(x) == 0:
            return [noise.uniform(x) for _ in range(self.starts)]
        others, labels = (tensor.to(x.device) for tensor in self.others)
        far = torch.full((len(x), int(labels.max()) + 1), torch.inf, device=x.device)
        rows = torch.zeros_like(far, dtype=torch.int64)
        for label in sorted(set(labels.tolist())):
            (places,) = (labels == label).nonzero(as_tuple=True)
            length = torch.cdist(x.flatten(1), others[places].flatten(1))
            nearest = length.min(1)
            far[:, label] = torch.where(y == label, torch.inf, nearest.values)
            rows[:, label] = places[nearest.indices]
        order = far.argsort(dim=1, stable=True)[:, : self.starts]
        known, there = torch.isfinite(far.gather(1, order)), rows.gather(1, order)
        return [
            torch.where(column(known[:, place]), others[there[:, place]], noise.uniform(x))
            for place in range(order.shape[1])
        ]
