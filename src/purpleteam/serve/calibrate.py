"""The thresholds of a model, below which the app tells no label, from images of real digits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.cards import StoredModel
from purpleteam.core.errors import UsageError
from purpleteam.serve import doubt
from purpleteam.serve.engine import Engine, open_digit_or_not, open_session, refuse

REFUSED, UNTOLD = 0.003, 0.001


def calibrated(
    stored: StoredModel,
    images: Iterable[NDArray[np.uint8]],
    *,
    refused: float = REFUSED,
    untold: float = UNTOLD,
) -> dict[str, Any]:
    """Return what `refusal` must be in the model's card, to refuse no more of such images.

    Args:
        stored: a model of digits of 28x28 pixels.
        images: digits (28, 28) that it has not learnt from, ink bright, as the app is sent them.
        refused: most of them that may get no label, the plain rules' share included.
        untold: most of them for which not even the nearest label may be told.

    Raises:
        UsageError: there are too few images to tell such a share.
    """
    refusal = {"net": doubt.DIGEST, "sure": 0.0, "nearest": 0.0}
    card = replace(stored.card, refusal=refusal)
    engine = Engine(card, open_session(stored), digit_or_not=open_digit_or_not())
    scores = sorted(-np.inf if refuse(one) else engine.score(one) for one in images)
    if int(untold * len(scores)) < 1 or not untold <= refused < 1:
        raise UsageError(f"{len(scores)} images cannot tell a share of {untold:g} to {refused:g}")
    nearest, sure = (float(scores[int(most * len(scores))]) for most in (untold, refused))
    if not np.isfinite(sure):
        raise UsageError(f"the plain rules alone refuse more than {refused:g} of these images")
    nearest = max(nearest, min(one for one in scores if np.isfinite(one)))
    return {**refusal, "sure": _down(sure), "nearest": _down(nearest)}


def _down(score: float) -> float:
    """Return the score with four digits after the point, and not above it."""
    return math.floor(score * 10_000) / 10_000
