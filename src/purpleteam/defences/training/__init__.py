"""Defences by training, one file each: `DEFENCES` has them; each trains a model on a dataset.

- `pgd` against the current model, several steps; `fast` a single step from a random start;
  `trades` weighs what is right on clean images against how far an attack moves the answers
- `ibp` on the worst that interval bounds allow, for certified accuracy; `crown_ibp` begins with
  tighter bounds, `sabr` bounds small boxes around attacks, `mtl_ibp` mixes bound and attack
- `noise` under the noise of randomized smoothing, for certified L2 radii
- `dp_sgd` with differential privacy: what is learned of each image is bounded
"""

import sys
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import nn

from purpleteam.core.errors import UsageError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.registry import Registry, part_of
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.models.adapters import Normalisation, Normalised
from purpleteam.models.recipes import Recipe
from purpleteam.models.training import Objective, Steps, Training, Validation, cross_entropy, train

__all__ = ["DEFENCES", "BallDefence", "Defence", "Growth", "Hardening", "part_of", "ramped"]

Growth = Literal["linear", "smoothed"]


@dataclass(frozen=True, kw_only=True)
class Hardening:
    """What a defence works with."""

    net: nn.Module
    """A net with its starting weights."""
    dataset: Dataset
    baseline: nn.Module | None = None
    """The undefended model; only recipes that attack it ahead of time need it."""
    seed: int = 0
    checkpoint: Path | None = None
    """A file to continue from, written after each epoch."""
    device: torch.device | None = None
    description: str = "harden"
    progress: Progress = SILENT
    budget_seconds: float | None = None
    """Stop before an epoch that would go beyond it."""

    def train(
        self,
        recipe: Recipe,
        images: ImageSet,
        validation: ImageSet,
        *,
        objective: Objective = cross_entropy,
        validate: Callable[[nn.Module], Validation] | None = None,
        steps: Steps | None = None,
    ) -> Training:
        """Train the net, behind its ramp if it has one, with seed, checkpoint, budget set here."""
        net = self.net
        if isinstance(recipe, BallDefence) and recipe.ramp:
            if isinstance(net, Normalised):
                raise UsageError(
                    "a net behind a normalisation takes no ramp: leave one of them out"
                )
            net = Normalisation.ramp(recipe.epsilon).before(net)
        return train(
            net,
            images,
            validation,
            recipe,
            seed=self.seed,
            objective=objective,
            validate=validate,
            steps=steps,
            checkpoint=self.checkpoint,
            device=self.device,
            description=self.description,
            progress=self.progress,
            budget_seconds=self.budget_seconds,
        )

    def need_baseline(self, name: str) -> nn.Module:
        """Return the baseline; recipes that attack it ahead of time cannot do without."""
        if self.baseline is None:
            raise UsageError(f"recipe {name!r} attacks a baseline ahead of time: give --model")
        return self.baseline


@dataclass(frozen=True, kw_only=True)
class Defence(Recipe):
    """A training recipe that protects a model or what it learned; its fields are its options."""

    needs_baseline: ClassVar[bool] = False
    """Whether it attacks an undefended model beforehand."""

    @abstractmethod
    def harden(self, work: Hardening) -> Training:
        """Train the net in `work` and return it."""


@dataclass(frozen=True, kw_only=True)
class BallDefence(Defence):
    """A defence that is meant to make a model robust in a ball of radius `epsilon`."""

    ranges: ClassVar[str] = "epsilon above 0 and at most 1"

    epsilon: float = 0.3
    """Radius of the L-infinity ball that is trained for, in pixel units."""
    ramp: bool = False
    """Put the input ramp of that epsilon, below 0.5, in front of the net: `--normalise ramp=E`."""


def ramped(
    epsilon: float, done: float, start: float, stop: float, growth: Growth = "linear"
) -> float:
    """Return the radius after a fraction of the training: it grows from 0 at `start` to `epsilon`.

    Args:
        epsilon: the radius from `stop` on.
        done: the fraction of the training that is done.
        start: the fraction until which the radius is 0.
        stop: the fraction from which it is whole; at most `start` for no ramp at all.
        growth: a straight line, or one whose first quarter is the fourth power that meets it
            without a kink, so that the first steps are small (Shi et al. 2021, arXiv:2103.17268).
    """
    if done >= stop:
        return epsilon
    if done <= start:
        return 0.0
    share = (done - start) / (stop - start)
    if growth == "linear":
        return epsilon * share
    bend, power = 0.25, 4
    # The line through (1, 1) that leaves `height` at the bend with the slope of the power there.
    height = bend / (bend + power * (1 - bend))
    if share < bend:
        return epsilon * height * (share / bend) ** power
    return epsilon * (height + (1 - height) * (share - bend) / (1 - bend))


DEFENCES: Registry[type[Defence]] = Registry("defence")


DEFENCES.load(sys.modules[__name__])
