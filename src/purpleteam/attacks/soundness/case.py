"""What the checks look at: a model, a ladder of attacks, what stands, and their own attacks on it.

Each image that falls to these shows that the number is too high, and how it fell shows why: to one
step or to an attack that sees no gradient, the gradients mislead; to more steps of the same kind,
the search was not finished; to steps that come from another class, it began where no gradient
leads there. The short ladder of strong attacks measures how much too high it is.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from purpleteam.attacks.driver import CACHED_VALUES, Cost, Driver, Search, cross_entropy, margin
from purpleteam.attacks.evasion import EvasionAttack
from purpleteam.attacks.evasion.far_start import FarStart
from purpleteam.attacks.evasion.ladder import Ladder
from purpleteam.attacks.evasion.square import Square
from purpleteam.attacks.examples import KEPT, spread
from purpleteam.attacks.norms import NORMS, Noise, distance, project, steepest
from purpleteam.attacks.outcomes import Breaks, RobustEvaluation
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import channels_first, device_of, to_batch
from purpleteam.models.inference import Classifier, Nets

LOOKED_AT = KEPT  # images whose part that still stands is attacked anew: 10 of them are 2 points
PROBED = 100  # of these, those on which the gradients are looked at: enough to see 1 in 20
CALLS = 5  # of the model on the same images, to see whether it is random; as in AutoAttack
HANDFUL = 5  # images among which a single one already counts
SAME = 1e-5  # share of the scores' spread by which calls may differ: rounding on a GPU
MORE_STEPS = 20  # that are added to the ladder's: half of the usual 40
FIRST_STEP = 0.25  # length of the first of them, as a share of epsilon; they shrink to 0
SPARSITY = 0.95  # share of the values that a step in L1 leaves alone, as in PGD
SINGLE_STEPS = (1.0, 0.5)  # lengths of a single step, as shares of epsilon
QUERIES = 50  # of Square: a third of an undefended net's images fall to so few already
NEIGHBOURS = 3  # nearest images of other classes, towards which an image is moved
TAUGHT = 500  # images from which the surrogate learns


Level = Literal["sound", "weak", "not_established"]
Direction = Literal["too_high", "too_low", "either"]  # where the attacks' number may be off to


class Doubt(NamedTuple):
    """How much is lost, why in one line, and to which side the number may be off."""

    level: Level
    reason: str
    direction: Direction = "too_high"


class Slope(NamedTuple):
    """The gradient (N, C, H, W) of a loss as it is, and where it is none."""

    gradient: Tensor
    undefined: Tensor  # (N,) bool: NaN or infinite somewhere
    zero: Tensor  # (N,) bool: 0 everywhere
    connected: bool  # whether the scores depend on the images by gradients at all


class Case:
    """An evaluation, ready to be checked; the model is to be frozen while it is.

    Attacks that tell of the gradients are made on the rows `sampled`; those that measure, on all of
    `standing`.
    """

    def __init__(
        self,
        model: Classifier,
        images: ImageSet,
        attacks: Sequence[EvasionAttack],
        evaluations: Sequence[RobustEvaluation],
        seed: int,
        most: int = LOOKED_AT,
    ) -> None:
        """Look at `most` images; `evaluations` by growing epsilon, of which `attacks` the last."""
        self.model, self.images, self.evaluations, self.seed = model, images, evaluations, seed
        self.cost = Cost()
        # for each row that fell, what broke it first, and the example (C, H, W)
        self.examples: dict[int, tuple[str, Tensor]] = {}
        # what is checked is the evaluation of the largest epsilon which left any image
        contested = [evaluation for evaluation in evaluations if evaluation.robust.any()]
        self.final = (contested or evaluations)[-1]
        self.norm, self.epsilon = attacks[-1].norm, self.final.attacks[-1].epsilon
        self.bounded = NORMS[self.norm].bounded
        kept = self.final.kept  # of the others there is no example to look at
        self.looked_at = spread(kept, most)
        self.standing = self.looked_at[self.final.robust[self.looked_at]]
        self.sampled = spread(self.standing, PROBED)
        self.probed = spread(kept[self.final.clean_correct[kept]], PROBED)
        self.nets = Nets.of(model, self.at(np.arange(min(4, len(images))))[0])
        self.differentiable = self.nets.differentiable
        self.rungs = [rung for attack in attacks for rung in attack.rungs(self.nets)]
        # those that follow the model's own gradients, image by image
        own = [rung for rung in self.rungs if rung.knowledge == "white-box"]
        self.white_box = [rung for rung in own if not rung.one_for_all]
        self.most_steps = max((rung.planned_steps for rung in self.white_box), default=0)
        # whether scores can be compared, one call with another
        asked = self.probed if self.differentiable else self.probed[:10]  # each one is a request
        x, _ = self.at(asked)
        first, half = self.scores(x), max(len(x) // 2, 1)
        again = range(CALLS - 1 if self.differentiable else 1)
        self.randomised = any(_differ(first, self.scores(x)) for _ in again)
        self.depends_on_neighbours = (
            not self.randomised
            and self.differentiable
            and _differ(self.scores(x)[:half], self.scores(x[:half]))
        )
        self.steady = not self.randomised and not self.depends_on_neighbours
        # whether attacks compare: by chance alone a random model lets other images fall
        self.measurable = self.differentiable and self.bounded and self.steady
        self.follows_gradients = bool(self.white_box) and self.differentiable and self.bounded
        self.fair = self.follows_gradients and self.steady
        self._idle = not self.fair or len(self.sampled) == 0 or self.epsilon == 0

    def overstated(self, fell: int) -> float:
        """Return by how much robust accuracy falls if this many of `sampled` fall."""
        stood = len(self.standing) / max(len(self.looked_at), 1)
        return stood * fell / max(len(self.sampled), 1)

    def at(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return the clean images (n, C, H, W) and their labels (n,)."""
        device = device_of(self.model)
        labels = torch.from_numpy(self.images.labels[rows]).to(device)
        return to_batch(self.images.images[rows], device), labels

    def candidates(self, rows: NDArray[np.int64]) -> Tensor:
        """Return what the ladder made of them (n, C, H, W)."""
        x_adv = channels_first(torch.from_numpy(self.final.x_adv[rows]))
        return x_adv.to(device_of(self.model))

    def noise(self, rows: NDArray[np.int64], stream: str) -> Noise:
        return Noise(self.seed, torch.from_numpy(rows), 0, f"/soundness/{stream}")

    def driver(self, rows: NDArray[np.int64], epsilon: float, norm: str, **how: bool) -> Driver:
        search = Search(epsilon=epsilon, norm=norm, **how)
        return Driver(self.nets, *self.at(rows), search, self.cost)

    @torch.no_grad()
    def scores(self, x: Tensor) -> Tensor:
        """Return the model's own scores (N, classes) in float64, as it gives them."""
        self.cost.forward += len(x)
        return torch.cat([self.model(part).double() for part in torch.split(x, _batch_size(x))])

    @torch.no_grad()
    def errs(self, x: Tensor, y: Tensor) -> Tensor:
        """Say for each image whether the model names another label; NaN is none."""
        scores = self.scores(x)
        return (torch.nan_to_num(scores).argmax(1) != y) & ~torch.isnan(scores).any(1)

    def slope(self, x: Tensor, y: Tensor, loss: Callable[..., Tensor]) -> Slope:
        """Return the gradient of the loss, from the replica of the model."""
        parts, connected = [], True
        self.cost.forward += len(x)
        self.cost.backward += len(x)
        splits = (torch.split(tensor, _batch_size(x)) for tensor in (x, y))
        for part, labels in zip(*splits, strict=True):
            asked, gradient = part.detach().clone().requires_grad_(True), None
            with torch.enable_grad():
                value = loss(self.nets.fast(asked).float(), labels)
            if value.requires_grad:
                (gradient,) = torch.autograd.grad(value.sum(), asked, allow_unused=True)
            connected &= gradient is not None
            parts.append(torch.zeros_like(asked) if gradient is None else gradient.detach())
        slope = torch.cat(parts)
        undefined = ~torch.isfinite(slope).flatten(1).all(1)
        return Slope(slope, undefined, (slope == 0).flatten(1).all(1), connected)

    @property
    def _none(self) -> Tensor:
        return torch.zeros(len(self.sampled), dtype=torch.bool, device=device_of(self.model))

    @cached_property
    def continued(self) -> tuple[Tensor, float]:
        """Climb the margin from the ladder's last candidates: what falls, (n,) bool, and the rise.

        The rise is a mean in parts of the clean margin; 0 where they are none of a gradient attack.
        """
        if self._idle:
            return self._none, 0.0
        driver = self.driver(self.sampled, self.epsilon, self.norm)
        x, y = driver.x, driver.y
        x_adv = project(self.candidates(self.sampled), x, self.epsilon, self.norm)
        clean, reached = (margin(self.scores(images), y) for images in (x, x_adv))
        best = reached.clone()
        for step in range(MORE_STEPS):
            length = FIRST_STEP * self.epsilon * (1 - step / MORE_STEPS)
            value, slope = driver.value_and_gradient(x_adv, margin)
            best = torch.where(driver.standing, torch.maximum(best, value.double()), best)
            move = NORMS[self.norm].step(slope, x_adv, length, SPARSITY)
            x_adv = project(x_adv + move, x, self.epsilon, self.norm)
        self._keep("more steps", self.sampled, driver.settle(x_adv), driver.broken)
        best = torch.where(driver.broken, torch.zeros_like(best), best)
        rise = (best - reached).clamp_min(0) / clean.abs().clamp_min(1e-12)
        climbed = self.rungs[-1] in self.white_box
        return driver.broken, float(rise.clamp_max(1).mean()) if climbed else 0.0

    @cached_property
    def strong(self) -> dict[str, int]:
        """Climb the short ladder, once, and count what falls to each of its attacks."""
        rows, fell = self.standing, dict[str, int]()
        comparable = self.measurable and self.norm in Ladder.norms
        if not comparable or len(rows) == 0 or self.epsilon == 0:
            return fell
        ladder = Ladder(norm=self.norm, epsilon=self.epsilon, queries=QUERIES)
        members = ladder.prepare(self.model, self.images).rungs(self.nets)
        # those in a box go first, then the one from other classes: what falls to these tells most
        for member in sorted(members, key=lambda one: (not one.in_box, one.name != FarStart.name)):
            if len(rows):
                broken = self._made(member, rows, "/soundness")
                fell[member.name] = int(broken.sum())
                rows = rows[~broken.cpu().numpy()]
        return fell

    @cached_property
    def single_step(self) -> Tensor:
        """Say what falls to one step along the gradient of cross-entropy, (n,) bool."""
        if self._idle:
            return self._none
        x, y = self.at(self.sampled)
        slope = torch.nan_to_num(self.slope(x, y, cross_entropy).gradient)
        step = self.epsilon * steepest(slope, self.norm)
        return self._tried("single step", (x + share * step for share in SINGLE_STEPS))

    @cached_property
    def black_box(self) -> dict[str, Tensor]:
        """Say what falls to each of the attacks that see no gradient, (n,) bool."""
        if self._idle:
            return {}
        x, y = self.at(self.sampled)
        noise = self.noise(self.sampled, "noise")
        rim = (x + self.epsilon * steepest(noise.normal(x), self.norm) for _ in range(2))
        tried = {"noise": rim, "neighbours": self._others(x, y), "surrogate": self._surrogate(x, y)}
        fell = {name: self._tried(name, candidates) for name, candidates in tried.items()}
        if self.norm in Square.norms:
            square = Square(norm=self.norm, epsilon=self.epsilon, queries=QUERIES)
            fell["square"] = self._made(square, self.sampled)
        return fell

    @property
    def breaks(self) -> Breaks | None:
        """The examples that all attacks made so far have found."""
        if not self.examples:
            return None
        rows = np.array(sorted(self.examples))
        x_adv = torch.stack([self.examples[row][1] for row in rows.tolist()])
        return Breaks(
            epsilon=self.epsilon,
            rows=rows,
            by=tuple(f"soundness/{self.examples[row][0]}" for row in rows.tolist()),
            x_adv=x_adv.permute(0, 2, 3, 1).cpu().numpy(),
            distance=distance(x_adv, self.at(rows)[0], self.norm).cpu().numpy(),
        )

    def _made(self, attack: EvasionAttack, rows: NDArray[np.int64], stream: str = "") -> Tensor:
        """Make an attack, keep what it broke, and say what falls, (n,) bool."""
        x, y, index = *self.at(rows), torch.from_numpy(rows)
        result = attack.run(self.nets, x, y, seed=self.seed, index=index, stream=stream)
        self.cost.forward += result.cost.forward
        self.cost.backward += result.cost.backward
        self._keep(attack.name, rows, result.x_adv, result.broken)
        return result.broken

    def _tried(self, name: str, tried: Iterable[Tensor]) -> Tensor:
        """Say on which images the model errs for one of the candidates in the ball, (n,) bool."""
        (x, y), broken = self.at(self.sampled), self._none
        for candidate in tried:
            inside = project(candidate, x, self.epsilon, self.norm)
            errs = self.errs(inside, y)
            self._keep(name, self.sampled, inside, errs)
            broken = broken | errs
        return broken

    def _keep(self, name: str, rows: NDArray[np.int64], x_adv: Tensor, broken: Tensor) -> None:
        for place in broken.nonzero().flatten().tolist():
            self.examples.setdefault(int(rows[place]), (name, x_adv[place].detach().clone()))

    def _others(self, x: Tensor, y: Tensor) -> Iterator[Tensor]:
        """Yield images of other classes, the nearest ones."""
        others, labels = self.at(spread(np.flatnonzero(self.final.clean_correct), TAUGHT))
        length = torch.cdist(x.flatten(1), others.flatten(1))
        length[y[:, None] == labels[None]] = torch.inf
        nearest = length.topk(min(NEIGHBOURS, len(labels)), largest=False)
        for far, place in zip(nearest.values.T, nearest.indices.T, strict=True):
            yield torch.where(torch.isfinite(far).view(-1, 1, 1, 1), others[place], x)

    def _surrogate(self, x: Tensor, y: Tensor) -> Iterator[Tensor]:
        """Yield a step along the gradient of a ridge regression to the model's answers."""
        taught, _ = self.at(spread(np.arange(len(self.images)), TAUGHT))
        classes = self.nets.classes
        answers = F.one_hot(torch.nan_to_num(self.scores(taught)).argmax(1), classes)
        images = taught.flatten(1)
        images = images - images.mean(0)
        kernel = images @ images.T
        ridge = 0.05 * kernel.diagonal().mean() + 1e-3  # where all images are one, too
        kernel += ridge * torch.eye(len(images), device=x.device)
        weights = images.T @ torch.linalg.solve(kernel, answers.to(images.dtype) - 1 / classes)
        scores = (x.flatten(1) @ weights).scatter(1, y[:, None], -torch.inf)
        slope = weights.T[scores.argmax(1)] - weights.T[y]
        yield x + self.epsilon * steepest(slope.view_as(x), self.norm)


def _batch_size(x: Tensor) -> int:
    return max(8, CACHED_VALUES // max(x[0].numel(), 1))


def _differ(first: Tensor, again: Tensor) -> bool:
    first, again = torch.nan_to_num(first), torch.nan_to_num(again)
    return bool((first - again).abs().amax() > SAME * (first.amax() - first.amin()))


def more_than(share: float, count: int, images: int) -> bool:
    """Say whether a count exceeds a share of the images; 1 counts only in a small set."""
    return count > share * images and (count > 1 or images < HANDFUL)
