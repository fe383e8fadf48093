"""The one loop of all repairs that fine-tune: few steps, small batches, the best check kept.

Batch normalisation stays in eval mode: a handful of images is no estimate of a whole set's mean.
A part of the trusted images is held out, and what is kept is the weights of the check that does
best on them; which images those are, the order and the augmentation are functions of the seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from purpleteam.core.digest import sha256_bytes
from purpleteam.core.progress import SILENT, Progress
from purpleteam.data.images import ImageSet
from purpleteam.defences.repair._base import Repair, Repairing
from purpleteam.models.devices import device_of, to_batch
from purpleteam.models.recipes import AUGMENTATIONS

__all__ = ["Loop", "Tuning", "generator", "held_out", "tune"]

Loss = Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]
"""(net, x, y, rng) -> a scalar to go down; y is -1 where the label is not known."""
Step = Callable[[nn.Module, Callable[[], Tensor]], None]
"""(net, loss) -> leaves in each parameter's `grad` what the optimizer is to follow."""


@dataclass(frozen=True, kw_only=True)
class Loop:
    """How long and how fast a net is tuned."""

    steps: int = 300
    """Optimizer steps."""
    batch_size: int = 64
    """Images a step."""
    learning_rate: float = 1e-3
    """Largest step size of Adam; it rises for a quarter of the steps, then falls to 0."""
    augmentation: str = "shift"
    """What is done to the images: none, shift, freehand."""
    checks: int = 10
    """How often the net is scored; the best check is kept."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "checks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate must be above 0, not {self.learning_rate}")


@dataclass(frozen=True, kw_only=True)
class Tuning(Loop, Repair):
    """A repair that fine-tunes."""

    held_out: float = 0.2
    """Share of the trusted images by which the best check is chosen."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out must be at least 0 and below 1, not {self.held_out}")

    def tune(self, net: nn.Module, images: ImageSet, work: Repairing, **how: Any) -> nn.Module:
        """Return the net, tuned in place by `tune` with the seed and progress of `work`."""
        description = f"repair {self.name}"
        return tune(
            net,
            images,
            self,
            seed=work.seed,
            progress=work.progress,
            description=description,
            **how,
        )


def held_out(work: Repairing, share: float) -> tuple[ImageSet, ImageSet]:
    """Return the trusted images in two: to learn from, and a share to choose by.

    Both are the whole set where a share of it would be no image.
    """
    trusted = work.trusted
    if trusted is None:
        raise ValueError("a repair that tunes needs trusted images")
    order = np.random.default_rng(work.seed).permutation(len(trusted))
    kept = int(share * len(trusted))
    if kept == 0:
        return trusted, trusted
    return trusted.take(order[kept:]), trusted.take(order[:kept])


def tune(
    net: nn.Module,
    images: ImageSet,
    loop: Loop,
    *,
    loss: Loss,
    seed: int,
    score: Callable[[nn.Module], float] | None = None,
    step: Step | None = None,
    after_step: Callable[[nn.Module], None] | None = None,
    description: str = "tune",
    progress: Progress = SILENT,
) -> nn.Module:
    """Change `net` in place and return it with the weights of its best check.

    Args:
        net: in eval mode, where it stays.
        images: what it learns from.
        loop: steps, rates, augmentation.
        loss: what goes down.
        seed: order, augmentation and the loss's chance are pure functions of it.
        score: of a net, on held-out images; the lowest is kept, the latest of equals. Without
            one the last weights are.
        step: fills in the gradients; the default is those of the loss.
        after_step: puts right what a step must not change.
        description: shown beside the progress bar.
        progress: where to report.
    """
    device = device_of(net)
    labels = torch.from_numpy(images.labels.copy())
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=loop.learning_rate, weight_decay=0.0, fused=True
    )
    every = max(1, loop.steps // loop.checks)
    best: dict[str, Tensor] = {}
    lowest = math.inf
    with progress.task(description, loop.steps) as task:
        for number in range(loop.steps):
            rng = generator(seed, number)
            chosen = torch.randint(len(images), (loop.batch_size,), generator=rng)
            x = to_batch(images.images[chosen.numpy()], device)
            x, y = AUGMENTATIONS[loop.augmentation](x, rng), labels[chosen].to(device)
            for group in optimizer.param_groups:
                group["lr"] = loop.learning_rate * _rate(number / loop.steps)
            optimizer.zero_grad(set_to_none=True)
            (step or _plain_step)(net, partial(loss, net, x, y, rng))
            optimizer.step()
            if after_step is not None:
                after_step(net)
            if (number + 1) % every == 0 or number + 1 == loop.steps:
                found = score(net) if score else 0.0
                if found <= lowest or not best:
                    lowest = found
                    best = {name: one.clone() for name, one in net.state_dict().items()}
            task.advance(1)
    net.load_state_dict(best)
    return net


def generator(seed: int, step: int) -> torch.Generator:
    """Return the chance of one step, a function of (seed, step) alone."""
    key = sha256_bytes(f"repair/{seed}/{step}".encode())
    return torch.Generator().manual_seed(int(key[7:22], 16))


def _plain_step(net: nn.Module, loss: Callable[[], Tensor]) -> None:
    loss().backward()  # type: ignore[no-untyped-call]


def _rate(done: float) -> float:
    rise = 0.25
    if done < rise:
        return 0.04 + 0.96 * done / rise
    return (1 + math.cos(math.pi * (done - rise) / (1 - rise))) / 2
