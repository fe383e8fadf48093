"""The net of the two course reports, and how they trained it; nothing else here names either."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from purpleteam.models.architectures import ARCHITECTURES, Normalise, Shape
from purpleteam.models.recipes import RECIPES, Recipe


@ARCHITECTURES.register("seed_cnn")
def seed_cnn(shape: Shape, classes: int) -> nn.Module:
    """Return `classic_cnn` with a normalisation that changes nothing, as the reports had none."""
    layers = list(ARCHITECTURES["classic_cnn"](shape, classes).children())
    return nn.Sequential(Normalise(mean=0.0, deviation=1.0), *layers[1:])


@RECIPES.register("seed")
@dataclass(frozen=True, kw_only=True)
class Seed(Recipe):
    """What the course reports used: Adam at a constant 0.001, batch 64, float32, last epoch."""

    keep: ClassVar[Literal["best", "last"]] = "last"
    precision: Literal["fast", "float32"] = "float32"
    schedule: Literal["constant", "one_cycle"] = "constant"
