"""Training recipes by name: how many epochs, at what rate, on which augmented images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from purpleteam.core.registry import Registry

__all__ = ["RECIPES", "Accurate", "Freehand", "Plain", "Recipe"]

RECIPES: Registry[type[Recipe]] = Registry("recipe")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a classifier is trained; Adam (Kingma and Ba 2015, arXiv:1412.6980)."""

    keep: ClassVar[Literal["best", "last"]] = "best"
    """Which epoch's weights are kept: the best by validation, or the last."""

    epochs: int = 5
    """Passes over the training images."""
    batch_size: int = 64
    """Images a step."""
    learning_rate: float = 1e-3
    """Largest step size of Adam."""
    schedule: Literal["constant", "one_cycle"] = "one_cycle"
    """`one_cycle` rises for a quarter of the training, then falls to 0 (arXiv:1708.07120)."""
    weight_decay: float = 0.0
    """Decoupled weight decay (arXiv:1711.05101)."""
    augmentation: str = "none"
    """What is done to the images: none, shift, freehand."""
    precision: Literal["fast", "float32"] = "fast"
    """`fast` is bfloat16 autocast where the hardware is faster at it, else float32."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate must be above 0, not {self.learning_rate}")
        if not 0 <= self.weight_decay < float("inf"):
            raise ValueError(f"weight_decay must be at least 0, not {self.weight_decay}")


@RECIPES.register("plain")
@dataclass(frozen=True, kw_only=True)
class Plain(Recipe):
    """Images as they are; what a poisoned set and its clean twin are trained with."""

    learning_rate: float = 2e-3


@RECIPES.register("accurate")
@dataclass(frozen=True, kw_only=True)
class Accurate(Recipe):
    """Shifted images for a few epochs more: the baseline that is attacked and defended."""

    epochs: int = 8
    learning_rate: float = 2e-3
    augmentation: str = "shift"


@RECIPES.register("freehand")
@dataclass(frozen=True, kw_only=True)
class Freehand(Recipe):
    """Turned, scaled and redrawn strokes: for a model that people draw for."""

    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 4e-3
    weight_decay: float = 0.02
    augmentation: str = "freehand"
