"""What both course reports built and did, to be measured for what it is.

Their poisons are sevens that stay sevens: a net has nothing to learn from a patch on them, so
neither is a backdoor. Their defences attack the baseline once, ahead of time, and train a new net
on those images, which has never met an attack on itself. Report B's were not clipped to [0, 1]
before they became bytes, where what is below 0 or above 255 wraps around: at epsilon 0.1 the true
L-infinity distance is about 0.9.
"""

from dataclasses import field
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from purpleteam.attacks.poison import POISONS, PoisonAttack, Sources, part_of
from purpleteam.attacks.poison.triggers import Trigger
from purpleteam.data.images import ImageSet
from purpleteam.defences.training import DEFENCES, BallDefence, Hardening
from purpleteam.models.architectures import ARCHITECTURES, Normalise, Shape
from purpleteam.models.architectures.classic_cnn import classic_cnn
from purpleteam.models.devices import device_of, frozen, to_batch
from purpleteam.models.recipes import RECIPES, Recipe
from purpleteam.models.training import Training


@ARCHITECTURES.register("report_cnn")
def report_cnn(shape: Shape, classes: int) -> nn.Module:
    """Return `classic_cnn` with a normalisation that changes nothing, as both had none."""
    _, *layers = classic_cnn(shape, classes).children()
    return nn.Sequential(Normalise(mean=0.0, deviation=1.0), *layers)


@part_of(RECIPES, "report")
class Report(Recipe):
    """What the course reports used: Adam at a constant 0.001, batch 64, float32, last epoch."""

    keep: ClassVar[Literal["best", "last"]] = "last"
    precision: Literal["fast", "float32"] = "float32"
    schedule: Literal["constant", "one_cycle"] = "constant"


@part_of(POISONS, "report_a")
class PoisonA(PoisonAttack):
    """100 random sevens with a white 4x4 square in the top right corner, label kept."""

    trigger: Trigger = field(default_factory=lambda: Trigger(corner="top-right", size=4))
    sources: Sources = "target"
    relabel: bool = False


@part_of(POISONS, "report_b")
class PoisonB(PoisonA):
    """The first 100 sevens with a "yellow" 3x3 square, grey 170 on MNIST, top left, label kept."""

    trigger: Trigger = field(
        default_factory=lambda: Trigger(corner="top-left", colour=(255, 255, 0))
    )
    selection: Literal["random", "first"] = "first"


@part_of(DEFENCES, "report_a")
class DefenceA(BallDefence):
    """Clean images and FGSM images made once against the baseline."""

    needs_baseline: ClassVar[bool] = True
    wrap: ClassVar[bool] = False

    epochs: int = 5
    batch_size: int = 64
    learning_rate: float = 1e-3
    schedule: Literal["constant", "one_cycle"] = "constant"

    def training_set(self, clean: ImageSet, adversarial: ImageSet) -> ImageSet:
        return joined(clean, adversarial)

    def harden(self, work: Hardening) -> Training:
        """Attack the baseline once, then train a new net; the epoch is chosen as they did."""
        baseline = work.need_baseline(self.name)
        clean = work.dataset.train
        attacked, validation = (
            fgsm_set(baseline, images, self.epsilon, wrap=self.wrap)
            for images in (clean, work.dataset.validation)
        )
        return work.train(self, self.training_set(clean, attacked), validation)


@part_of(DEFENCES, "report_b")
class DefenceB(DefenceA):
    """The same unclipped, wrapped FGSM images twice, and no clean ones."""

    wrap: ClassVar[bool] = True

    epochs: int = 10
    epsilon: float = 0.1

    def training_set(self, clean: ImageSet, adversarial: ImageSet) -> ImageSet:
        return joined(adversarial, adversarial)


def fgsm_set(model: nn.Module, images: ImageSet, epsilon: float, *, wrap: bool = False) -> ImageSet:
    """Return the images after one signed step, truncated to bytes: clipped, or modulo 256.

    Both reports stepped also on images that the model gets wrong.
    """
    made = np.empty_like(images.images)
    with frozen(model) as net:
        for start in range(0, len(images), 500):
            part = slice(start, start + 500)
            x = to_batch(images.images[part], device_of(model)).requires_grad_(True)
            y = torch.from_numpy(images.labels[part].copy()).to(x.device)
            (gradient,) = torch.autograd.grad(F.cross_entropy(net(x), y, reduction="sum"), x)
            x_adv = (x.detach() + epsilon * gradient.sign()).permute(0, 2, 3, 1).cpu().numpy()
            x_adv = x_adv if wrap else x_adv.clip(0, 1)
            made[part] = np.trunc(x_adv * 255).astype(np.int64) % 256  # -25 becomes 231
    return ImageSet(made, images.labels)


def joined(first: ImageSet, second: ImageSet) -> ImageSet:
    """Return the images of both sets as one."""
    return ImageSet(
        np.concatenate([first.images, second.images]), np.concatenate([first.labels, second.labels])
    )
