"""Branch and bound: a case at a time, until each is proved or one is refuted.

A case says of some rectifiers whether their input is below or above 0; there each is a line, and
the bounds of the others grow tighter. One case that is not proved becomes two (Bunel et al. 2020,
arXiv:1909.06588), each bounded with searched slopes and multipliers (beta-CROWN, Wang et al. 2021,
arXiv:2103.06624). It ends with all cases proved, with an image that errs, or at a limit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

from purpleteam.certify.bends import Rectifier
from purpleteam.certify.bounds import Backward, Boxes, Choices, lower_bound, margins
from purpleteam.certify.boxes import Box
from purpleteam.certify.network import Network
from purpleteam.certify.slopes import optimise
from purpleteam.certify.tighten import MEMORY, cost_of_rows, onward

SEARCH = 4  # times the cost of a bound that a step of the search takes, gradient included
STEPS = 10  # of the search in each case; its children go on from what it found
PENALTY = 1e4  # of leaving a case, by the largest slope: its multipliers are no larger
MOST_CASES, MOST_TOGETHER = 100_000, 64  # that wait, and that are bounded together
PROBES = 8  # random corners of the worst case's box that are tried, each round


@dataclass
class Cases:
    """Cases of one image, (N, ...): boxes, splits (+1, -1, 0), the margin each is about."""

    boxes: Boxes
    splits: dict[int, Tensor]
    rows: Tensor  # (N,) the place of the other class among the margins
    least: Tensor  # (N,) the lower bound so far
    choices: Choices

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, places: Tensor) -> Cases:
        return Cases(
            [box.rows(places) for box in self.boxes],
            {number: signs[places] for number, signs in self.splits.items()},
            self.rows[places],
            self.least[places],
            Choices(*({k: v[places] for k, v in part.items()} for part in self._free)),
        )

    @property
    def _free(self) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        return self.choices.slopes, self.choices.multipliers

    @staticmethod
    def join(parts: list[Cases]) -> Cases:
        first = parts[0]

        def joined(name: str) -> dict[int, Tensor]:
            all_parts = [getattr(part.choices, name) for part in parts]
            return {k: torch.cat([part[k] for part in all_parts]) for k in all_parts[0]}

        return Cases(
            [
                Box(*(torch.cat([part.boxes[k][side] for part in parts]) for side in (0, 1)))
                for k in range(len(first.boxes))
            ],
            {k: torch.cat([part.splits[k] for part in parts]) for k in first.splits},
            torch.cat([part.rows for part in parts]),
            torch.cat([part.least for part in parts]),
            Choices(joined("slopes"), joined("multipliers")),
        )


@dataclass(frozen=True)
class Outcome:
    """What branch and bound came to for one image."""

    proved: bool
    counterexample: Tensor | None  # (C, H, W), in the box, and misclassified by the graph
    cases: int
    limit: str = ""  # what it stopped at


def branch(
    network: Network,
    boxes: Boxes,
    label: Tensor,
    open_rows: Tensor,
    *,
    seconds: float,
    memory: int = 4 * MEMORY,
    rng: torch.Generator | None = None,
) -> Outcome:
    """Prove or refute one image, whose margins `open_rows` (M,) are not proved yet.

    Args:
        network: the net, in the number format of the boxes.
        boxes: sound boxes (1, ...) of each node for the image.
        label: its class, (1,).
        open_rows: places among the margins, as `margins` orders them.
        seconds: limit of work, counted as that of a core: no clock decides a verdict.
        memory: bytes of the cases that wait, and of those that are bounded together.
        rng: where random corners come from.
    """
    each = cost_of_rows(network)[len(network.nodes)] * STEPS * SEARCH
    most_looked_at = max(1, int(seconds / each))
    form = margins(label, network.classes).to(boxes[0].lower.dtype)[0]  # (classes - 1, classes)
    count, size = len(open_rows), sum(math.prod(network.shape(k)) for k in range(len(network)))
    most_cases = min(memory // (16 * size), MOST_CASES)
    batch = min(max(memory // (128 * size), 2), MOST_TOGETHER)
    if count > most_cases:
        return Outcome(False, None, 0, "memory")
    begun = [Box(*(side.expand(count, *side.shape[1:]) for side in box)) for box in boxes]
    splittable = _splittable(network)
    none = {k: torch.zeros_like(begun[k].lower, dtype=torch.int8) for k in splittable}
    waiting = Cases(begun, none, open_rows, torch.full((count,), -torch.inf), Choices())
    waiting = _bounded(network, waiting, form, batch)
    waiting = waiting.take((waiting.least <= 0).nonzero().flatten())
    looked_at = count
    while len(waiting):
        found = _corner(network, waiting, label, rng)
        if found is not None:
            return Outcome(False, found, looked_at)
        if looked_at > most_looked_at or len(waiting) > most_cases:
            what = "work" if looked_at > most_looked_at else "memory"
            return Outcome(False, None, looked_at, what)
        order = waiting.least.argsort()
        now, rest = waiting.take(order[: batch // 2]), waiting.take(order[batch // 2 :])
        bent = torch.zeros_like(now.rows, dtype=torch.bool)
        for k in splittable:
            bent |= _bent(now.boxes[k]).flatten(1).any(1)
        for place in (~bent).nonzero().flatten().tolist():
            # Every rectifier is decided: what is left is linear, and solved.
            proved, found = _solved(network, now.take(torch.tensor([place])), form, label)
            if not proved:
                return Outcome(False, found, looked_at)
        now = now.take(bent.nonzero().flatten())
        if len(now) == 0:
            waiting = rest
            continue
        halves = _bounded(network, _halves(network, now, form, splittable), form, batch)
        looked_at += len(halves)
        left = halves.take((halves.least <= 0).nonzero().flatten())
        waiting = Cases.join([left, rest]) if len(rest) else left
    return Outcome(True, None, looked_at)


def only_rectifiers(network: Network) -> bool:
    """Say whether all that bends can be split: clips and pooling are bounded, not decided."""
    bends = [node.layer for node in network.nodes[network.root :] if not node.layer.affine]
    return all(isinstance(layer, Rectifier) for layer in bends)


def _splittable(network: Network) -> tuple[int, ...]:
    return tuple(
        number
        for number in range(network.root + 1, len(network.nodes))
        if any(isinstance(network[user].layer, Rectifier) for user in network.users[number])
    )


def _bounded(network: Network, cases: Cases, form: Tensor, batch: int) -> Cases:
    """Bound each case, its slopes and multipliers searched from where they are."""
    if len(cases) > batch:
        parts = torch.split(torch.arange(len(cases)), batch)
        return Cases.join([_bounded(network, cases.take(part), form, batch) for part in parts])
    least, choices = optimise(
        network,
        cases.boxes,
        form[cases.rows][:, None],
        steps=STEPS,
        splits=cases.splits,
        start=cases.choices,
    )
    empty = torch.zeros_like(least[:, 0], dtype=torch.bool)
    for box in cases.boxes:  # a case that no image is in proves itself
        empty |= (box.lower > box.upper).flatten(1).any(1)
    least = torch.where(empty, torch.inf, torch.maximum(least[:, 0], cases.least))
    full = {
        k: choices.multipliers.get(k, torch.zeros_like(slopes))
        for k, slopes in choices.slopes.items()
    }
    return Cases(cases.boxes, cases.splits, cases.rows, least, Choices(choices.slopes, full))


def _halves(network: Network, cases: Cases, form: Tensor, nodes: tuple[int, ...]) -> Cases:
    """Split each case at the rectifier whose triangle costs most; each has one that is bent."""
    scores = []
    for number in nodes:
        lower, upper = cases.boxes[number]
        bent = (lower < 0) & (upper > 0)
        area = torch.where(bent, -lower * upper / (upper - lower), 0)
        score = area * _weight(network, cases, form, number)
        scores.append(torch.where(bent, score.clamp_min(1e-30), 0).flatten(1))
    sizes = [score.shape[1] for score in scores]
    together = torch.cat(scores, 1)
    place = together.argmax(1)
    halves = []
    for sign in (1, -1):
        half = cases.take(torch.arange(len(cases)))
        start = 0
        for number, size in zip(nodes, sizes, strict=True):
            mine = (place >= start) & (place < start + size)
            if bool(mine.any()):
                rows = mine.nonzero().flatten()
                half = _decided(network, half, number, rows, place[rows] - start, sign)
            start += size
        halves.append(half)
    return Cases.join(halves)


def _bent(box: Box) -> Tensor:
    return (box.lower < 0) & (box.upper > 0)


def _weight(network: Network, cases: Cases, form: Tensor, number: int) -> Tensor:
    """Return (N, ...) how much a rectifier's output weighs in the margin: by gradient."""
    lower, upper = cases.boxes[number]
    centre = ((lower + upper) / 2).detach()
    with torch.enable_grad():
        values: dict[int, Tensor] = {
            k: (box.lower + box.upper) / 2 for k, box in enumerate(cases.boxes[: number + 1])
        }
        values[number] = centre.requires_grad_(True)
        for after in range(number + 1, len(network)):
            node = network[after]
            values[after] = node.layer.value(*(values[source] for source in node.inputs))
        margin = (values[len(network.nodes)] * form[cases.rows]).sum()
        (slope,) = torch.autograd.grad(margin, values[number], allow_unused=True)
    return torch.zeros_like(centre) if slope is None else slope.abs() + 1e-6


def _decided(
    network: Network, cases: Cases, number: int, rows: Tensor, neurons: Tensor, sign: int
) -> Cases:
    """Return the cases in which the rectifier of these rows is on (+1) or off (-1)."""
    lower, upper = (side.clone().flatten(1) for side in cases.boxes[number])
    signs = cases.splits[number].clone().flatten(1)
    signs[rows, neurons] = sign
    if sign > 0:
        lower[rows, neurons] = lower[rows, neurons].clamp_min(0)
    else:
        upper[rows, neurons] = upper[rows, neurons].clamp_max(0)
    shape = cases.boxes[number].lower.shape
    boxes = list(cases.boxes)
    boxes[number] = Box(lower.reshape(shape), upper.reshape(shape))
    splits = cases.splits | {number: signs.reshape(shape)}
    boxes = onward(network, boxes, number)
    return Cases(boxes, splits, cases.rows, cases.least, cases.choices)


def _solved(
    network: Network, case: Cases, form: Tensor, label: Tensor
) -> tuple[bool, Tensor | None]:
    """Solve a case (1, ...) without bends: proved by its multipliers, or an image that errs.

    A linear program (HiGHS) finds the multipliers; the bound that they give is computed as any.
    """
    back = Backward(network, case.boxes, Choices(), False, False)
    margin = form[case.rows][:, None]
    cost = back.linear(margin, len(network.nodes))[0].flatten().double().cpu().numpy()
    rows, limits, places = [], [], []
    for number, signs in case.splits.items():
        neurons = signs.flatten().nonzero().flatten()
        if len(neurons):
            one = torch.zeros(1, len(neurons), signs.numel()).to(margin)
            one[0, torch.arange(len(neurons)), neurons] = signs.flatten()[neurons].to(margin)
            shaped = one.reshape(1, len(neurons), *network.shape(number))
            row, added = back.linear(shaped, number)
            rows.append(-row.flatten(2)[0].double().cpu().numpy())
            limits.append(added[0].double().cpu().numpy())
            places += [(number, int(neuron)) for neuron in neurons]
    box = case.boxes[network.root]
    ends = np.stack([side.flatten().double().cpu().numpy() for side in box], 1)
    count, penalty = len(places), PENALTY * max(float(np.abs(cost).max()), 1e-9)
    solved = linprog(
        np.concatenate([cost, np.full(count, penalty)]),
        np.hstack([np.vstack(rows), -np.eye(count)]) if count else None,
        np.concatenate(limits) if count else None,
        bounds=[*map(tuple, ends), *[(0, None)] * count],
    )
    if solved.status != 0:
        return False, None
    multipliers = {
        k: torch.zeros_like(signs).to(margin)[:, None] for k, signs in case.splits.items()
    }
    for (number, neuron), price in zip(
        places, solved.ineqlin.marginals if count else (), strict=True
    ):
        sign = float(case.splits[number].flatten()[neuron])
        multipliers[number].view(-1)[neuron] = -sign * max(-price, 0.0)
    choices = Choices(multipliers=multipliers)
    if float(lower_bound(network, case.boxes, margin, choices=choices)) > 0:
        return True, None
    part = (solved.x[: len(ends)] - ends[:, 0]) / np.maximum(ends[:, 1] - ends[:, 0], 1e-30)
    image = case.boxes[0]
    if part.size != image.lower.numel():
        return False, None
    share = torch.from_numpy(part).to(margin).reshape(image.lower.shape)
    tried = torch.cat([image.lower + (image.upper - image.lower) * t for t in (share, 1 - share)])
    wrong = (network(tried).argmax(1) != label).nonzero().flatten()
    return False, tried[wrong[0]] if len(wrong) else None


def _corner(
    network: Network, cases: Cases, label: Tensor, rng: torch.Generator | None
) -> Tensor | None:
    """Return an image of the box that the net gets wrong, if a few tries find one."""
    worst = int(cases.least.argmin())
    box = cases.boxes[0].rows(torch.tensor([worst]))
    noise = torch.rand(PROBES, *box.lower.shape[1:], generator=rng).to(box.lower)
    x = box.lower + (box.upper - box.lower) * noise.round()
    form = margins(label, network.classes).to(x.dtype)[0, cases.rows[worst]]
    for _ in range(3):
        with torch.enable_grad():
            x.requires_grad_(True)
            (slope,) = torch.autograd.grad((network(x) @ form).sum(), x)
        x = torch.where(slope > 0, box.lower, torch.where(slope < 0, box.upper, x)).detach()
        wrong = (network(x).argmax(1) != label).nonzero().flatten()
        if len(wrong):
            return x[wrong[0]]
    return None
