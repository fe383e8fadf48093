"""Evasion attacks: change the image at test time. One file per attack, found by existing.

Here is the promise that each keeps (ball, range, the model left alone, noise seeded per image by
index); a file holds only its formula, and takes what it needs from here.
"""

from __future__ import annotations

import copy
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import Any, ClassVar, Self, final

import numpy as np
import torch
from torch import Tensor

from purpleteam.attacks.driver import Cost, Driver, Search, cross_entropy
from purpleteam.attacks.inputs import check_labels, checked, checked_index
from purpleteam.attacks.norms import DENSE, NORMS, Noise, distance
from purpleteam.core.errors import UsageError, unknown
from purpleteam.core.registry import Registry, check_ranges, part_of
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import device_of, forked, frozen, to_batch
from purpleteam.models.inference import Classifier, Nets

__all__ = ["ATTACKS", "Attacked", "Driver", "Ensemble", "EvasionAttack", "FittedAttack"]
__all__ += ["GradientAttack", "MinimumNormAttack", "Noise", "QueryAttack", "part_of"]

ROUNDING = 2e-7  # by which float32 may leave the ball: of its radius, and of each value's range
MINI_BATCH = 128  # images at a time where one perturbation is fitted for all
ENOUGH = 9.0  # loss beyond which an image must not outweigh those that still stand


class Attacked:
    """What an attack did to a batch; at first nothing to any image."""

    def __init__(self, x: Tensor) -> None:
        self.x_adv = x.clone()  # (N, C, H, W); an example where one was found, else a candidate
        self.queries = torch.zeros(len(x), dtype=torch.int64, device=x.device)  # model calls (N,)
        self.steps = torch.zeros_like(self.queries)  # those that were steps of the search
        self.broken = self.queries.bool()  # the model errs on x_adv, confirmed, within epsilon
        self.distance = torch.full((len(x),), torch.inf, device=x.device).double()
        self.cost = Cost()
        self.seconds = 0.0

    def take(self, driver: Driver, rows: Tensor, candidate: Tensor) -> None:
        """Take over what one driver found: the nearest example, else the last candidate."""
        length = torch.where(driver.broken, driver.nearest_distance, torch.inf)
        better = (length < self.distance[rows]) | ~self.broken[rows]
        self.x_adv[rows[better]] = candidate[better]
        self.distance[rows] = torch.minimum(length, self.distance[rows])
        self.broken[rows] |= driver.broken
        self.queries[rows] += driver.queries
        self.steps[rows] += driver.steps


@dataclass(frozen=True, kw_only=True)
class EvasionAttack(ABC):
    """Changes images so that the classifier errs; its fields are its options and report row."""

    name: ClassVar[str] = ""
    knowledge: ClassVar[str] = "white-box"
    """What the adversary knows: white-box, score-based, decision-based or transfer."""
    norms: ClassVar[Sequence[str]] = DENSE  # in which the attack is defined
    nearest: ClassVar[bool] = False  # look for the nearest example rather than any in the ball
    in_box: ClassVar[bool] = False  # steps where the model's first layer has a slope: `inside_box`
    one_for_all: ClassVar[bool] = False  # tries on each image what was fitted on others
    ranges: ClassVar[str] = (
        "steps at least 1; restarts at least 1; queries at least 1; samples at least 1; "
        "step_size above 0 and finite"
    )
    """Of the options that a class adds, as `check_ranges` reads them; here those of common ones."""

    norm: str = "linf"
    """How the size of a perturbation is measured."""
    epsilon: float = 0.3
    """Radius of the ball, in pixel units of [0, 1]."""

    def __post_init__(self) -> None:
        if self.norm not in self.norms:
            raise ValueError(unknown("norm", self.norm, self.norms))
        given: object = self.epsilon
        if not isinstance(given, Real):
            raise ValueError(f"epsilon must be a number such as 8 / 255, not {given!r}")
        if not (self.nearest and self.epsilon == float("inf")):
            if not 0 <= self.epsilon < float("inf"):
                raise ValueError(f"epsilon must be at least 0 and finite, not {self.epsilon}")
            if self.epsilon > (most := NORMS[self.norm].largest_epsilon):
                levels = f"{self.epsilon:g}/255 = {self.epsilon / 255:.4f}"
                raise ValueError(
                    f"epsilon is in pixel units of [0, 1], so at most {most:g} in {self.norm}, "
                    f"not {self.epsilon:g} (did you mean {levels}?)"
                )
        check_ranges(self)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "__call__" in cls.__dict__ or "run" in cls.__dict__:
            raise TypeError(f"{cls.__name__} may only write `perturb`; the base keeps the promise")

    @final
    def __call__(
        self, model: Classifier, x: Tensor, y: Tensor, *, seed: int = 0, index: Tensor | None = None
    ) -> Tensor:
        """Return the images that `run` finds, (N, C, H, W) in [0, 1] within epsilon of `x`."""
        return self.run(model, x, y, seed=seed, index=index, verdicts=False).x_adv

    @final
    def run(
        self,
        model: Classifier | Nets,
        x: Tensor,
        y: Tensor,
        *,
        seed: int = 0,
        index: Tensor | None = None,
        stream: str = "",
        verdicts: bool = True,
    ) -> Attacked:
        """Attack a batch; the model, its mode, its gradients and the tensors are left alone.

        Args:
            model: images in [0, 1] to logits; where it draws random numbers, an image counts as
                broken when the mean of its answers errs.
            x: float32 (N, C, H, W) in [0, 1], at least one.
            y: int64 (N,), the labels that the adversary wants the model to miss.
            seed: all noise is a pure function of it and of each image's index.
            index: (N,), each image's place in its dataset; the default counts from 0.
            stream: which ensemble the attack works for.
            verdicts: whether anybody reads `broken`: if not, the last call is saved.

        Raises:
            UsageError: there are no images or labels, or the model tells less than is needed.
            ModelError: the model's own code failed.
        """
        started = time.perf_counter()
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            x, y = checked(x, y)
            index = checked_index(index, len(x))
            stack.enter_context(frozen(model.model if isinstance(model, Nets) else model))
            nets = Nets.of(model, x)
            check_labels(y, nets.classes)
            self._check_knowledge(nets)
            if nets.random:
                stack.enter_context(forked(x.device))
                Noise(seed, index, stream=f"{stream}/model").seed_torch()
            best = Attacked(x)
            members = self.rungs(nets)
            confirm = verdicts or len(members) > 1 or self.planned_restarts > 1
            done = torch.zeros_like(best.broken)
            for member in members:
                part = stream if member is self else f"/{self.name}/{member.name}"
                for restart in range(member.planned_restarts):
                    rows = (~done).nonzero().flatten()
                    if len(rows) == 0:
                        break
                    driver = Driver(nets, x[rows], y[rows], member.search(), best.cost)
                    noise = Noise(seed, index[rows.cpu()], restart, part)
                    last = member.perturb(driver, x[rows], noise)
                    best.take(driver, rows, driver.settle(last, confirm=confirm))
                    if driver.search.stop_inside:
                        done[rows] |= driver.broken
                    if isinstance(self, Ensemble):  # the next member leaves a broken image alone
                        done |= best.broken
        best.seconds = time.perf_counter() - started
        best.distance = distance(best.x_adv, x, self.norm)
        most = float(best.distance.max()) if NORMS[self.norm].bounded else 0.0
        cube = NORMS[self.norm].whole_cube(x[0].numel())
        bound = self.epsilon + ROUNDING * (self.epsilon + cube)
        if most > bound or not bool(((best.x_adv >= 0) & (best.x_adv <= 1)).all()):
            raise RuntimeError(
                f"attack {self.name or type(self).__name__!r} broke its promise: an image lies "
                f"{most:.6g} away in {self.norm} (epsilon is {self.epsilon:g}) or outside [0, 1]; "
                "this is an error in the attack"
            )
        return best

    @property
    def planned_steps(self) -> int:
        """Steps a restart: gradient steps, or queries where there are no gradients."""
        return int(getattr(self, "steps", getattr(self, "queries", 1)))

    @property
    def planned_restarts(self) -> int:
        """Independent starts; only images that still stand get another."""
        return int(getattr(self, "restarts", 1))

    def prepare(self, model: Classifier, images: ImageSet, *, seed: int = 0) -> EvasionAttack:
        """Return the attack with what it takes from other images than those it is judged on."""
        return self

    def members(self, classes: int) -> tuple[EvasionAttack, ...]:
        """Return the attacks that this one consists of, in their order."""
        return (self,)

    @final
    def rungs(self, nets: Nets) -> tuple[EvasionAttack, ...]:
        """Return the members that say something about the model: those in a box need one."""
        members = self.members(nets.classes)
        elsewhere = tuple(member for member in members if not member.in_box)
        return members if nets.sloped is not None else elsewhere or members

    def inside_box(self) -> Self:
        """Return the attack in the box that an input ramp makes of the ball, see `driver.Box`."""
        return self._with(in_box=True, name=f"box_{self.name}")

    def search(self) -> Search:
        """Return what the driver is to look for: options of the same names, and the class's."""
        names = [part.name for part in fields(Search) if hasattr(self, part.name)]
        return Search(**{name: getattr(self, name) for name in names})

    @abstractmethod
    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        """Return candidates for `x`, asking the driver; the base projects and confirms them."""

    def _with(self, **facts: object) -> Self:
        attack = copy.copy(self)
        for name, fact in facts.items():
            object.__setattr__(attack, name, fact)
        return attack

    def _check_knowledge(self, nets: Nets) -> None:
        gives = nets.model.gives
        enough = {"white-box": nets.differentiable, "score-based": gives == "scores"}
        for member in self.rungs(nets):
            if enough.get(member.knowledge, True):
                continue
            fitting = [
                name
                for name, kind in ATTACKS.items()
                if not issubclass(kind, Ensemble) and enough.get(kind.knowledge, True)
            ]
            lacking = f"the model gives only {gives}"
            if blind := getattr(nets.model.model, "blind", ""):
                lacking += f" ({blind})"
            if nets.model.differentiable and gives == "scores":
                lacking = (
                    "no gradient of the model reaches the images "
                    "(inference_mode, no_grad, detach or quantised layers in its forward?)"
                )
            raise UsageError(
                f"attack {self.name!r} is {member.knowledge}, {lacking}; "
                f"attacks that need no more: {', '.join(fitting)}"
            )


ATTACKS: Registry[type[EvasionAttack]] = Registry("attack")


@dataclass(frozen=True, kw_only=True)
class GradientAttack(EvasionAttack):
    """Follows the model's gradients; where these are random, their mean over several draws.

    Expectation over transformation (Athalye et al. 2018, arXiv:1707.07397, arXiv:1802.00420).
    """

    samples: int = 1
    """Draws that are averaged at each point, for a model whose answers are random."""


@dataclass(frozen=True, kw_only=True)
class MinimumNormAttack(GradientAttack):
    """Looks for the nearest adversarial example; `broken` says whether it is within epsilon."""

    norms: ClassVar[Sequence[str]] = ("l2",)
    nearest = True

    norm: str = "l2"
    epsilon: float = float("inf")
    """Radius within which an image counts as broken; with none, the nearest example is returned."""
    stop_inside: bool = False
    """Leave an image alone once an example inside the ball is found; another may be nearer."""


@dataclass(frozen=True, kw_only=True)
class QueryAttack(EvasionAttack):
    """Asks the model for answers alone, within a budget for each image."""

    knowledge = "score-based"

    queries: int = 5000
    """Most model calls for one image."""


@dataclass(frozen=True, kw_only=True)
class Ensemble(EvasionAttack):
    """Several attacks in turn, each on the images that the ones before left standing."""

    @property
    def ball(self) -> dict[str, Any]:
        return {"norm": self.norm, "epsilon": self.epsilon}

    @abstractmethod
    def members(self, classes: int) -> tuple[EvasionAttack, ...]:
        """Return the attacks in their order; all in this one's norm and epsilon."""

    @final
    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        raise TypeError(f"{self.name} has no step of its own; its members have")


@dataclass(frozen=True, kw_only=True)
class FittedAttack(GradientAttack):
    """The same for all images: `prepare` fits it on others than those it is judged on."""

    one_for_all = True
    fitted: ClassVar[Tensor | None] = None
    """What was fitted; no option, so no field."""

    def search(self) -> Search:
        return Search(epsilon=self.epsilon, norm=self.norm)

    @final
    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        if self.fitted is None:
            raise UsageError(
                f"attack {self.name!r} is the same for all images, so it is fitted before it is "
                "run, on other images than those it is judged on: "
                f"ATTACKS[{self.name!r}](...).prepare(model, images)"
            )
        return self.put(self.fitted.to(x.device), driver, noise)

    @abstractmethod
    def put(self, fitted: Tensor, driver: Driver, noise: Noise) -> Tensor:
        """Return candidates for `driver.x`, from what was fitted."""

    def mini_batches(
        self, model: Classifier, images: ImageSet, count: int, seed: int
    ) -> Iterator[tuple[Driver, np.random.Generator]]:
        """Yield the model as seen on random mini-batches, and the generator of the fit's draws."""
        rng, device = np.random.default_rng(seed), device_of(model)
        endless = replace(super().search(), epsilon=float("inf"), nearest=True, stop_inside=False)
        with frozen(model):
            nets = Nets.of(model, to_batch(images.images[:4], device))
            for _ in range(count):
                rows = rng.choice(len(images), min(MINI_BATCH, len(images)), replace=False)
                x = to_batch(images.images[rows], device)
                y = torch.from_numpy(images.labels[rows]).to(device)
                yield Driver(nets, x, y, endless, Cost()), rng


def capped_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy, cut off where more of it would gain nothing (arXiv:1811.11304)."""
    return cross_entropy(logits, y).clamp_max(ENOUGH)


ATTACKS.load(sys.modules[__name__])
