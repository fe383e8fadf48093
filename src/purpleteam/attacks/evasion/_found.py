"""What an attack found, and the best of what its restarts and members find on the way."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from purpleteam.attacks.driver import Driver
from purpleteam.attacks.search import Cost


@dataclass(frozen=True, eq=False)
class Attacked:
    """What an attack did to a batch.

    Attributes:
        x_adv: (N, C, H, W); the adversarial example where one was found, else the last candidate.
        broken: (N,) bool; the model errs on `x_adv`, confirmed in float32, within epsilon.
        distance: (N,) float64; how far `x_adv` is from the image, in the attack's norm.
        queries: (N,) int64; model calls that each image took.
        steps: (N,) int64; those of them that were steps of the search.
        cost: model calls in all, counted per image.
        seconds: wall-clock time.
    """

    x_adv: Tensor
    broken: Tensor
    distance: Tensor
    queries: Tensor
    steps: Tensor
    cost: Cost
    seconds: float


class Best:
    """The best that the restarts and members found so far, image by image."""

    def __init__(self, x: Tensor, cost: Cost) -> None:
        self.x_adv = x.clone()
        self.cost = cost
        self.broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.done = torch.zeros_like(self.broken)
        self.queries = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.steps = torch.zeros_like(self.queries)
        self._distance = torch.full((len(x),), torch.inf, device=x.device).double()

    def take(self, driver: Driver, rows: Tensor, candidate: Tensor, *, last_word: bool) -> None:
        """Take over what one driver found; `last_word`: a broken image is not attacked again."""
        found = torch.where(driver.broken, driver.nearest_distance, torch.inf)
        better = (found < self._distance[rows]) | ~self.broken[rows]
        self.x_adv[rows[better]] = candidate[better]
        self._distance[rows] = torch.minimum(found, self._distance[rows])
        self.broken[rows] |= driver.broken
        self.queries[rows] += driver.queries
        self.steps[rows] += driver.steps
        if driver.search.stop_inside or last_word:
            self.done[rows] |= driver.broken
