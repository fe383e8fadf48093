"""What a model would be like without a backdoor: a reference that was distilled from it.

Classes are near each other by nature, which a student taught on trusted images learns too (Hinton
et al. 2015, arXiv:1503.02531); a trigger that no trusted image shows it does not. What an inversion
finds in the student is taken off, and a trigger that moves it as well is a natural backdoor.
"""

import copy
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from purpleteam.defences.detection.model._base import Scanning
from purpleteam.defences.detection.recovered import RecoveredTrigger
from purpleteam.models import build
from purpleteam.models.devices import lay_out
from purpleteam.models.guard import guarded, switched
from purpleteam.models.recipes import shift

SEEN = 8000  # images that the student is shown: trusted ones many times, moved and with noise
BATCH = 50
RATE = 2e-3  # largest rate of Adam, warmed up and cooled down again
TEMPERATURE = 3.0  # softens the model's answers, so that they tell what else an image resembles
NOISY = 0.4  # share of the images with noise
NOISE = 0.3  # largest deviation of the noise
SIDE = 8  # images are moved by up to the eighth part of their side
ALIKE = 0.7  # a student that agrees with the model on fewer trusted images says nothing about it
AT_ONCE = 256  # images that are answered in one pass where student and model are compared
WEAKENED = (0.8, 0.9, 1.0)
"""Shares of its strength at which a trigger is tried, up to the first that moves half of the images
in the model: at full strength, a planted warp also does so in nets that never saw one."""
NATURAL_SHARE = 0.3  # of what a trigger moves: a natural one moves the student on more than this
SUBSTITUTE = "small_cnn"  # for architectures that cannot be set back or do not learn so fast


def with_reference(work: Scanning) -> Scanning:
    """Return the work with a student of the model as reference, if one becomes like it."""
    channels, height, width = work.images.shape[1:]
    substitute = build(SUBSTITUTE, (channels, height, width), work.classes, seed=work.seed)
    for student in (untrained(work.model, work.seed), substitute):
        if student is None:
            continue
        student.to(work.images.device)
        lay_out(student, work.images)
        _teach(student, work)
        alike = _answers(student, work.images) == _answers(work.model, work.images)
        if int(alike.sum()) / len(work.images) >= ALIKE:
            return replace(work, reference=student.requires_grad_(False))
    return replace(work, reference=None)


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
                drawn |= {id(weight) for weight in part.parameters(recurse=False)}
    weights = {id(weight) for weight in student.parameters()}
    if not weights or weights - drawn:
        return None
    return student.requires_grad_(True)


def _teach(student: nn.Module, work: Scanning) -> None:
    images = work.images
    rng = work.generator(60)
    optimizer = torch.optim.Adam(student.parameters(), lr=RATE)
    steps = SEEN // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=RATE, total_steps=steps)
    switched(student, training=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(work.seed)  # dropout draws from the global generator
        rounds = -(-steps * BATCH // len(images))  # every image once before any comes again
        order = torch.cat([torch.randperm(len(images), generator=rng) for _ in range(rounds)])
        for chosen in order[: steps * BATCH].view(steps, BATCH):
            x = shift(images[chosen.to(images.device)], rng, max(1, images.shape[2] // SIDE))
            noisy = torch.rand((2, len(x)), generator=rng)
            size = (NOISE * noisy[0] * (noisy[1] < NOISY))[:, None, None, None]
            noise = size * torch.randn(x.shape, generator=rng)
            x = (x + noise.to(x.device)).clamp(0, 1)
            with torch.no_grad():
                answers = (guarded(work.model)(x) / TEMPERATURE).softmax(1)
            optimizer.zero_grad()
            loss = F.cross_entropy(guarded(student)(x) / TEMPERATURE, answers)
            (TEMPERATURE * loss).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    switched(student)


def success_in_both(
    work: Scanning, trigger: RecoveredTrigger | None
) -> tuple[float, float] | tuple[None, None]:
    """Return which share of its sources' images a trigger moves in model and reference."""
    if trigger is None or work.reference is None:
        return None, None
    target, sources = trigger.target_label, trigger.source_labels
    wanted = work.labels != target if sources is None else np.isin(work.labels, sources)
    x, nets = work.images[torch.from_numpy(wanted)], (work.model, work.reference)
    in_model, in_reference = 0.0, 0.0
    for share in WEAKENED:
        stamped = trigger.weakened(share).apply(x)
        hits = (_answers(net, stamped) == target for net in nets)
        in_model, in_reference = (float(hit.float().mean()) for hit in hits)
        if in_model >= 0.5:
            break
    return in_model, in_reference


def _answers(net: nn.Module, x: Tensor) -> Tensor:
    """Return the labels that a net gives images, some at a time to bound memory."""
    with torch.no_grad():
        return torch.cat([guarded(net)(part).argmax(1) for part in torch.split(x, AT_ONCE)])
