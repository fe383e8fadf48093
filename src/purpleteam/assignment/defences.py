"""Both course reports' defences exactly as they did them, to be measured white-box.

Each attacks the undefended baseline once, ahead of time, and trains a new net on those images.
That net has never met an attack on itself.

- Report A: the clean images and FGSM images at epsilon 0.3, five epochs.
- Report B: FGSM images at epsilon 0.1 twice and no clean images, ten epochs. The attack was not
  clipped to [0, 1] and its result was cast to bytes, where what is below 0 or above 255 wraps
  around: the true L-infinity distance is about 0.9.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from purpleteam.data.images import ImageSet
from purpleteam.defences.training._base import DEFENCES, Defence, Hardening
from purpleteam.models.devices import device_of, frozen, to_batch
from purpleteam.models.training import Training


@dataclass(frozen=True, kw_only=True)
class _AheadOfTime(Defence):
    needs_baseline: ClassVar[bool] = True

    batch_size: int = 64
    learning_rate: float = 1e-3
    schedule: Literal["constant", "one_cycle"] = "constant"

    def adversarial_set(self, baseline: nn.Module, images: ImageSet) -> ImageSet:
        """Return the images that were made against the baseline, as bytes."""
        raise NotImplementedError

    def training_set(self, clean: ImageSet, adversarial: ImageSet) -> ImageSet:
        """Return what the new net learns from."""
        raise NotImplementedError

    def harden(self, work: Hardening) -> Training:
        """Attack the baseline once, then train a new net; the epoch is chosen as they did."""
        baseline = work.need_baseline(self.name)
        clean = work.dataset.train
        images = self.training_set(clean, self.adversarial_set(baseline, clean))
        validation = self.adversarial_set(baseline, work.dataset.validation)
        return work.train(self, images, validation)


@DEFENCES.register("report_a")
@dataclass(frozen=True, kw_only=True)
class ReportA(_AheadOfTime):
    """Clean images and FGSM images made once against the baseline."""

    epochs: int = 5

    def adversarial_set(self, baseline: nn.Module, images: ImageSet) -> ImageSet:
        return fgsm_set(baseline, images, self.epsilon)

    def training_set(self, clean: ImageSet, adversarial: ImageSet) -> ImageSet:
        return _joined(clean, adversarial)


@DEFENCES.register("report_b")
@dataclass(frozen=True, kw_only=True)
class ReportB(_AheadOfTime):
    """The same unclipped, wrapped FGSM images twice, and no clean ones."""

    epochs: int = 10
    epsilon: float = 0.1

    def adversarial_set(self, baseline: nn.Module, images: ImageSet) -> ImageSet:
        return wrapped_fgsm_set(baseline, images, self.epsilon)

    def training_set(self, clean: ImageSet, adversarial: ImageSet) -> ImageSet:
        return _joined(adversarial, adversarial)


def fgsm_set(model: nn.Module, images: ImageSet, epsilon: float) -> ImageSet:
    """Return course report A's images: one signed step, clipped to [0, 1], truncated to bytes."""
    parts = [(x_adv.clip(0, 1) * 255).astype(np.uint8) for x_adv in _steps(model, images, epsilon)]
    return ImageSet(np.concatenate(parts), images.labels)


def wrapped_fgsm_set(model: nn.Module, images: ImageSet, epsilon: float) -> ImageSet:
    """Return course report B's images: one signed step, not clipped, cast to bytes modulo 256."""
    parts = [_wrap(x_adv) for x_adv in _steps(model, images, epsilon)]
    return ImageSet(np.concatenate(parts), images.labels)


def _steps(model: nn.Module, images: ImageSet, epsilon: float) -> Iterator[NDArray[np.float32]]:
    """Step on every image, also on those that the model gets wrong, as both reports did."""
    with frozen(model) as net:
        for start in range(0, len(images), 500):
            x = to_batch(images.images[start : start + 500], device_of(model)).requires_grad_(True)
            y = torch.from_numpy(images.labels[start : start + 500].copy()).to(x.device)
            (gradient,) = torch.autograd.grad(F.cross_entropy(net(x), y, reduction="sum"), x)
            yield (x.detach() + epsilon * gradient.sign()).permute(0, 2, 3, 1).cpu().numpy()


def _wrap(x_adv: NDArray[np.float32]) -> NDArray[np.uint8]:
    whole = np.trunc(x_adv * 255).astype(np.int64)  # -25 becomes 231, 280 becomes 24
    return (whole % 256).astype(np.uint8)


def _joined(first: ImageSet, second: ImageSet) -> ImageSet:
    return ImageSet(
        np.concatenate([first.images, second.images]), np.concatenate([first.labels, second.labels])
    )
