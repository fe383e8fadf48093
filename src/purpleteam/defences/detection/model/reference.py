"""What a model would be like without a backdoor: a student of it that never saw a trigger.

Classes differ by nature: a 1 is nearly a 4, and an empty image is nearest to some class. Such
nearness is in the images and the architecture, so a net taught by the model itself on trusted
images has it too (distillation, Hinton et al. 2015, arXiv:1503.02531); a trigger that no trusted
image shows is not taught. What an inversion finds in the student is therefore taken off.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from purpleteam.core.errors import PurpleError
from purpleteam.models import build
from purpleteam.models.devices import lay_out
from purpleteam.models.guard import guarded, switched
from purpleteam.models.recipes import shift

__all__ = ["AT_ONCE", "distilled", "untrained"]

SEEN = 8000
"""Images that the student is shown, trusted ones again and again, moved and with noise."""
BATCH = 50
RATE = 2e-3
"""Largest rate of Adam, warmed up and cooled down again."""
TEMPERATURE = 3.0
"""Softens the model's answers, so that they tell what else an image resembles."""
NOISY = 0.4
"""Share of the images with noise."""
NOISE = 0.3
"""Largest deviation of the noise."""
SIDE = 8
"""Images are moved by up to the eighth part of their side."""
ALIKE = 0.7
"""A student that gives so few of the model's answers on trusted images tells nothing of it."""
AT_ONCE = 256
"""Images that are answered in one pass where student and model are compared."""
SUBSTITUTE = "small_cnn"
"""Stands in for architectures that cannot be set back or do not learn so fast."""


def distilled(model: nn.Module, images: Tensor, *, classes: int, seed: int) -> nn.Module | None:
    """Return a student of the model, of its architecture where that can be had.

    Args:
        model: the teacher, which is left as it is.
        images: trusted images, float32 (N, C, H, W) in [0, 1], on the model's device.
        classes: how many labels the model knows.
        seed: of the student's weights and of what it is shown.

    Returns:
        The student in evaluation mode, or None where none becomes like the model.
    """
    for student in (untrained(model, seed), _substitute(images, classes, seed)):
        if student is None:
            continue
        student.to(images.device)
        lay_out(student, images)
        _teach(student, model, images, seed)
        if _agreement(student, model, images) >= ALIKE:
            return student
    return None


def _agreement(student: nn.Module, model: nn.Module, images: Tensor) -> float:
    """Return the share of the images that both call the same, some at a time to bound memory."""
    same = 0
    with torch.no_grad():
        for start in range(0, len(images), AT_ONCE):
            x = images[start : start + AT_ONCE]
            same += int((guarded(student)(x).argmax(1) == guarded(model)(x).argmax(1)).sum())
    return same / len(images)


def untrained(model: nn.Module, seed: int) -> nn.Module | None:
    """Return the same architecture with weights drawn anew; None where a part cannot do that."""
    student = copy.deepcopy(model).cpu()
    drawn: set[int] = set()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for part in student.modules():
            again = getattr(part, "reset_parameters", getattr(part, "_reset_parameters", None))
            if callable(again):
                again()
                drawn |= {id(one) for one in part.parameters(recurse=False)}
    weights = {id(one) for one in student.parameters()}
    if not weights or weights - drawn:
        return None
    return student.requires_grad_(True)


def _substitute(images: Tensor, classes: int, seed: int) -> nn.Module | None:
    try:
        channels, height, width = images.shape[1:]
        return build(SUBSTITUTE, (channels, height, width), classes, seed=seed)
    except PurpleError:
        return None


def _teach(student: nn.Module, model: nn.Module, images: Tensor, seed: int) -> None:
    rng = torch.Generator().manual_seed(1_000_003 * seed + 60)
    optimizer = torch.optim.Adam(student.parameters(), lr=RATE)
    steps = SEEN // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=RATE, total_steps=steps)
    switched(student, training=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout draws from the global generator
        for chosen in _drawn(len(images), steps, rng):
            x = _varied(images[chosen.to(images.device)], rng)
            with torch.no_grad():
                answers = (guarded(model)(x) / TEMPERATURE).softmax(1)
            optimizer.zero_grad()
            loss = F.cross_entropy(guarded(student)(x) / TEMPERATURE, answers)
            (TEMPERATURE * loss).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    switched(student)


def _drawn(n: int, steps: int, rng: torch.Generator) -> Tensor:
    """Return places (steps, BATCH): every image once before any comes again."""
    rounds = -(-steps * BATCH // n)
    order = torch.cat([torch.randperm(n, generator=rng) for _ in range(rounds)])
    return order[: steps * BATCH].view(steps, BATCH)


def _varied(x: Tensor, rng: torch.Generator) -> Tensor:
    moved = shift(x, rng, max(1, x.shape[2] // SIDE))
    noisy = torch.rand((2, len(x)), generator=rng)
    size = NOISE * noisy[0] * (noisy[1] < NOISY)
    noise = size[:, None, None, None] * torch.randn(x.shape, generator=rng)
    return (moved + noise.to(x.device)).clamp(0, 1)
