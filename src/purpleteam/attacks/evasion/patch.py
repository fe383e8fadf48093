"""Adversarial patch (Brown et al. 2017, arXiv:1712.09665): one square for all images and places.

A patch changes a few values as much as it likes, so its ball is one in L0.
"""

import math
from typing import Self

import torch
from torch import Tensor

from purpleteam.attacks.evasion import ATTACKS, Driver, FittedAttack, Noise, capped_loss, part_of
from purpleteam.data.images import ImageSet
from purpleteam.models.inference import Classifier

Window = tuple[Tensor, slice, Tensor, Tensor]  # of each image, as an index into (N, C, H, W)


@part_of(ATTACKS, "patch")
class Patch(FittedAttack):
    """Puts one square anywhere on the image, fitted on another split, over images and places."""

    norms = ("l0",)
    ranges = "places at least 1"

    norm: str = "l0"
    epsilon: float = 49.0
    """Values that the patch may cover: 49 are 7 x 7 pixels in grey, 147 in colour."""
    steps: int = 300
    """Gradient steps of the fit, each over a random mini-batch at random places."""
    fit_images: int = 1000
    """Images that the patch is fitted on, at most."""
    step_size: float = 0.05
    """Length of a step of the fit, for each value of the patch."""
    places: int = 10
    """Random places that are tried on each image."""

    def prepare(self, model: Classifier, images: ImageSet, *, seed: int = 0) -> Self:
        height, width, channels = images.images.shape[1:]
        side = min(math.isqrt(int(self.epsilon) // channels), height, width)
        patch = torch.full((side, side, channels), 0.5)
        count, fit_on = self.steps if side else 0, images.first(self.fit_images)
        for driver, rng in self.mini_batches(model, fit_on, count, seed):
            patch = patch.to(driver.x.device)
            window = _window(driver.x, side, torch.from_numpy(rng.random((len(driver.x), 2))))
            gradient = driver.gradient(_pasted(driver.x, patch, window), capped_loss)
            step = self.step_size * gradient[window].mean(0).sign()  # over images and places
            patch = (patch + step).clamp(0, 1)  # (side, side, C)
        return self._with(fitted=patch)

    def put(self, fitted: Tensor, driver: Driver, noise: Noise) -> Tensor:
        x_adv = x = driver.x
        for place in noise.uniform(x.new_empty(len(x), self.places, 2)).unbind(1):
            x_adv = _pasted(x, fitted, _window(x, len(fitted), place))
            standing = driver.standing.nonzero().flatten()
            driver.errs(x_adv[standing], standing)
        return x_adv


def _window(x: Tensor, side: int, place: Tensor) -> Window:
    """Return the window at `place` (N, 2), in shares of the room that there is."""
    room = torch.tensor([x.shape[2] - side + 1, x.shape[3] - side + 1], device=x.device)
    top, left = (place.to(x.device) * room).long().minimum(room - 1).unbind(1)
    span = torch.arange(side, device=x.device)
    image = torch.arange(len(x), device=x.device).view(-1, 1, 1)
    return image, slice(None), (top[:, None] + span)[:, :, None], (left[:, None] + span)[:, None]


def _pasted(x: Tensor, patch: Tensor, window: Window) -> Tensor:
    x_adv = x.clone()
    x_adv[window] = patch  # (N, side, side, C)
    return x_adv
