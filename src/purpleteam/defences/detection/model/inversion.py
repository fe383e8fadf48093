"""Trigger inversion, many targets at once, after Neural Cleanse (Wang et al. 2019).

For each slot, a target with or without one source class, a change of the image is sought that is
as small as it can be while most trusted images go to the target. Two ways to keep it small: a
mask is priced, at a rate that follows the success (`shrink_mask`); a change with a length is kept
on a sphere whose radius follows it (`shrink_radius`, after Rony et al. 2019, arXiv:1811.09600).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from purpleteam.defences.detection.model._base import Evidence, ModelDetector, Scanning
from purpleteam.defences.detection.recovered import RecoveredTrigger
from purpleteam.models.devices import fast_autocast
from purpleteam.models.guard import guarded

CHUNK = 64
"""Images in one pass: small enough that a layer's activations stay in the processor's cache."""
NATURAL = 0.6  # share of a class's nearness in the reference that counts as natural in the model

Change = Callable[[slice, Tensor], Tensor]
"""Puts the triggers of some slots on their images: (slots, (S, n, C, H, W)) -> the same shape."""
Shape = Callable[[Tensor, Tensor], Tensor]
"""Puts a change (S, ...) on images (S, n, C, H, W)."""


@dataclass(frozen=True)
class Slot:
    """What one inversion aims at: a target label, from some classes or (None) all others."""

    target: int
    sources: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Search:
    """How long and on how many images an inversion looks."""

    steps: int
    images: int
    """Trusted images for each slot and step, drawn anew."""
    success: float = 0.9
    """Share of them that must go to the target."""
    stream: int = 0
    """Which of the seed's random numbers are used."""

    def shorter(self) -> Search:
        """Return the search on half the images, for the reference, whose sizes count less."""
        return replace(self, images=max(1, self.images // 2))


THOROUGH = Search(steps=120, images=64, success=0.97, stream=90)
"""For the one trigger that is shown and used: it shall work on nearly every image."""


@dataclass(frozen=True, eq=False)
class Inverted:
    """What was found, slot by slot."""

    log_sizes: NDArray[np.float64]
    """(slots,), natural log of the size at which the wanted share just goes to the target."""
    parts: tuple[Tensor, ...]
    """The tensors that make the triggers, (slots, ...) each."""


@dataclass(frozen=True, kw_only=True)
class Inversion(ModelDetector):
    """A detector by one kind of trigger, inverted for every class as target."""

    stream: ClassVar[int]
    """Which of the seed's random numbers are used."""

    steps: int = 70
    """Gradient steps."""
    images: int = 24
    """Trusted images for each class and step."""

    @abstractmethod
    def invert(self, work: Scanning, slots: tuple[Slot, ...], search: Search) -> Inverted:
        """Return the smallest trigger for each slot."""

    @abstractmethod
    def drawn(self, work: Scanning, parts: tuple[Tensor, ...]) -> dict[str, Any]:
        """Return the kind of a trigger, and what it is made of, from the parts of one slot."""

    @property
    def search(self) -> Search:
        """How it looks at every class."""
        return Search(steps=self.steps, images=self.images, stream=self.stream)

    def examine(self, work: Scanning) -> Evidence | None:
        """Size the trigger of every class as target, in model and reference."""
        sizes = self.invert(work, slots_of(work), self.search).log_sizes
        shorter = self.search.shorter()
        rest = minus_natural(
            work, sizes, lambda it: self.invert(it, slots_of(it), shorter).log_sizes
        )
        return self.evidence(rest, sizes)

    def recover(
        self, work: Scanning, target: int, sources: tuple[int, ...] | None
    ) -> RecoveredTrigger | None:
        """Return the smallest trigger that works on nearly all images of the sources."""
        inverted = self.invert(work, (Slot(target, sources),), THOROUGH)
        made = self.drawn(work, tuple(part.cpu() for part in inverted.parts))
        return RecoveredTrigger(target_label=target, source_labels=sources, **made)


def minus_natural(
    work: Scanning,
    log_sizes: NDArray[np.float64],
    measure: Callable[[Scanning], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Return log sizes less the share of the reference's nearness that counts as natural.

    A class that is near in the reference too is near by nature. One that is far there proves
    nothing: references differ most in what they have not learned, and a class must not look
    suspicious because a reference finds it hard.
    """
    if work.reference is None:
        return log_sizes
    natural = measure(replace(work, model=work.reference, reference=None))
    return log_sizes - NATURAL * np.minimum(natural - np.median(natural), 0)


def slots_of(work: Scanning) -> tuple[Slot, ...]:
    """Return one slot for each class as target, from all other classes."""
    return tuple(Slot(target) for target in range(work.classes))


def shrink_mask(
    work: Scanning, slots: tuple[Slot, ...], search: Search, *, rate: float = 0.15
) -> Inverted:
    """Return masks and patterns: parts (slots, 1, H, W) and (slots, C, H, W), both in [0, 1]."""
    (channels, height, width), device = work.images.shape[1:], work.images.device
    rng, n = work.generator(search.stream), len(slots)
    mask = 0.05 * torch.randn((n, 1, height, width), generator=rng) - 1
    pattern = 0.5 * torch.randn((n, channels, height, width), generator=rng)
    mask, pattern = (start.to(device).requires_grad_(True) for start in (mask, pattern))
    optimizer = torch.optim.Adam([mask, pattern], lr=rate, betas=(0.7, 0.95))
    price = torch.full((n,), 16.0 / (height * width), device=device)
    draw = _Draw(work, slots, search)

    def change(part: slice, x: Tensor) -> Tensor:
        opaque = torch.sigmoid(mask[part])[:, None]
        return x + opaque * (torch.sigmoid(pattern[part])[:, None] - x)

    sizes = []
    for _ in range(search.steps):
        optimizer.zero_grad()
        success = _backward(work.model, change, draw(), draw.targets)
        size = torch.sigmoid(mask).flatten(1).sum(1)
        (price * size).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        enough = success >= search.success
        price = torch.where(enough, price * 1.15, price / 1.15**1.5).clamp(1e-4, 1.0)
        sizes.append(size.detach().log())
    parts = (torch.sigmoid(mask).detach(), torch.sigmoid(pattern).detach())
    return Inverted(_settled(sizes), parts)


def shrink_radius(
    work: Scanning,
    slots: tuple[Slot, ...],
    search: Search,
    *,
    form: tuple[int, ...],
    shape: Shape,
    radius: float,
    largest: float,
    stride: float = 0.3,
) -> Inverted:
    """Return changes of least Euclidean length: one part, (slots, *form).

    `shape` puts changes on images. The length begins at `radius` and does not exceed `largest`;
    `stride` is the length of the first steps as a share of it.
    """
    device, draw = work.images.device, _Draw(work, slots, search)
    change = torch.zeros((len(slots), *form), device=device)
    memory, radii = torch.zeros_like(change), torch.full((len(slots),), radius, device=device)
    leaf, sizes = change, []

    def put(part: slice, x: Tensor) -> Tensor:
        return shape(leaf[part], x)

    for step in range(search.steps):
        leaf = change.clone().requires_grad_(True)
        success = _backward(work.model, put, draw(), draw.targets)
        gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        memory = 0.7 * memory + 0.3 * _rescaled(gradient, torch.ones_like(radii))
        left = (1 + math.cos(math.pi * step / search.steps)) / 2
        change = change - _rescaled(memory, stride * (0.1 + 0.9 * left) * radii)
        turn = 0.08 * (0.2 + 0.8 * left)
        radii = torch.where(success >= search.success, radii * (1 - turn), radii * (1 + turn))
        radii = radii.clamp_max(largest)
        change = _rescaled(change, radii)
        sizes.append(radii.log())
    return Inverted(_settled(sizes), (change,))


class _Draw:
    """Draws trusted images for each slot: of its source, or of all classes but its target."""

    def __init__(self, work: Scanning, slots: tuple[Slot, ...], search: Search) -> None:
        self.images, self.count = work.images, search.images
        self.rng = work.generator(search.stream + 1)
        self.targets = torch.tensor([slot.target for slot in slots], device=work.images.device)
        self.pools = []
        for slot in slots:
            wanted = work.labels != slot.target
            if slot.sources is not None:
                wanted = wanted & np.isin(work.labels, slot.sources)
            self.pools.append(torch.from_numpy(np.flatnonzero(wanted)))

    def __call__(self) -> Tensor:
        """Return images (slots, n, C, H, W)."""
        chosen = [
            pool[torch.randint(len(pool), (self.count,), generator=self.rng)] for pool in self.pools
        ]
        return self.images[torch.stack(chosen).to(self.images.device)]


def _backward(model: nn.Module, change: Change, x: Tensor, targets: Tensor) -> Tensor:
    """Add the gradients of the loss to what `change` is made of; return successes (slots,)."""
    n = x.shape[1]
    step = max(1, CHUNK // n)
    successes = []
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        aims = targets[part].repeat_interleave(n)
        changed = change(part, x[part]).flatten(0, 1)
        with fast_autocast(x.device):
            logits = guarded(model)(changed)
        (F.cross_entropy(logits, aims, reduction="sum") / n).backward()  # type: ignore[no-untyped-call]
        successes.append((logits.detach().argmax(1) == aims).float().view(-1, n).mean(1))
    return torch.cat(successes)


def _settled(log_sizes: list[Tensor]) -> NDArray[np.float64]:
    """Return the mean over the last fifth of the steps, in which the size swings about its goal."""
    last = torch.stack(log_sizes[-max(1, len(log_sizes) // 5) :])
    return last.double().mean(0).cpu().numpy()


def _rescaled(changes: Tensor, lengths: Tensor) -> Tensor:
    """Return changes (S, ...) of the given lengths (S,); one of length 0 stays."""
    now = changes.flatten(1).norm(dim=1).clamp_min(1e-12)
    factor: Tensor = (lengths / now).view(-1, *[1] * (changes.ndim - 1))
    return changes * factor
