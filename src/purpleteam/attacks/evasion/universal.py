"""One perturbation for all images (Moosavi-Dezfooli et al. 2017, arXiv:1610.08401).

Found by climbing the mean loss over images (Shafahi et al. 2020, arXiv:1811.11304).
"""

from typing import Self

import torch
from torch import Tensor

from purpleteam.attacks.evasion import ATTACKS, Driver, FittedAttack, Noise, capped_loss, part_of
from purpleteam.attacks.norms import column, distance, steepest
from purpleteam.data.images import ImageSet
from purpleteam.models.inference import Classifier


@part_of(ATTACKS, "universal")
class Universal(FittedAttack):
    """Adds the same perturbation to every image, fitted on images of another split."""

    steps: int = 200
    """Gradient steps of the fit, each over a random mini-batch."""
    fit_images: int = 1000
    """Images that the perturbation is fitted on, at most."""
    step_size: float | None = None
    """Length of a step of the fit; the default is epsilon / 10."""

    def prepare(self, model: Classifier, images: ImageSet, *, seed: int = 0) -> Self:
        step_size = self.epsilon / 10 if self.step_size is None else self.step_size
        perturbation = torch.zeros(1)
        count, fit_on = self.steps if self.epsilon > 0 else 0, images.first(self.fit_images)
        for driver, _ in self.mini_batches(model, fit_on, count, seed):
            moved = driver.x + perturbation.to(driver.x.device)
            gradient = driver.gradient(moved.clamp(0, 1), capped_loss)
            felt = gradient.masked_fill((moved < 0) | (moved > 1), 0)  # the range cuts the rest off
            step = step_size * steepest(felt.mean(0, keepdim=True), self.norm)
            perturbation = perturbation.to(step.device) + step  # (1, C, H, W)
            if self.norm == "linf":
                perturbation = perturbation.clamp(-self.epsilon, self.epsilon)
            else:
                length = distance(perturbation, torch.zeros_like(perturbation), self.norm)
                share = (self.epsilon / length.clamp_min(1e-12)).clamp_max(1)
                perturbation = perturbation * column(share.to(perturbation.dtype))
        return self._with(fitted=perturbation)

    def put(self, fitted: Tensor, driver: Driver, noise: Noise) -> Tensor:
        return driver.x + fitted
