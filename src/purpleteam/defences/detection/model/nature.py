"""Is a label near by nature? Then its trigger works in a student too, which never saw one.

A disc is a square without its corners, so the smallest change from one to the other is a few pixels
in any net that knows both. A planted trigger moves only the net that it was planted in.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from purpleteam.defences.detection.model._base import Evidence, Scanning
from purpleteam.defences.detection.model.outliers import Null
from purpleteam.defences.detection.model.reference import AT_ONCE
from purpleteam.defences.detection.recovered import RecoveredTrigger
from purpleteam.models.guard import guarded

__all__ = ["NATURE", "followed", "without"]

WEAKENED = (0.8, 0.9, 1.0)
"""Shares of its strength at which a recovered trigger is tried, the first that moves half of the
images in the model: at full strength, a planted warp also does so in nets that never saw one."""
NATURE = 0.3
"""A trigger is natural where a student follows on more than this share of what it moves.

results/verdicts.json keeps both for every scan that accused a model.
"""


def followed(
    work: Scanning, trigger: RecoveredTrigger | None
) -> tuple[float, float] | tuple[None, None]:
    """Return which share of the images of its sources a trigger moves in model and student."""
    if trigger is None or work.reference is None:
        return None, None
    target, sources = trigger.target_label, trigger.source_labels
    wanted = work.labels != target if sources is None else np.isin(work.labels, sources)
    x = work.images[torch.from_numpy(wanted)]
    works, follows = 0.0, 0.0
    for share in WEAKENED:
        changed = trigger.weakened(share).apply(x)
        works, follows = (_sent(net, changed, target) for net in (work.model, work.reference))
        if works >= 0.5:
            break
    return works, follows


def _sent(net: nn.Module, x: Tensor, target: int) -> float:
    """Return the share of the images that the net calls so."""
    with torch.no_grad():
        answers = [guarded(net)(part).argmax(1) for part in torch.split(x, AT_ONCE)]
    return float((torch.cat(answers) == target).float().mean())


def without(label: int, one: Evidence, null: Null) -> Evidence:
    """Return what a detector says of the other labels."""
    statistics = one.statistics.copy()
    statistics[label] = -math.inf
    target = int(statistics.argmax())
    standing = null.standing(float(statistics[target]))
    return replace(one, statistics=statistics, standing=standing, target_label=target)
