"""What every check looks at: a model, a ladder of attacks, and what it left standing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from purpleteam.attacks.driver import CACHED_VALUES, Cost, Driver, Loss, Search
from purpleteam.attacks.evasion import EvasionAttack
from purpleteam.attacks.noise import Noise
from purpleteam.attacks.norms import NORMS
from purpleteam.attacks.outcomes import RobustEvaluation
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import channels_first, device_of, to_batch
from purpleteam.models.inference import Classifier, Nets

LOOKED_AT = 500
"""Images, at even distances, whose part that still stands is attacked anew: 10 of them are 2 points
of robust accuracy."""
PROBED = 100
"""Of these, those on which the gradients are looked at: enough to see 1 in 20."""
FEW_STEPS = 10
"""Fewer gradient steps are no strong attack."""
CALLS = 5
"""Of the model on the same images, to see whether its answers are random; as in AutoAttack."""
SAME = 1e-5
"""Share of the scores' spread by which they may differ from call to call: rounding on a GPU."""


@dataclass(frozen=True, eq=False)
class Slope:
    """A loss (N,) and its gradient (N, C, H, W) as it is, NaN included."""

    value: Tensor
    gradient: Tensor
    connected: bool
    """Whether the scores depend on the images by gradients at all."""

    @property
    def undefined(self) -> Tensor:
        """(N,) bool: NaN or infinite somewhere."""
        return ~torch.isfinite(self.gradient).flatten(1).all(1)

    @property
    def zero(self) -> Tensor:
        """(N,) bool: 0 everywhere."""
        return (self.gradient == 0).flatten(1).all(1)


@dataclass(frozen=True, eq=False)
class Case:
    """An evaluation, ready to be checked. The model is frozen while a case is open."""

    model: Classifier
    images: ImageSet
    attacks: Sequence[EvasionAttack]
    evaluations: Sequence[RobustEvaluation]
    """By growing epsilon; `attacks` are those of the last one."""
    seed: int
    most: int = LOOKED_AT
    """Images that are looked at."""
    cost: Cost = field(default_factory=Cost)
    """Model calls so far."""

    @cached_property
    def final(self) -> RobustEvaluation:
        """The evaluation that is checked: that of the largest epsilon which left any image."""
        contested = [evaluation for evaluation in self.evaluations if evaluation.robust.any()]
        return contested[-1] if contested else self.evaluations[-1]

    @property
    def norm(self) -> str:
        """The norm of the whole ladder."""
        return self.attacks[-1].norm

    @property
    def epsilon(self) -> float:
        """The radius of the whole ladder in that evaluation."""
        return self.final.attacks[-1].epsilon

    @cached_property
    def nets(self) -> Nets:
        """The model and its fast replica."""
        return Nets.of(self.model, self.x(np.arange(min(4, len(self.images)))))

    @cached_property
    def rungs(self) -> tuple[EvasionAttack, ...]:
        """The attacks, with the members of an ensemble for the ensemble."""
        return tuple(
            member for attack in self.attacks for member in attack.members(self.nets.classes)
        )

    @cached_property
    def white_box(self) -> tuple[EvasionAttack, ...]:
        """Those that follow the model's own gradients, image by image."""
        return tuple(
            rung for rung in self.rungs if rung.knowledge == "white-box" and not rung.one_for_all
        )

    @property
    def most_steps(self) -> int:
        """Gradient steps of the longest of them."""
        return max((rung.planned_steps for rung in self.white_box), default=0)

    @property
    def follows_gradients(self) -> bool:
        """Whether the ladder did so, in a ball: else its gradients are beside the point."""
        return bool(self.white_box) and self.nets.differentiable and NORMS[self.norm].bounded

    @property
    def measurable(self) -> bool:
        """Whether attacks compare: a ball, gradients to follow, the same answers each time."""
        return self.nets.differentiable and NORMS[self.norm].bounded and self.steady

    @cached_property
    def looked_at(self) -> NDArray[np.int64]:
        """Rows of the images that are looked at: some of each part of the set."""
        return spread(np.arange(len(self.images)), self.most)

    @cached_property
    def standing(self) -> NDArray[np.int64]:
        """Rows of those that the ladder left standing."""
        return self.looked_at[self.final.robust[self.looked_at]]

    @cached_property
    def sampled(self) -> NDArray[np.int64]:
        """Rows of some of those."""
        return spread(self.standing, PROBED)

    @cached_property
    def probed(self) -> NDArray[np.int64]:
        """Rows of some images that are right when clean."""
        return spread(np.flatnonzero(self.final.clean_correct), PROBED)

    def overstated(self, fell: int) -> float:
        """Return by how much robust accuracy falls if so many of `sampled` fall."""
        stood = len(self.standing) / max(len(self.looked_at), 1)
        return stood * fell / max(len(self.sampled), 1)

    def x(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the clean images (n, C, H, W)."""
        return to_batch(self.images.images[rows], device_of(self.model))

    def y(self, rows: NDArray[np.int64]) -> Tensor:
        """Return their labels (n,)."""
        return torch.from_numpy(self.images.labels[rows]).to(device_of(self.model))

    def candidates(self, rows: NDArray[np.int64]) -> Tensor:
        """Return what the ladder made of them (n, C, H, W)."""
        x_adv = channels_first(torch.from_numpy(self.final.x_adv[rows]))
        return x_adv.to(device_of(self.model))

    def noise(self, rows: NDArray[np.int64], stream: str) -> Noise:
        """Return random numbers for these images, others for each stream."""
        return Noise(self.seed, torch.from_numpy(rows), 0, f"/soundness/{stream}")

    def driver(self, rows: NDArray[np.int64], epsilon: float, norm: str) -> Driver:
        """Return a driver on these images."""
        search = Search(epsilon=epsilon, norm=norm)
        return Driver(self.nets, self.x(rows), self.y(rows), search, self.cost)

    @torch.no_grad()
    def scores(self, x: Tensor) -> Tensor:
        """Return the model's own scores (N, classes) in float64, as it gives them."""
        self.cost.forward += len(x)
        parts = torch.split(x, _batch_size(x))
        return torch.cat([self.model(part).double() for part in parts])

    @torch.no_grad()
    def errs(self, x: Tensor, y: Tensor) -> Tensor:
        """Say for each image whether the model names another label; NaN is none."""
        scores = self.scores(x)
        return (torch.nan_to_num(scores).argmax(1) != y) & ~torch.isnan(scores).any(1)

    def slope(self, x: Tensor, y: Tensor, loss: Loss) -> Slope:
        """Return the loss and its gradient, from the replica of the model."""
        values, gradients, connected = [], [], True
        self.cost.forward += len(x)
        self.cost.backward += len(x)
        parts = (torch.split(tensor, _batch_size(x)) for tensor in (x, y))
        for part, labels in zip(*parts, strict=True):
            asked = part.detach().clone().requires_grad_(True)
            with torch.enable_grad():
                value = loss(self.nets.fast(asked).float(), labels)
            gradient = None
            if value.requires_grad:
                (gradient,) = torch.autograd.grad(value.sum(), asked, allow_unused=True)
            connected &= gradient is not None
            values.append(value.detach().double())
            gradients.append(torch.zeros_like(asked) if gradient is None else gradient.detach())
        return Slope(torch.cat(values), torch.cat(gradients), connected)

    @cached_property
    def randomised(self) -> bool:
        """Whether the scores change from call to call."""
        whole = self.nets.differentiable  # each image is a request where the model is an app
        x = self.x(self.probed if whole else self.probed[:10])
        first = self.scores(x)
        return any(_differ(first, self.scores(x)) for _ in range(CALLS - 1 if whole else 1))

    @cached_property
    def depends_on_neighbours(self) -> bool:
        """Whether an image's scores change with the batch that it is asked in."""
        x = self.x(self.probed)
        half = max(len(x) // 2, 1)
        return not self.randomised and _differ(self.scores(x)[:half], self.scores(x[:half]))

    @cached_property
    def constant(self) -> bool:
        """Whether all images and all noise get the same scores."""
        x = self.x(self.probed)
        scores = self.scores(torch.cat([x, self.noise(self.probed, "cube").uniform(x)]))
        return bool((scores == scores[0]).all())

    @property
    def steady(self) -> bool:
        """Whether scores can be compared, one call with another."""
        return not self.randomised and not self.depends_on_neighbours


def _batch_size(x: Tensor) -> int:
    """Return how many images fit the cache."""
    return max(8, CACHED_VALUES // max(x[0].numel(), 1))


def _differ(first: Tensor, again: Tensor) -> bool:
    """Say whether scores differ by more than rounding."""
    first, again = torch.nan_to_num(first), torch.nan_to_num(again)
    return bool((first - again).abs().amax() > SAME * (first.amax() - first.amin()))


def spread(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return at most so many of the rows, at even distances: sets are often sorted by class."""
    places = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(np.int64)
    return np.asarray(rows[places])
