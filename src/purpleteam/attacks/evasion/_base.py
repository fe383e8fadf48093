"""The contract that every evasion attack keeps."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final, get_args

import torch
from torch import Tensor

from purpleteam.attacks.balls import Norm, distance
from purpleteam.attacks.driver import Cost, Driver
from purpleteam.attacks.noise import Noise
from purpleteam.core.errors import unknown
from purpleteam.core.registry import Registry
from purpleteam.models.devices import frozen
from purpleteam.models.inference import Classifier

__all__ = ["ATTACKS", "Attacked", "EvasionAttack"]


@dataclass(frozen=True, eq=False)
class Attacked:
    """What an attack did to a batch.

    Attributes:
        x_adv: (N, C, H, W); the adversarial example where one was found, else the last candidate.
        broken: (N,) bool; the model errs on `x_adv`, confirmed in float32.
        distance: (N,) float64; how far `x_adv` is from the image, in the attack's norm.
        queries: (N,) int64; model calls that each image took.
        cost: model calls in all, counted per image.
        seconds: wall-clock time.
    """

    x_adv: Tensor
    broken: Tensor
    distance: Tensor
    queries: Tensor
    cost: Cost
    seconds: float


@dataclass(frozen=True, kw_only=True)
class EvasionAttack(ABC):
    """Changes images at test time so that the classifier errs.

    A subclass is its own configuration: its fields are its options and its row in the report.
    """

    name: ClassVar[str] = ""
    knowledge: ClassVar[str] = "white-box"

    norm: Norm = "linf"
    """How the size of a perturbation is measured."""
    epsilon: float = 0.3
    """Radius of the ball, in pixel units of [0, 1]."""

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm):
            raise ValueError(unknown("norm", self.norm, get_args(Norm)))
        if not 0 <= self.epsilon < float("inf"):
            raise ValueError(f"epsilon must be at least 0 and finite, not {self.epsilon}")
        if self.norm == "linf" and self.epsilon > 1:
            raise ValueError(
                f"epsilon is in pixel units of [0, 1], so at most 1 in linf, not {self.epsilon:g} "
                f"(did you mean {self.epsilon:g}/255 = {self.epsilon / 255:.4f}?)"
            )
        for count in ("steps", "restarts"):
            if getattr(self, count, 1) < 1:
                raise ValueError(f"{count} must be at least 1, not {getattr(self, count)}")

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "__call__" in cls.__dict__ or "run" in cls.__dict__:
            raise TypeError(f"{cls.__name__} may only write `perturb`; the base keeps the promise")

    @final
    def __call__(
        self, model: Classifier, x: Tensor, y: Tensor, *, seed: int = 0, index: Tensor | None = None
    ) -> Tensor:
        """Return the images that `run` finds, (N, C, H, W) in [0, 1] within epsilon of `x`."""
        return self.run(model, x, y, seed=seed, index=index).x_adv

    @final
    def run(
        self, model: Classifier, x: Tensor, y: Tensor, *, seed: int = 0, index: Tensor | None = None
    ) -> Attacked:
        """Attack a batch; the model, its mode, its gradients and the tensors are left alone.

        Args:
            model: images in [0, 1] to logits.
            x: float32 (N, C, H, W) in [0, 1].
            y: int64 (N,), the labels that the adversary wants the model to miss.
            seed: all noise is a pure function of it and of each image's index.
            index: (N,), each image's place in its dataset; the default counts from 0.
        """
        started = time.perf_counter()
        x = x.detach()
        index = torch.arange(len(x)) if index is None else index
        x_adv, cost = x.clone(), Cost()
        broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        queries = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        with frozen(model):
            for restart in range(self.planned_restarts):
                rows = (~broken).nonzero().flatten()
                if len(rows) == 0:
                    break
                driver = Driver(
                    model, x[rows], y[rows], epsilon=self.epsilon, norm=self.norm, cost=cost
                )
                noise = Noise(seed, index[rows.cpu()], restart)
                candidate = self.perturb(driver, x[rows], noise)
                x_adv[rows] = driver.settle(candidate)
                broken[rows] = driver.broken
                queries[rows] += driver.queries
        seconds = time.perf_counter() - started
        return Attacked(x_adv, broken, distance(x_adv, x, self.norm), queries, cost, seconds)

    @property
    def planned_steps(self) -> int:
        """Gradient steps a restart."""
        return int(getattr(self, "steps", 1))

    @property
    def planned_restarts(self) -> int:
        """Independent starts; only images that still stand get another."""
        return int(getattr(self, "restarts", 1))

    @abstractmethod
    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        """Return candidates for `x`, asking `driver.gradient`; the base projects and judges."""


ATTACKS: Registry[type[EvasionAttack]] = Registry("attack")
