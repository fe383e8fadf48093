"""Attacks of the check's own on what the ladder left standing.

Each image that falls shows that the number is too high, and how it fell shows why: to one step or
to an attack that sees no gradient, the gradients mislead; to more steps of the same kind, the
search was not finished; to steps that come from another class, it began where no gradient leads
there; with no bound at all, every image must fall. The short ladder of strong attacks measures how
much too high it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from purpleteam.attacks.evasion.far_start import FarStart
from purpleteam.attacks.evasion.ladder import Ladder
from purpleteam.attacks.evasion.square import Square
from purpleteam.attacks.losses import cross_entropy, margin
from purpleteam.attacks.norms import NORMS, distance, project, steepest, uniform_start
from purpleteam.attacks.outcomes import Breaks
from purpleteam.attacks.soundness.case import Case, spread
from purpleteam.models.devices import device_of

MORE_STEPS = 20
"""Steps that are added to the ladder's: half of the usual 40."""
FIRST_STEP = 0.25
"""Length of the first of them, as a share of epsilon; they shrink to 0."""
SPARSITY = 0.95
"""Share of the values that a step in L1 leaves alone, as in PGD."""
SINGLE_STEPS = (1.0, 0.5)
"""Lengths of a single step, as shares of epsilon."""
QUERIES = 50
"""Of Square for an image: a third of an undefended net's images fall to so few already."""
NEIGHBOURS = 3
"""Nearest images of other classes, towards which an image is moved."""
TAUGHT = 500
"""Images from which the surrogate learns."""
FREED = 50
"""Images that are attacked without a bound: there nearly all must fall."""
FREE_STEPS = 40
"""Of the attack without a bound, from each of its two starts."""
ELSEWHERE = 0.5
"""Radius of the second start: off what a net may map to one value at the ends of the range."""


@dataclass(frozen=True)
class Continued:
    """What more steps did.

    Attributes:
        fell: (n,) bool; of the images that stood before.
        rise: mean rise of the margin on those, in parts of the clean margin; 0 where the last
            candidates are none of a gradient attack.
    """

    fell: Tensor
    rise: float


class Counters:
    """The counter-attacks, each made when it is first asked for.

    What they say of the gradients they say of `case.sampled`; the strong ones, which measure, are
    made on all of `case.standing`.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.rows = case.sampled
        self.fair = case.follows_gradients and case.steady
        """Whether they compare: by chance alone a random model lets other images fall."""
        self._none = torch.zeros(len(self.rows), dtype=torch.bool, device=device_of(case.model))
        self._idle = not self.fair or len(self.rows) == 0 or case.epsilon == 0
        self._examples: dict[int, tuple[str, Tensor]] = {}
        """For each row that fell, what broke it first, and the example (C, H, W)."""

    @cached_property
    def continued(self) -> Continued:
        """Climb the margin from the ladder's last candidates."""
        if self._idle:
            return Continued(self._none, 0.0)
        case = self.case
        driver = case.driver(self.rows, case.epsilon, case.norm)
        x, y = driver.x, driver.y
        x_adv = project(case.candidates(self.rows), x, case.epsilon, case.norm)
        clean, reached = (margin(case.scores(images), y) for images in (x, x_adv))
        best = reached.clone()
        for step in range(MORE_STEPS):
            length = FIRST_STEP * case.epsilon * (1 - step / MORE_STEPS)
            value, slope = driver.value_and_gradient(x_adv, margin)
            best = torch.where(driver.standing, torch.maximum(best, value.double()), best)
            move = NORMS[case.norm].step(slope, x_adv, length, SPARSITY)
            x_adv = project(x_adv + move, x, case.epsilon, case.norm)
        self._keep("more steps", self.rows, driver.settle(x_adv), driver.broken)
        best = torch.where(driver.broken, torch.zeros_like(best), best)
        rise = (best - reached).clamp_min(0) / clean.abs().clamp_min(1e-12)
        climbed = case.rungs[-1] in case.white_box
        return Continued(driver.broken, float(rise.clamp_max(1).mean()) if climbed else 0.0)

    @cached_property
    def strong(self) -> dict[str, int]:
        """Climb the short ladder, once, and count what falls to each of its attacks.

        The one that starts from other classes goes first: what falls to it alone tells most.
        """
        case, rows = self.case, self.case.standing
        fell: dict[str, int] = {}
        comparable = case.measurable and case.norm in Ladder.norms
        if not comparable or len(rows) == 0 or case.epsilon == 0:
            return fell
        ladder = Ladder(norm=case.norm, epsilon=case.epsilon, queries=QUERIES)
        members = ladder.prepare(case.model, case.images).members(case.nets.classes)
        for member in sorted(members, key=lambda member: member.name != FarStart.name):
            x, y, index = case.x(rows), case.y(rows), torch.from_numpy(rows)
            result = member.run(case.nets, x, y, seed=case.seed, index=index, stream="/soundness")
            case.cost.forward += result.cost.forward
            case.cost.backward += result.cost.backward
            self._keep(member.name, rows, result.x_adv, result.broken)
            fell[member.name] = int(result.broken.sum())
            rows = rows[~result.broken.cpu().numpy()]
            if len(rows) == 0:
                break
        return fell

    @cached_property
    def single_step(self) -> Tensor:
        """Say what falls to one step along the gradient of cross-entropy, (n,) bool."""
        fell = self._none.clone()
        if self._idle:
            return fell
        case, x, y = self.case, self.case.x(self.rows), self.case.y(self.rows)
        slope = torch.nan_to_num(case.slope(x, y, cross_entropy).gradient)
        for share in SINGLE_STEPS:
            moved = x + share * case.epsilon * steepest(slope, case.norm)
            fell |= self._tried("single step", moved, x, y)
        return fell

    @cached_property
    def black_box(self) -> dict[str, Tensor]:
        """Say what falls to each of the attacks that see no gradient, (n,) bool."""
        if self._idle:
            return {}
        case, x, y = self.case, self.case.x(self.rows), self.case.y(self.rows)
        tried = {
            "noise": self._noise(x),
            "neighbours": self._others(x, y),
            "surrogate": self._surrogate(x, y),
        }
        fell = {name: self._none.clone() for name in tried}
        for name, candidates in tried.items():
            for candidate in candidates:
                fell[name] |= self._tried(name, candidate, x, y)
        if case.norm in Square.norms:
            square = Square(norm=case.norm, epsilon=case.epsilon, queries=QUERIES)
            index = torch.from_numpy(self.rows)
            result = square.run(case.nets, x, y, seed=case.seed, index=index)
            case.cost.forward += result.cost.forward
            self._keep("square", self.rows, result.x_adv, result.broken)
            fell["square"] = result.broken
        return fell

    @property
    def fell_to_black_box(self) -> Tensor:
        """Say what falls to any of them."""
        return torch.stack([self._none, *self.black_box.values()]).any(0)

    @property
    def fell(self) -> int:
        """Count what fell to any attack made so far."""
        return len(self._examples)

    @property
    def by(self) -> dict[str, int]:
        """Count what fell to each of them first."""
        names = [name for name, _ in self._examples.values()]
        return {name: names.count(name) for name in dict.fromkeys(names)}

    @property
    def breaks(self) -> Breaks | None:
        """The examples that were found."""
        if not self._examples:
            return None
        rows = np.array(sorted(self._examples))
        x_adv = torch.stack([self._examples[row][1] for row in rows.tolist()])
        return Breaks(
            epsilon=self.case.epsilon,
            rows=rows,
            by=tuple(f"soundness/{self._examples[row][0]}" for row in rows.tolist()),
            x_adv=x_adv.permute(0, 2, 3, 1).cpu().numpy(),
            distance=distance(x_adv, self.case.x(rows), self.case.norm).cpu().numpy(),
        )

    @cached_property
    def survived_unbounded(self) -> tuple[int, int]:
        """Count the probed images that stand without a bound, and how many were tried."""
        case, rows = self.case, spread(self.case.probed, FREED)
        driver = case.driver(rows, 1.0, "linf")
        noise = case.noise(rows, "unbounded")
        for start in (driver.x, uniform_start(driver.x, ELSEWHERE, "linf", noise)):
            x_adv = start
            for _ in range(FREE_STEPS):
                step = 2.5 / FREE_STEPS * steepest(driver.gradient(x_adv, margin), "linf")
                x_adv = (x_adv + step).clamp(0, 1)
            driver.settle(x_adv)
        return int((~driver.broken).sum()), len(rows)

    def _tried(self, name: str, candidate: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Say on which candidates, moved into the ball, the model errs, (n,) bool."""
        inside = project(candidate, x, self.case.epsilon, self.case.norm)
        errs = self.case.errs(inside, y)
        self._keep(name, self.rows, inside, errs)
        return errs

    def _keep(self, name: str, rows: NDArray[np.int64], x_adv: Tensor, broken: Tensor) -> None:
        """Remember the first example of each image."""
        for place in broken.nonzero().flatten().tolist():
            self._examples.setdefault(int(rows[place]), (name, x_adv[place].detach().clone()))

    def _noise(self, x: Tensor) -> Iterator[Tensor]:
        """Yield random points on the rim of the ball."""
        noise = self.case.noise(self.rows, "noise")
        for _ in range(2):
            yield x + self.case.epsilon * steepest(noise.normal(x), self.case.norm)

    def _others(self, x: Tensor, y: Tensor) -> Iterator[Tensor]:
        """Yield images of other classes, the nearest ones."""
        rows = spread(np.flatnonzero(self.case.final.clean_correct), TAUGHT)
        others, labels = self.case.x(rows), self.case.y(rows)
        length = torch.cdist(x.flatten(1), others.flatten(1))
        length[y[:, None] == labels[None]] = torch.inf
        count = min(NEIGHBOURS, len(rows))
        nearest = length.topk(count, largest=False)
        for place in range(count):
            there = others[nearest.indices[:, place]]
            reachable = torch.isfinite(nearest.values[:, place]).view(-1, 1, 1, 1)
            yield torch.where(reachable, there, x)

    def _surrogate(self, x: Tensor, y: Tensor) -> Iterator[Tensor]:
        """Yield steps along the gradient of a linear net that learnt the model's answers."""
        rows = spread(np.arange(len(self.case.images)), TAUGHT)
        weights = _ridge(self.case, rows)  # (values, classes)
        scores = (x.flatten(1) @ weights).scatter(1, y[:, None], -torch.inf)
        slope = weights.T[scores.argmax(1)] - weights.T[y]
        yield x + self.case.epsilon * steepest(slope.view_as(x), self.case.norm)


def _ridge(case: Case, rows: NDArray[np.int64]) -> Tensor:
    """Return the weights of a ridge regression from images to the model's labels."""
    x = case.x(rows).flatten(1)
    x = x - x.mean(0)
    answers = F.one_hot(torch.nan_to_num(case.scores(case.x(rows))).argmax(1), case.nets.classes)
    kernel = x @ x.T
    ridge = 0.05 * kernel.diagonal().mean() + 1e-3  # where all images are one, too
    kernel += ridge * torch.eye(len(x), device=x.device)
    weights: Tensor = x.T @ torch.linalg.solve(kernel, answers.to(x.dtype) - 1 / case.nets.classes)
    return weights
