"""What every model detector is: it sizes the easiest trigger of each class and compares them.

After Neural Cleanse (Wang et al. 2019), but sizes are on a log scale, each class is left out of
what it is compared with, and the deviation is drawn towards the one that clean models have. Most
invert triggers, many targets at once: a mask is priced, at a rate that follows the success; a
change with a length is kept on a sphere whose radius follows it (after Rony et al. 2019,
arXiv:1811.09600).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from purpleteam.core.arrays import Floats, Ints
from purpleteam.core.registry import Registry, check_ranges
from purpleteam.core.registry import part_of as part_of
from purpleteam.defences.detection.recovered import RecoveredTrigger
from purpleteam.models.devices import fast_autocast
from purpleteam.models.guard import guarded

CONSISTENT = 1.4826  # makes the median absolute deviation of normal numbers their deviation
USUAL = 5.0  # the usual deviation counts as this many classes beside the model's own
MUTUAL = 0.7  # share of the opposite pair's nearness that counts as natural
NATURAL_PAIR = 0.75  # the same of its nearness in the reference
REWEIGHTED = 20  # rounds of reweighting
FLAT = 0.02  # log sizes that differ by less count alike: no weight is larger than its inverse
CHUNK = 64  # images in one pass: a layer's activations stay in the processor's cache
NATURAL_SHARE = 0.6  # the same of a class's nearness in the reference

Slot = tuple[int, tuple[int, ...] | None]  # a target label, from some classes or all others


@dataclass(frozen=True, kw_only=True)
class Null:
    """What a detector's statistic is in clean models: a Gumbel law, and a usual deviation."""

    ranges: ClassVar[str] = "scale above 0; deviation above 0"

    location: float
    scale: float
    deviation: float  # usual deviation of log sizes between the classes of a clean model

    def __post_init__(self) -> None:
        check_ranges(self)

    def standing(self, statistic: float) -> float:
        """Return how far a statistic lies beyond the location, in scales: no probability."""
        return (statistic - self.location) / self.scale

    def pooled(self, rest: Floats, n: int) -> float:
        """Return the robust deviation of what `n` numbers leave, drawn towards the usual one."""
        spread = CONSISTENT * float(np.median(np.abs(rest)))
        return math.sqrt((n * spread**2 + USUAL * self.deviation**2) / (n + USUAL))


def small_outliers(log_sizes: Floats, null: Null) -> Floats:
    """Return (k,): how far each size lies below the median of the others, in deviations."""
    statistics = np.empty(len(log_sizes))
    for label, size in enumerate(log_sizes):
        others = np.delete(log_sizes, label)
        middle = float(np.median(others))
        statistics[label] = (middle - size) / null.pooled(others - middle, len(others))
    return statistics


def pair_outliers(log_sizes: Floats, null: Null, natural: Floats | None = None) -> Floats:
    """Return (k, k): how far each pair (source, target) lies below what its classes explain.

    Effects of rows and columns are fitted by least absolute deviations, which one pair cannot bend.
    Natural nearness is mutual (4 and 9), a backdoor is one-way: shares of what the opposite pair
    lies below its classes, and of what the pair does in the reference, with log sizes `natural`,
    are taken off. NaN, for no pair, stays NaN.
    """
    rows, columns = np.nonzero(~np.isnan(log_sizes))
    effects = np.zeros((len(rows), 2 * len(log_sizes)))
    effects[np.arange(len(rows)), rows] = 1
    effects[np.arange(len(rows)), len(log_sizes) + columns] = 1
    rest = _unexplained(log_sizes[rows, columns], effects)
    if natural is not None:
        rest = rest - NATURAL_PAIR * np.minimum(_unexplained(natural[rows, columns], effects), 0)
    opposite = np.zeros_like(log_sizes)
    opposite[columns, rows] = rest
    rest = rest - MUTUAL * np.minimum(opposite[rows, columns], 0)
    statistics = np.full(log_sizes.shape, np.nan)
    statistics[rows, columns] = -rest / null.pooled(rest, len(log_sizes))
    return statistics


def _unexplained(values: Floats, effects: Floats) -> Floats:
    """Return what least absolute deviations leave, by least squares reweighted (Schlossmacher)."""
    weights = np.ones(len(values))
    rest = values
    for _ in range(REWEIGHTED):
        root = np.sqrt(weights)
        fit = np.linalg.lstsq(root[:, None] * effects, root * values, rcond=None)[0]
        rest = values - effects @ fit
        weights = 1 / np.maximum(np.abs(rest), FLAT)
    return np.asarray(rest)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scanning:
    """What a detector works with: a frozen model and the trusted images on its device."""

    model: nn.Module
    images: Tensor  # trusted clean images, float32 (N, C, H, W) in [0, 1]
    labels: Ints
    classes: int
    seed: int
    reference: nn.Module | None = None  # distilled from it: as near by nature, without backdoor

    def generator(self, stream: int) -> torch.Generator:
        """Return random numbers of their own for each use, a pure function of the seed."""
        return torch.Generator().manual_seed(1_000_003 * self.seed + stream)


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What one detector says of a model."""

    detector: str
    statistics: Floats  # (classes,), how far each stands below the others, in robust deviations
    standing: float  # how far that is beyond clean models, in scales of the null law
    target_label: int  # the class that stands out most
    sources: tuple[tuple[int, ...], ...] | None = None  # for each label; None is all classes
    details: Mapping[str, Any] = field(default_factory=dict)  # what a record keeps beside

    @classmethod
    def of(cls, detector: str, statistics: Floats, null: Null, **more: Any) -> Evidence:
        """Return the evidence against the class of the greatest statistic."""
        target = int(statistics.argmax())
        standing = null.standing(float(statistics[target]))
        return cls(
            detector=detector, statistics=statistics, standing=standing, target_label=target, **more
        )

    @property
    def source_labels(self) -> tuple[int, ...] | None:
        return None if self.sources is None else self.sources[self.target_label]


@dataclass(frozen=True, kw_only=True)
class ModelDetector(ABC):
    """One way of finding the easiest trigger of each class; its fields are counts."""

    name: ClassVar[str] = ""
    null: ClassVar[Null]  # from calibration models that are evaluated nowhere
    compares: ClassVar[bool] = False  # whether it takes off what the reference explains
    ranges: ClassVar[str] = "steps at least 1; images at least 1; restarts at least 1"

    def __post_init__(self) -> None:
        check_ranges(self)

    @abstractmethod
    def examine(self, work: Scanning) -> Evidence | None:
        """Return what the model's classes look like, or None where they cannot be compared."""

    def recover(
        self, work: Scanning, target: int, sources: tuple[int, ...] | None
    ) -> RecoveredTrigger | None:
        """Return the trigger for one target, searched for thoroughly; None if it has no picture."""
        return None

    def evidence(self, log_sizes: Floats, recorded: Floats | None = None) -> Evidence:
        """Return the evidence of a log size per class; `recorded` is written instead of them."""
        sizes = np.exp(log_sizes if recorded is None else recorded).tolist()
        statistics = small_outliers(log_sizes, self.null)
        return Evidence.of(self.name, statistics, self.null, details={"sizes": sizes})


MODEL_DETECTORS: Registry[type[ModelDetector]] = Registry("model detector")


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is looked for in a model, how long and on how many images."""

    work: Scanning
    slots: tuple[Slot, ...]
    steps: int
    images: int  # trusted images for each slot and step, drawn anew
    success: float = 0.9  # share of them that must go to the target
    stream: int  # which of the seed's random numbers are used

    def within(self, reference: nn.Module) -> Search:
        """Return the search in the reference, on half the images."""
        work = replace(self.work, model=reference, reference=None)
        return replace(self, work=work, images=max(1, self.images // 2))

    def batches(self) -> Iterator[Tensor]:
        """Yield images (slots, n, C, H, W) for each step, of the slots' sources."""
        rng = self.work.generator(self.stream + 1)
        pools = []
        for target, sources in self.slots:
            wanted = self.work.labels != target
            if sources is not None:
                wanted = wanted & np.isin(self.work.labels, sources)
            pools.append(torch.from_numpy(np.flatnonzero(wanted)))
        for _ in range(self.steps):
            chosen = [
                pool[torch.randint(len(pool), (self.images,), generator=rng)] for pool in pools
            ]
            yield self.work.images[torch.stack(chosen).to(self.work.images.device)]


@dataclass(frozen=True, eq=False)
class Inverted:
    """What was found, slot by slot."""

    log_sizes: Floats  # (slots,), of the size at which the wanted share just goes
    parts: tuple[Tensor, ...]  # that make the triggers, (slots, ...) each


@dataclass(frozen=True, kw_only=True)
class Inversion(ModelDetector):
    """A detector by one kind of trigger, inverted for every class as target."""

    stream: ClassVar[int]  # which of the seed's random numbers are used

    steps: int = 70
    """Gradient steps."""
    images: int = 24
    """Trusted images for each class and step."""

    @abstractmethod
    def invert(self, search: Search) -> Inverted:
        """Return the smallest trigger for each slot."""

    @abstractmethod
    def drawn(self, parts: tuple[Tensor, ...], work: Scanning) -> dict[str, Any]:
        """Return the kind of a trigger, and what it is made of, from the parts of one slot."""

    def search(self, work: Scanning) -> Search:
        return every_target(work, steps=self.steps, images=self.images, stream=self.stream)

    def examine(self, work: Scanning) -> Evidence | None:
        """Size the trigger of every class, less what the reference's nearness explains."""
        search = self.search(work)
        sizes = rest = self.invert(search).log_sizes
        if work.reference is not None:
            natural = self.invert(search.within(work.reference)).log_sizes
            rest = sizes - NATURAL_SHARE * np.minimum(natural - np.median(natural), 0)
        return self.evidence(rest, sizes)

    def recover(
        self, work: Scanning, target: int, sources: tuple[int, ...] | None
    ) -> RecoveredTrigger | None:
        """Return the smallest trigger that works on nearly all images of the sources."""
        slots = ((target, sources),)
        thorough = Search(work=work, slots=slots, steps=120, images=64, success=0.97, stream=90)
        parts = tuple(part.cpu() for part in self.invert(thorough).parts)
        drawn = self.drawn(parts, work)
        return RecoveredTrigger(target_label=target, source_labels=sources, **drawn)


def every_target(work: Scanning, *, steps: int, images: int, stream: int) -> Search:
    """Return the search for each class as target, from all other classes."""
    slots = tuple((target, None) for target in range(work.classes))
    return Search(work=work, slots=slots, steps=steps, images=images, stream=stream)


def shrink_mask(search: Search, *, rate: float = 0.15) -> Inverted:
    """Return masks and patterns: parts (slots, 1, H, W) and (slots, C, H, W), both in [0, 1]."""
    images, n = search.work.images, len(search.slots)
    channels, height, width = images.shape[1:]
    rng = search.work.generator(search.stream)
    mask = 0.05 * torch.randn((n, 1, height, width), generator=rng) - 1
    pattern = 0.5 * torch.randn((n, channels, height, width), generator=rng)
    mask, pattern = (start.to(images.device).requires_grad_(True) for start in (mask, pattern))
    optimizer = torch.optim.Adam([mask, pattern], lr=rate, betas=(0.7, 0.95))
    price = torch.full((n,), 16.0 / (height * width), device=images.device)

    def put(part: slice, x: Tensor) -> Tensor:
        opaque = torch.sigmoid(mask[part])[:, None]
        return x + opaque * (torch.sigmoid(pattern[part])[:, None] - x)

    sizes = []
    for x in search.batches():
        optimizer.zero_grad()
        success = _backward(search, put, x)
        size = torch.sigmoid(mask).flatten(1).sum(1)
        (price * size).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        enough = success >= search.success
        price = torch.where(enough, price * 1.15, price / 1.15**1.5).clamp(1e-4, 1.0)
        sizes.append(size.detach().log())
    return _settled(sizes, torch.sigmoid(mask).detach(), torch.sigmoid(pattern).detach())


def shrink_radius(
    search: Search,
    shape: Callable[[Tensor, Tensor], Tensor],
    form: tuple[int, ...],
    *,
    radius: float,
    largest: float,
    stride: float = 0.3,
) -> Inverted:
    """Return changes of least Euclidean length: one part, (slots, *form).

    `shape` puts changes (S, *form) on images (S, n, C, H, W); `stride` is the length of the first
    steps as a share of the radius.
    """
    device, n = search.work.images.device, len(search.slots)
    change = leaf = torch.zeros((n, *form), device=device)
    memory, radii = torch.zeros_like(change), torch.full((n,), radius, device=device)

    def put(part: slice, x: Tensor) -> Tensor:
        return shape(leaf[part], x)

    sizes = []
    for step, x in enumerate(search.batches()):
        leaf = change.clone().requires_grad_(True)
        success = _backward(search, put, x)
        gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        memory = 0.7 * memory + 0.3 * _rescaled(gradient, torch.ones_like(radii))
        left = (1 + math.cos(math.pi * step / search.steps)) / 2
        change = change - _rescaled(memory, stride * (0.1 + 0.9 * left) * radii)
        turn = 0.08 * (0.2 + 0.8 * left)
        radii = torch.where(success >= search.success, radii * (1 - turn), radii * (1 + turn))
        radii = radii.clamp_max(largest)
        change = _rescaled(change, radii)
        sizes.append(radii.log())
    return _settled(sizes, change)


def _backward(search: Search, put: Callable[[slice, Tensor], Tensor], x: Tensor) -> Tensor:
    """Add the gradients for the triggers that `put` puts on images; return successes (slots,)."""
    n, successes = x.shape[1], []
    targets = torch.tensor([target for target, _ in search.slots], device=x.device)
    step = max(1, CHUNK // n)
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        aims = targets[part].repeat_interleave(n)
        changed = put(part, x[part]).flatten(0, 1)
        with fast_autocast(x.device):
            logits = guarded(search.work.model)(changed)
        (F.cross_entropy(logits, aims, reduction="sum") / n).backward()  # type: ignore[no-untyped-call]
        successes.append((logits.detach().argmax(1) == aims).float().view(-1, n).mean(1))
    return torch.cat(successes)


def _settled(log_sizes: list[Tensor], *parts: Tensor) -> Inverted:
    """Return the mean over the last fifth of the steps, in which the size swings about its goal."""
    last = torch.stack(log_sizes[-max(1, len(log_sizes) // 5) :])
    return Inverted(last.double().mean(0).cpu().numpy(), parts)


def _rescaled(changes: Tensor, lengths: Tensor) -> Tensor:
    """Return changes (S, ...) of the given lengths (S,); one of length 0 stays."""
    now = changes.flatten(1).norm(dim=1).clamp_min(1e-12)
    factor: Tensor = (lengths / now).view(-1, *[1] * (changes.ndim - 1))
    return changes * factor
