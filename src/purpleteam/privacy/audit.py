"""Auditing private training in one run (Steinke, Nasr and Jagielski 2023, arXiv:2305.08846).

Canaries are examples that a coin puts into the training or leaves out. Who guesses from what the
training releases which coin fell how, and is right too often, has proved that it leaks more than
epsilon: a lower bound, beside the upper bound that the accountant claims. A training that adds too
little noise, or forgets to clip, is caught where the first is above the second.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from purpleteam.core.errors import Refused, UsageError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.registry import check_ranges
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.defences.training import Hardening
from purpleteam.defences.training._per_example import PrivateSteps
from purpleteam.defences.training.dp_sgd import DPSGD
from purpleteam.models.devices import to_batch
from purpleteam.models.guard import Guarded, guarded, switched
from purpleteam.models.recipes import generator

Bug = Literal["noise left out", "clipping left out"]
LONGER = 100.0  # how much longer a canary's gradient is than what gradients are cut to
LOOKED_AT = 256  # images by whose gradients it is told which weights they hardly move


@dataclass(frozen=True, kw_only=True)
class CanaryAudit:
    """What an audit is asked; its fields are its options."""

    name: ClassVar[str] = "audit"
    ranges: ClassVar[str] = (
        "canaries at least 2; guesses at least 2; confidence above 0 and under 1"
    )

    canaries: int = 1000
    """Examples that a coin each puts into the training."""
    guesses: int | None = None
    """Coins that are guessed, an even number; by default half of them."""
    confidence: float = 0.999
    """Of the lower bound."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class Audit:
    """How much a training leaks at least, by an audit, and at most, by its accountant."""

    epsilon_lower: float
    """Proved at `confidence`, for `delta`."""
    epsilon_upper: float
    """What the accountant says was spent, for `delta`."""
    provable: float
    """The lower bound if all guesses were right: no training that claims more can be accused."""
    delta: float
    confidence: float
    canaries: int
    guesses: int
    """How many coins were guessed; the others were too uncertain."""
    right: int
    seed: int
    bug: Bug | None = None
    """What was planted in the training, to see that the audit sees it."""
    privacy: Mapping[str, Any] = field(default_factory=dict)
    """What the training spent, and what says so."""

    @property
    def holds(self) -> bool:
        """Whether the lower bound is at most the upper one."""
        return self.epsilon_lower <= self.epsilon_upper

    def check(self) -> None:
        """Raise Refused where the training leaks more than its accountant says."""
        if not self.holds:
            raise Refused(
                f"the training is not as private as it says: {self.right} of {self.guesses} "
                f"guesses were right, so epsilon is at least {self.epsilon_lower:.2f} "
                f"({self.confidence:.1%} confidence), but the accountant says "
                f"{self.epsilon_upper:.2f}: does it clip each gradient, and add the noise?"
            )

    def to_json(self) -> dict[str, Any]:
        """Return its fields and whether it holds."""
        return asdict(self) | {"holds": self.holds}


def audit(
    recipe: DPSGD,
    net: nn.Module,
    dataset: Dataset,
    *,
    canaries: int = 1000,
    guesses: int | None = None,
    confidence: float = 0.999,
    seed: int = 0,
    bug: Bug | None = None,
    device: torch.device | None = None,
    progress: Progress = SILENT,
) -> Audit:
    """Train a net by the recipe with canaries among its images, and guess which were in.

    The training is the recipe's own. A canary is a row whose gradient is one weight's alone, a
    hundred times as long as gradients are cut to; in the training or not by a coin each. Its score
    is what the released sums hold of that weight: those with the highest scores are guessed in,
    those with the lowest out. Few guesses prove little even if all are right, as `provable` says.

    Args:
        recipe: its budget, and all else; the accountant counts the canaries as images.
        net: starting weights; it is trained in place.
        dataset: whose training images are learned beside the canaries.
        canaries: how many there are; no more than the net has weights.
        guesses: how many coins are guessed, an even number; by default half of them. It is
            chosen before the coins fall.
        confidence: of the lower bound: a correct training is accused with no more than the rest.
        seed: of the coins, and of the training.
        bug: planted in the training, which the audit must see.
        device: where to train; the default is the CPU.
        progress: where to report.
    """
    guesses = canaries // 4 * 2 if guesses is None else guesses
    if not 2 <= guesses <= canaries or guesses % 2:
        raise UsageError(f"guesses must be even, from 2 to {canaries} canaries, not {guesses}")
    if not 0 < confidence < 1:
        raise UsageError(f"confidence must be between 0 and 1, not {confidence:g}")
    images = dataset.train
    planted = _planted(net, images, canaries, seed)
    blank = np.zeros((canaries, *images.images.shape[1:]), np.uint8)
    rows = np.concatenate([np.array(images.images), blank])
    labels = np.concatenate([images.labels, np.zeros(canaries, images.labels.dtype)])
    work = Hardening(
        net=net,
        dataset=replace(dataset, train=ImageSet(rows, labels)),
        seed=seed,
        device=device,
        description="audit",
        progress=progress,
    )
    training = recipe.trained(work, partial(_Audited, planted=planted, bug=bug))
    order = torch.argsort(planted.scores, stable=True).cpu()
    half = guesses // 2
    coins = planted.included
    right = int((~coins[order[:half]]).sum()) + int(coins[order[-half:]].sum())
    spent = training.facts["privacy"]
    return Audit(
        epsilon_lower=epsilon_lower(canaries, guesses, right, recipe.delta, confidence),
        epsilon_upper=spent["epsilon"],
        provable=epsilon_lower(canaries, guesses, guesses, recipe.delta, confidence),
        delta=recipe.delta,
        confidence=confidence,
        canaries=canaries,
        guesses=guesses,
        right=right,
        seed=seed,
        bug=bug,
        privacy=spent,
    )


def epsilon_lower(
    canaries: int, guesses: int, right: int, delta: float, confidence: float
) -> float:
    """Return the epsilon that so many right guesses prove: at least that much is leaked.

    The largest epsilon for which they would be less likely than 1 - confidence; 0 where there is
    none, as where no more than half are right.
    """
    low, high = 0.0, 64.0
    if tail(canaries, guesses, right, low, delta) >= 1 - confidence:
        return 0.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        if tail(canaries, guesses, right, middle, delta) < 1 - confidence:
            low = middle
        else:
            high = middle
    return low


def tail(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """Return how likely so many right guesses are at most, of an (epsilon, delta)-private training.

    Without delta each guess is right no more often than randomised response is, e^epsilon /
    (1 + e^epsilon), so the number is stochastically at most binomial. With delta, theorem 5.2:
    P(W >= v) + 2 m delta max over i of P(v - i <= W < v) / i, for W of that binomial.
    """
    from scipy.stats import binom

    if not 0 <= right <= guesses <= canaries:
        raise ValueError(f"{right} of {guesses} guesses about {canaries} canaries are impossible")
    chance = 1 / (1 + math.exp(-epsilon))
    whole = float(binom.sf(right - 1, guesses, chance))
    if right == 0 or delta == 0:
        return whole
    below = np.cumsum(binom.pmf(np.arange(right - 1, -1, -1), guesses, chance))
    most = float((below / np.arange(1, right + 1)).max())
    return min(1.0, whole + 2 * canaries * delta * most)


@dataclass
class _Planted:
    """Canaries: how the coins fell, the weight of each, and what was seen of it."""

    first_row: int
    included: Tensor  # (canaries,) of bools
    number: Tensor  # (canaries,) which parameter
    place: Tensor  # (canaries,) which of its values
    scores: Tensor  # (canaries,)


def _planted(net: nn.Module, images: ImageSet, canaries: int, seed: int) -> _Planted:
    """Return canaries at the weights that the images themselves move least, as they start.

    That is chosen before the coins fall, and only makes the scores clearer.
    """
    weights = [one for one in net.parameters() if one.requires_grad]
    sizes = torch.tensor([one.numel() for one in weights])
    if (total := int(sizes.sum())) < canaries:
        raise UsageError(f"{canaries} canaries need as many weights; the net has {total}")
    rng = generator(seed, "canaries")
    few = images.first(LOOKED_AT)
    x, y = to_batch(np.array(few.images)), torch.from_numpy(np.array(few.labels))
    loss = nn.functional.cross_entropy(guarded(switched(net))(x), y)
    slopes = torch.autograd.grad(loss, weights)
    moved = torch.cat([one.abs().flatten() for one in slopes])
    shuffled = torch.randperm(total, generator=rng)
    chosen = shuffled[torch.argsort(moved[shuffled], stable=True)[:canaries]]
    chosen = chosen[torch.randperm(canaries, generator=rng)]
    ends = sizes.cumsum(0)
    number = torch.searchsorted(ends, chosen, right=True)
    return _Planted(
        first_row=len(images),
        included=torch.rand(canaries, generator=rng) < 0.5,
        number=number,
        place=chosen - (ends - sizes)[number],
        scores=torch.zeros(canaries, dtype=torch.float64),
    )


class _Audited(PrivateSteps):
    """The same steps with canaries in them; with a bug where one is planted."""

    def __init__(self, net: Guarded, *, planted: _Planted, bug: Bug | None, **given: Any) -> None:
        super().__init__(net, **given)
        self.planted, self.bug = planted, bug
        self.length = LONGER * given["max_grad_norm"]
        if bug == "noise left out":
            self.private.noise_multiplier = 0.0

    def clip(self) -> None:
        if self.bug != "clipping left out":
            super().clip()
            return
        for weight in self.weights:
            weight.summed_grad += weight.grad_sample.sum(0)  # type: ignore[attr-defined]

    def examples(self, rows: Tensor) -> None:
        """Put the gradient of each canary in the place of its row's: its own, or none at all."""
        rows = rows.cpu()
        canary = (rows >= self.planted.first_row).nonzero()[:, 0]
        if not len(canary):
            return
        about = rows[canary] - self.planted.first_row
        for number, weight in enumerate(self.weights):
            gradients: Tensor = weight.grad_sample  # type: ignore[attr-defined]
            gradients[canary] = 0
            own = self.planted.included[about] & (self.planted.number[about] == number)
            flat = gradients.view(len(rows), -1)
            flat[canary[own], self.planted.place[about[own]]] = self.length

    def released(self) -> None:
        """Add what the noised sum holds of each canary's weight to its score."""
        for number, weight in enumerate(self.weights):
            own = self.planted.number == number
            sums: Any = weight.grad
            seen = sums.detach().flatten()[self.planted.place[own].to(sums.device)]
            self.planted.scores[own] += seen.cpu().double()
