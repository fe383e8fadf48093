"""From the cheapest proof to a complete one: each stage sees what the ones before left open.

An image ends verified (no image in its ball is classified otherwise), falsified (one is: it is
kept) or unknown. Bounds of margins only ever rise, so a later stage is never looser.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from purpleteam.attacks.evaluate import evaluate
from purpleteam.attacks.evasion import ATTACKS, EvasionAttack
from purpleteam.certify.ball import FALSIFIED, UNKNOWN, VERIFIED, BallCertificate, Stage, joined
from purpleteam.certify.bounds import Boxes, ball, interval_margins, intervals, lower_bound, margins
from purpleteam.certify.boxes import Box
from purpleteam.certify.branch import branch, only_rectifiers
from purpleteam.certify.folding import folded
from purpleteam.certify.network import Network, network_of
from purpleteam.certify.slopes import optimise
from purpleteam.certify.tighten import MEMORY, bent_at, cost_of_rows, curved, tighten
from purpleteam.certify.vnnlib import box_of
from purpleteam.core.config import build
from purpleteam.core.errors import UsageError, unknown
from purpleteam.core.progress import SILENT, Progress
from purpleteam.data.images import ImageSet
from purpleteam.data.streamed import portions
from purpleteam.models.black_box import OnnxFile
from purpleteam.models.devices import exact_arithmetic, to_batch
from purpleteam.models.recipes import generator

LARGER = "larger ball"  # what decided where an image is verified in a larger one
CACHE = 800 << 10  # bytes of a layer that a core passes over fastest
TOLD = 10.0  # seconds from which an estimate is told
METHODS: Mapping[str, tuple[str, ...]] = {
    "ibp": ("ibp",),
    "crown_ibp": ("ibp", "crown_ibp"),
    "crown": ("ibp", "crown_ibp", "attack", "crown"),
    "alpha_crown": ("ibp", "crown_ibp", "attack", "crown", "alpha_crown"),
    "complete": ("ibp", "crown_ibp", "attack", "crown", "alpha_crown", "branch"),
}
"""The stages of each method, in order. `auto` is `alpha_crown`."""


class GraphNet(nn.Module):
    """The graph as a module, so that a file of a net can be attacked by gradients."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


@dataclass
class _Work:
    """What is known of each image on the way; rows are images, columns other classes."""

    network: Network
    x: Tensor
    labels: Tensor
    epsilon: float
    memory: int
    least: Tensor = field(init=False)
    decided_by: NDArray[np.str_] = field(init=False)
    verdicts: NDArray[np.str_] = field(init=False)
    counterexamples: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    stopped: dict[str, int] = field(default_factory=dict)  # by the limit of branch and bound
    looked_at: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.x)
        self.least = torch.full((n, self.network.classes - 1), -torch.inf, device=self.x.device)
        self.decided_by = np.full(n, "", "<U12")
        self.verdicts = np.full(n, UNKNOWN, "<U9")

    @property
    def open(self) -> Tensor:
        return torch.from_numpy(np.flatnonzero(self.verdicts == UNKNOWN)).to(self.x.device)

    def raise_to(self, rows: Tensor, least: Tensor, stage: str) -> None:
        """Keep what is proved by now; an image all of whose margins are above 0 is verified."""
        self.least[rows] = torch.maximum(self.least[rows], least)
        proved = rows[(self.least[rows] > 0).all(1)].cpu().numpy()
        self.verdicts[proved], self.decided_by[proved] = VERIFIED, stage

    def take_over(self, known: BallCertificate) -> None:
        """Keep what is verified in a larger ball."""
        proved = np.flatnonzero((known.verdicts == VERIFIED) & (self.verdicts == UNKNOWN))
        self.verdicts[proved], self.decided_by[proved] = VERIFIED, LARGER
        self.looked_at[LARGER] = len(proved)
        self.least[proved] = torch.from_numpy(known.margins[proved])[:, None].to(self.least)

    def refute(self, row: int, x_adv: Tensor, stage: str) -> None:
        """Keep a counterexample, put back into the ball, which it may have left by a rounding."""
        lower, upper = box_of(self.x[row].cpu().float().numpy(), self.epsilon)
        inside = np.clip(x_adv.detach().cpu().float().numpy(), lower, upper)
        answer = self.network(torch.from_numpy(inside[None]).to(self.x)).argmax()
        if int(answer) != int(self.labels[row]):
            self.falsify(row, inside, stage)

    def falsify(self, row: int, wrong: NDArray[np.float32], stage: str) -> None:
        """Keep an image of the ball that is classified otherwise."""
        self.verdicts[row], self.decided_by[row] = FALSIFIED, stage
        self.counterexamples[row] = wrong

    @contextmanager
    def timed(self, stage: str, images: int) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started
        self.looked_at[stage] = self.looked_at.get(stage, 0) + images

    def ball(self, rows: Tensor) -> Box:
        return ball(self.x[rows], self.epsilon)

    def boxes(self, rows: Tensor) -> Boxes:
        return intervals(self.network, self.ball(rows))

    def chunks(self, rows: Tensor, forms: int = 4, *, cached: bool = False) -> tuple[Tensor, ...]:
        """Split images into chunks: `forms` copies of the widest layer of each fit into memory."""
        most = max(1, self.memory // (forms * 16 * self.widest))
        if cached and self.x.device.type == "cpu":
            most = min(most, max(16, CACHE // (forms * self.widest)))
        return torch.split(rows, most) if len(rows) else ()

    @property
    def widest(self) -> int:
        return max(math.prod(self.network.shape(number)) for number in range(len(self.network)))

    def raised(
        self, rows: Tensor, boxes: Boxes, bound: Callable[[Boxes, Tensor], Tensor]
    ) -> Tensor:
        """Bound the margins of these images that are still open, all others left as they are."""
        least = self.least[rows].clone()
        left = least <= 0
        most = int(left.sum(1).max())
        columns = left.to(torch.int8).topk(most, 1).indices
        step = max(1, self.memory // (16 * self.widest * len(rows)))
        for some in torch.split(columns, step, 1):
            form = margins(self.labels[rows], self.network.classes, some)
            found = torch.maximum(bound(boxes, form), least.gather(1, some))
            least.scatter_(1, some, found)
        return least


def certify_ball(
    model: Any,
    images: ImageSet,
    *,
    epsilon: float,
    method: str = "auto",
    seconds: float = 60.0,
    known: BallCertificate | None = None,
    seed: int = 0,
    memory: int = MEMORY,
    device: torch.device | None = None,
    confirm: Callable[[BallCertificate, ImageSet], BallCertificate] | None = None,
    progress: Progress = SILENT,
) -> BallCertificate:
    """Prove for each image that no image within epsilon in L-infinity and [0, 1] changes its class.

    Args:
        model: a classifier whose graph can be read; the bounds are of its weights in float32.
        images: what is certified.
        epsilon: radius of the ball, in pixel units.
        method: how far to go: ibp, crown_ibp, crown, alpha_crown, complete; auto is alpha_crown.
        seconds: limit for one image, by counted work: of CROWN, and of branch and bound.
        known: of the same images in a larger ball; what is verified there is not done again.
        seed: of the attack, and of branch and bound's tries.
        memory: bytes of linear forms at a time.
        device: where; by default the CPU.
        confirm: returns a certificate of images without the counterexamples that are none.
        progress: where to report.

    Images that do not fit in memory are certified a part at a time; of the counterexamples then
    only a few are kept, none of an image that is wrong as it is.

    Raises:
        Unsupported: a layer through which no bound goes.
    """
    if method != "auto" and method not in METHODS:
        raise UsageError(unknown("method", method, ("auto", *METHODS)))
    if not 0 <= epsilon <= 1:
        raise UsageError(f"epsilon must be from 0 to 1, not {epsilon:g}")
    if len(places := portions(images.images)) > 1:
        options: dict[str, Any] = {"epsilon": epsilon, "method": method, "seconds": seconds}
        options |= {"seed": seed, "memory": memory, "device": device, "confirm": confirm}
        options |= {"progress": progress}
        return joined(
            certify_ball(model, images.take(place), known=known and known.of(place), **options)
            for place in places
        )
    stages = METHODS["alpha_crown" if method == "auto" else method]
    device = device or torch.device("cpu")
    height, width, channels = images.images.shape[1:]
    network = folded(network_of(model, (channels, height, width)).to(torch.float32, device))
    x = to_batch(images.images[:], device)
    labels = torch.from_numpy(images.labels.astype(np.int64)).to(device)
    work = _Work(network, x, labels, epsilon, memory)
    with torch.no_grad(), exact_arithmetic(device):
        for rows in work.chunks(work.open):
            wrong = rows[network(x[rows]).argmax(1) != labels[rows]]
            for row in wrong.tolist():
                work.falsify(row, x[row].cpu().numpy(), "clean")
        if known is not None:
            work.take_over(known)
        _cheap(work, stages, progress)
        if "attack" in stages and len(work.open) and epsilon > 0:
            with work.timed("attack", len(work.open)):
                target = GraphNet(network) if isinstance(model, OnnxFile) else model
                _attack(work, target, images, seed, progress)
        if "crown" in stages:
            _deep(work, stages, seconds, seed, progress)
    for limit, count in work.stopped.items():
        work.notes.append(f"branch and bound left {count} images unknown at its limit of {limit}")
    least = work.least.amin(1).cpu().numpy().astype(np.float32)
    proved = BallCertificate(
        method=method,
        epsilon=epsilon,
        classes=network.classes,
        verdicts=work.verdicts,
        decided_by=work.decided_by,
        margins=least,
        counterexamples=work.counterexamples,
        complete="branch" in stages and only_rectifiers(network),
        notes=tuple(work.notes),
        stages=tuple(
            Stage(
                name=name,
                looked_at=work.looked_at.get(name, 0),
                verified=int(((work.decided_by == name) & (work.verdicts == VERIFIED)).sum()),
                falsified=int(((work.decided_by == name) & (work.verdicts == FALSIFIED)).sum()),
                seconds=round(work.seconds.get(name, 0.0), 3),
            )
            for name in (*work.looked_at.keys() & {LARGER}, *stages)
        ),
    )
    return proved if confirm is None else confirm(proved, images)


def _cheap(work: _Work, stages: tuple[str, ...], progress: Progress) -> None:
    """IBP with the last layer elided, then CROWN-IBP for what that leaves."""
    with progress.task("certify by ibp", len(work.open)) as task:
        for rows in work.chunks(work.open, cached=True):
            with work.timed("ibp", len(rows)):
                least = interval_margins(work.network, work.ball(rows), work.labels[rows])
                work.raise_to(rows, least, "ibp")
            task.advance(len(rows))
    if "crown_ibp" not in stages:
        return
    left = work.open
    with progress.task("certify by crown_ibp", len(left)) as task:
        for rows in work.chunks(left, forms=2 * min(work.network.classes, 32), cached=True):
            with work.timed("crown_ibp", len(rows)):
                boxes = work.boxes(rows)
                least = work.raised(rows, boxes, lambda b, f: lower_bound(work.network, b, f))
                work.raise_to(rows, least, "crown_ibp")
            task.advance(len(rows))


def _attack(work: _Work, model: Any, images: ImageSet, seed: int, progress: Progress) -> None:
    """Look for a counterexample of each image that is still open."""
    rows = work.open.cpu().numpy()
    names = ("apgd_ce", "apgd_t") if work.network.classes >= 4 else ("apgd_ce",)
    attacks: list[EvasionAttack] = [
        build(ATTACKS[name], {"epsilon": work.epsilon, "steps": 20}, name).inside_box()
        for name in names
    ]
    with torch.enable_grad():
        result = evaluate(model, images.take(rows), *attacks, seed=seed, progress=progress)
    for place in np.flatnonzero(result.broken_by >= 0):
        x_adv = torch.from_numpy(result.x_adv[place]).permute(2, 0, 1)
        work.refute(int(rows[place]), x_adv, "attack")


def _deep(
    work: _Work, stages: tuple[str, ...], seconds: float, seed: int, progress: Progress
) -> None:
    """CROWN, searched slopes, and branch and bound, for a few images at a time."""
    left = _affordable(work, work.open, seconds)
    with progress.task(f"certify by {stages[-1]}", len(left)) as task:
        for chunk in work.chunks(left, forms=64):
            with work.timed("crown", len(chunk)):
                boxes = tighten(work.network, work.boxes(chunk), memory=work.memory)
                least = work.raised(chunk, boxes, lambda b, f: lower_bound(work.network, b, f))
                work.raise_to(chunk, least, "crown")
            rows, boxes = _still_open(work, chunk, boxes)
            if "alpha_crown" in stages and len(rows):
                with work.timed("alpha_crown", len(rows)), torch.enable_grad():
                    least = work.raised(rows, boxes, lambda b, f: optimise(work.network, b, f)[0])
                    work.raise_to(rows, least, "alpha_crown")
                rows, boxes = _still_open(work, rows, boxes)
            task.advance(len(chunk) - len(rows))
            for place, row in enumerate(rows.tolist()):
                if "branch" in stages:
                    box = [box.rows(torch.tensor([place])) for box in boxes]
                    _branch(work, row, box, seconds, seed)
                task.advance(1)


def _affordable(work: _Work, rows: Tensor, seconds: float) -> Tensor:
    """Return the images for which CROWN should need at most `seconds` each."""
    if len(rows) == 0:
        return rows
    each = cost_of_rows(work.network)
    costs = torch.cat(
        [
            sum(
                (
                    2 * each[number] * bent_at(work.network, boxes, number).flatten(1).sum(1)
                    for number in curved(work.network)
                ),
                torch.zeros(len(chunk), device=work.x.device),
            )
            for chunk in work.chunks(rows)
            for boxes in (work.boxes(chunk),)
        ]
    )
    dear = costs > seconds
    total = float(costs[~dear].sum())
    if total > TOLD:
        work.notes.append(f"crown was estimated at {total:.0f} seconds for {len(rows)} images")
    if bool(dear.any()):
        least, most = float(costs[dear].min()), float(costs[dear].max())
        work.notes.append(
            f"{int(dear.sum())} images were not looked at by crown, which would take {least:.0f} "
            f"to {most:.0f} seconds each, more than the {seconds:g} allowed"
        )
    return rows[~dear]


def _still_open(work: _Work, rows: Tensor, boxes: Boxes) -> tuple[Tensor, Boxes]:
    kept = (work.least[rows] <= 0).any(1)
    return rows[kept], [box.rows(kept) for box in boxes]


def _branch(work: _Work, row: int, boxes: Boxes, seconds: float, seed: int) -> None:
    with work.timed("branch", 1), torch.enable_grad():
        outcome = branch(
            work.network,
            boxes,
            work.labels[row : row + 1],
            (work.least[row] <= 0).nonzero().flatten(),
            seconds=seconds,
            memory=4 * work.memory,
            rng=generator(seed, "branch", row),
        )
    if outcome.proved:
        some = torch.tensor([row])
        work.raise_to(some, torch.full_like(work.least[some], 1e-30), "branch")
    elif outcome.counterexample is not None:
        work.refute(row, outcome.counterexample, "branch")
    elif outcome.limit:
        work.stopped[outcome.limit] = work.stopped.get(outcome.limit, 0) + 1
