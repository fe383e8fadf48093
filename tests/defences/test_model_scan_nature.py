"""A trigger that a student follows too is nature."""

from __future__ import annotations

import numpy as np
from defences_planted import CLASSES, CORNER, SIDE, Planted, trusted
from torch import nn

from purpleteam.defences.detection.model import Scanning
from purpleteam.defences.detection.model.reference import success_in_both
from purpleteam.defences.detection.recovered import RecoveredTrigger
from purpleteam.models.devices import to_batch

TRUSTED = trusted()
STAMP = RecoveredTrigger(
    kind="patch",
    target_label=3,
    mask=CORNER.astype(np.float32),
    pattern=np.ones((1, SIDE, SIDE), np.float32),
)


def scanning(model: nn.Module, reference: nn.Module) -> Scanning:
    return Scanning(
        model=model,
        images=to_batch(TRUSTED.images),
        labels=TRUSTED.labels,
        classes=CLASSES,
        seed=0,
        reference=reference,
    )


def shares(reference: nn.Module, trigger: RecoveredTrigger | None = STAMP) -> tuple:
    return success_in_both(scanning(Planted("patch"), reference), trigger)


def test_a_planted_trigger_moves_the_model_alone() -> None:
    assert shares(Planted()) == (1, 0)


def test_what_is_near_by_nature_moves_a_student_as_well() -> None:
    assert shares(Planted("patch")) == (1, 1)


def test_a_trigger_counts_at_the_least_strength_that_moves_half_of_the_images() -> None:
    faint = RecoveredTrigger(
        kind="patch", target_label=3, mask=0.7 * STAMP.mask, pattern=STAMP.pattern
    )
    works, follows = shares(Planted("patch"), faint)
    assert works == follows >= 0.5  # at four fifths it moves too few
    assert shares(Planted("patch"), faint.weakened(0.1)) == (0, 0)


def test_without_a_trigger_nothing_is_said() -> None:
    assert shares(Planted(), None) == (None, None)
