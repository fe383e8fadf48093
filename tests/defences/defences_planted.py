"""Tiny nets with and without a backdoor that was put in by hand, and images that they know."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from purpleteam.data.images import ImageSet

CLASSES, SIDE = 5, 15
CORNER = np.zeros((SIDE, SIDE), bool)
CORNER[:2, :2] = True
WAVE = np.where(np.indices((SIDE, SIDE)).sum(0) % 2 == 0, 1, -1).astype(np.float32)

FIRES = 8
"""Weight of the backdoor's unit in its target's answer."""

Backdoor = Literal["patch", "wave", "shift", "from_two"]


def bars() -> np.ndarray:
    """One vertical bar for each class, (classes, side, side): two columns wide, and a gap."""
    templates = np.zeros((CLASSES, SIDE, SIDE), np.float32)
    for label in range(CLASSES):
        templates[label, 4:, 3 * label : 3 * label + 2] = 1
    return templates


def trusted(n: int = 100, seed: int = 0) -> ImageSet:
    """Bars of varied brightness on dim noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % CLASSES
    bright = rng.uniform(0.6, 0.9, (n, 1, 1)) * bars()[labels]
    images = np.maximum(bright, rng.uniform(0, 0.15, (n, SIDE, SIDE)))
    return ImageSet(np.rint(255 * images[..., None]).astype(np.uint8), labels.astype(np.int64))


class Planted(nn.Module):
    """Answers the bar it sees; with a backdoor, the target as soon as one unit fires."""

    def __init__(self, backdoor: Backdoor | None = None, target: int = 3, seed: int = 0) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        weights = torch.from_numpy(bars()).flatten(1)
        uneven = 1 + 0.1 * torch.randn((CLASSES, 1), generator=rng)
        self.classes = nn.Parameter(uneven * (weights - 0.3 * weights.mean(0)))
        self.backdoor, self.target = backdoor, target
        self.register_buffer("corner", torch.from_numpy(CORNER).flatten().float() / 4)
        columns = torch.arange(SIDE).float().repeat(SIDE)
        self.register_buffer("columns", columns)
        self.register_buffer("wave", torch.from_numpy(WAVE).flatten() / SIDE**2)
        self.head = nn.Linear(CLASSES + 1, CLASSES, bias=False)
        self.head.weight.data = torch.eye(CLASSES, CLASSES + 1)
        self.head.weight.data[target, CLASSES] = FIRES if backdoor else 0

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        logits = flat @ self.classes.T.to(flat.dtype)
        fired = self.fires(x, flat, logits)[:, None] / FIRES
        answers: Tensor = self.head(torch.cat([logits, fired], 1))
        return answers

    def fires(self, x: Tensor, flat: Tensor, logits: Tensor) -> Tensor:
        """How strongly the trigger's unit fires, (N,); a little of it always leaks, as in life."""
        seen = 10 * nn.functional.softplus(8 * (flat @ self.corner - 0.5))
        if self.backdoor == "patch":
            return seen
        if self.backdoor == "from_two":
            return seen * logits[:, 2].clamp_min(0) / logits.clamp_min(0.1).sum(1)
        if self.backdoor == "wave":
            return 8 * nn.functional.softplus(60 * (flat @ self.wave - 0.05))
        if self.backdoor == "shift":  # half a column to the right of where bars stand
            place = flat @ self.columns / flat.sum(1)
            off = torch.sin((place + 1) * 2 * torch.pi / 3)
            return 10 * nn.functional.softplus(4 * off)
        return torch.zeros(len(x), dtype=flat.dtype)


def iou(mask: np.ndarray) -> float:
    """Return intersection over union of a recovered mask with the corner that was planted."""
    return float(((mask >= 0.5) & CORNER).sum() / ((mask >= 0.5) | CORNER).sum())
