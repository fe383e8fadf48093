"""One perturbation for all images (Moosavi-Dezfooli et al. 2017, arXiv:1610.08401).

Found by climbing the mean loss over images (Shafahi et al. 2020, arXiv:1811.11304).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from purpleteam.attacks.driver import Driver
from purpleteam.attacks.evasion._base import (
    ATTACKS,
    EvasionAttack,
    GradientAttack,
    capped_loss,
    mini_batches,
    not_fitted,
)
from purpleteam.attacks.noise import Noise
from purpleteam.attacks.norms import distance, steepest
from purpleteam.data.images import ImageSet
from purpleteam.models.inference import Classifier


@ATTACKS.register("universal")
@dataclass(frozen=True, kw_only=True)
class Universal(GradientAttack):
    """Adds the same perturbation to every image, fitted on images of another split."""

    one_for_all: ClassVar[bool] = True

    steps: int = 200
    """Gradient steps of the fit, each over a random mini-batch."""
    fit_images: int = 1000
    """Images that the perturbation is fitted on, at most."""
    step_size: float | None = None
    """Length of a step of the fit; the default is epsilon / 10."""

    def prepare(self, model: Classifier, images: ImageSet, *, seed: int = 0) -> EvasionAttack:
        """Return the attack with its perturbation found."""
        step_size = self.epsilon / 10 if self.step_size is None else self.step_size
        perturbation = torch.zeros(1)
        count = self.steps if self.epsilon > 0 else 0
        fit_on = images.first(self.fit_images)
        for driver, _ in mini_batches(model, fit_on, self.norm, count, seed, self.samples):
            moved = driver.x + perturbation.to(driver.x.device)
            gradient = driver.gradient(moved.clamp(0, 1), capped_loss)
            felt = gradient.masked_fill((moved < 0) | (moved > 1), 0)  # the range cuts the rest off
            step = step_size * steepest(felt.mean(0, keepdim=True), self.norm)
            perturbation = self._shortened(perturbation.to(step.device) + step)  # (1, C, H, W)
        return _Added(norm=self.norm, epsilon=self.epsilon, perturbation=perturbation)

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        raise not_fitted(self.name)

    def _shortened(self, perturbation: Tensor) -> Tensor:
        """Return the perturbation within epsilon of 0; unlike an image it may be negative."""
        if self.norm == "linf":  # value by value: what is within stays as it is
            return perturbation.clamp(-self.epsilon, self.epsilon)
        length = distance(perturbation, torch.zeros_like(perturbation), self.norm)
        share: Tensor = (self.epsilon / length.clamp_min(1e-12)).clamp_max(1)
        return perturbation * share.to(perturbation.dtype).view(-1, 1, 1, 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Added(EvasionAttack):
    """The fitted attack: one perturbation, (1, C, H, W)."""

    name = Universal.name
    one_for_all = True
    perturbation: Tensor

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        return x + self.perturbation.to(x.device)
