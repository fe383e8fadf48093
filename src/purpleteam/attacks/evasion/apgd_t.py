"""Targeted Auto-PGD: one wrong class after the other (Croce & Hein 2020, arXiv:2003.01690)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from purpleteam.attacks.driver import Driver
from purpleteam.attacks.evasion._apgd import AutoPGD
from purpleteam.attacks.evasion._base import ATTACKS
from purpleteam.attacks.losses import targeted_dlr, targeted_margin
from purpleteam.attacks.noise import Noise
from purpleteam.core.errors import UsageError


@ATTACKS.register("apgd_t")
@dataclass(frozen=True, kw_only=True)
class APGDT(AutoPGD):
    """Aims at the likeliest wrong classes in turn, as long as an image stands."""

    targets: int = 9
    """Most wrong classes that are aimed at, the likeliest first."""
    loss: Literal["dlr", "margin"] = "dlr"
    """What is climbed; the ratio `dlr` needs 4 classes, the margin of the target none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.targets < 1:
            raise ValueError(f"targets must be at least 1, not {self.targets}")

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        if self.loss == "dlr" and driver.classes < 4:
            raise UsageError(
                f"{self.name}: its loss needs at least 4 classes, the model has {driver.classes}; "
                f"try {self.name}:loss=margin"
            )
        loss = targeted_dlr if self.loss == "dlr" else targeted_margin
        wrong = driver.logits(x).scatter(1, driver.y.unsqueeze(1), -torch.inf)
        x_adv = x
        for target_label in wrong.topk(min(self.targets, driver.classes - 1)).indices.unbind(1):
            if not driver.standing.any():
                break
            x_adv = self.climb(driver, x, noise, loss, target_label)
        return x_adv
