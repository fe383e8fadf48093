"""A short ladder of strong attacks, the cheapest first: what to ask before AutoAttack.

One finds its own step sizes, one comes from other classes, one aims at the likeliest wrong classes,
one needs no gradient. Behind a first layer that is flat at its ends the first and the third are
made in its box before, see `box`. benchmarks/verdicts.py sets the ladder beside AutoAttack.
"""

import timeit
from typing import ClassVar, Self

import torch
from torch import Tensor

from purpleteam.attacks.evasion import ATTACKS, Ensemble, EvasionAttack, part_of
from purpleteam.attacks.evasion.apgd import APGDCE, APGDT
from purpleteam.attacks.evasion.far_start import FarStart
from purpleteam.attacks.evasion.square import Square
from purpleteam.attacks.norms import CONVEX, NORMS
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import frozen
from purpleteam.models.inference import Classifier

STARTS = 5  # other classes that a member starts from, the nearest first
TARGETS = 3  # most wrong classes that the targeted member aims at, the likeliest first


@part_of(ATTACKS, "ladder")
class Ladder(Ensemble):
    """A few cheap and strong attacks, each on what the ones before left standing."""

    norms = CONVEX

    steps: int = 60
    """Gradient steps of Auto-PGD, and of its targeted runs together."""
    queries: int = 200
    """Most model calls of the member that sees no gradient, for one image."""
    samples: int = 1
    """Draws that the members average at each point, for a model whose answers are random."""

    start: ClassVar[FarStart | None] = None
    """The member that has images to start from; no option, so no field."""

    def prepare(self, model: Classifier, images: ImageSet, *, seed: int = 0) -> Self:
        if self.start is not None:
            return self
        return self._with(start=self._start().prepare(model, images, seed=seed))

    def longest(self, model: Classifier, x: Tensor, images: int, *, box: bool = False) -> float:
        """Return the most seconds that it takes for a number of images, timed on a few, `x`.

        `box`: its members in the box will be made, too.
        """
        far = self._start()
        gradients = far.starts * far.steps + (1 + box) * (2 * self.steps + 1 + TARGETS)
        with frozen(model):
            forward, both = _seconds(model, x), _seconds(model, x.clone().requires_grad_(True))
        gradients *= self.samples
        return images * (gradients * both + (far.starts + self.queries) * forward) / len(x)

    def members(self, classes: int) -> tuple[EvasionAttack, ...]:
        auto = self.ball | {"samples": self.samples, "large_start": NORMS[self.norm].sparse}
        steps = max(self.steps // TARGETS, 1)
        straight = APGDCE(**auto, steps=self.steps)
        targeted = APGDT(**auto, steps=steps, targets=TARGETS, loss="margin")
        boxed = (straight.inside_box(), targeted.inside_box()) if self.norm == "linf" else ()
        square = Square(**self.ball, queries=self.queries)
        return (*boxed, straight, self.start or self._start(), targeted, square)

    def _start(self) -> FarStart:
        return FarStart(**self.ball, starts=STARTS, samples=self.samples)


def _seconds(model: Classifier, x: Tensor) -> float:
    """Return the least seconds of three calls, with the gradient where `x` wants one."""

    def call() -> None:
        with torch.set_grad_enabled(x.requires_grad):
            scores = model(x)
            if scores.requires_grad:
                torch.autograd.grad(scores.sum(), x, allow_unused=True)

    return min(timeit.repeat(call, number=1, repeat=3))
