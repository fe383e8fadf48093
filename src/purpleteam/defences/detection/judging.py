"""All that can be said of a detector on one set whose poisons are known; NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from purpleteam.core.statistics import Estimate, Rate
from purpleteam.defences.detection.metrics import (
    auroc,
    average_precision,
    false_alarm_rate,
    precision,
    recall,
    recall_at,
    residual_poisons,
)

__all__ = ["Detection", "judge"]


@dataclass(frozen=True, kw_only=True)
class Detection:
    """What a detector did on one set whose poisons are known.

    What needs poisons is None on a clean set, where the false alarms are all there is to see.
    """

    auroc: Estimate | None
    average_precision: Estimate | None
    recall: Rate | None
    """Poisons that were flagged, at the deployed threshold."""
    precision: Rate | None
    """Flagged images that are poisons; None where nothing was flagged."""
    false_alarm_rate: Rate
    """Clean images that were flagged."""
    recall_at_count: Rate | None
    """Poisons among as many of the highest scores as there are poisons."""
    residual_poisons: int
    """Poisons that were not flagged, and stay in the set."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields for --json and records."""
        rates = {
            "auroc": self.auroc,
            "average_precision": self.average_precision,
            "recall": self.recall,
            "precision": self.precision,
            "false_alarm_rate": self.false_alarm_rate,
            "recall_at_count": self.recall_at_count,
        }
        found = {name: value.to_json() if value else None for name, value in rates.items()}
        return found | {"residual_poisons": self.residual_poisons}


def judge(
    scores: ArrayLike,
    flagged: ArrayLike,
    poisoned: ArrayLike,
) -> Detection:
    """Return all that can be said of a detector on one set.

    Args:
        scores: (N,), higher is more suspicious.
        flagged: what the detector's own threshold flags: (N,) bool, or the places of those.
        poisoned: (N,) bool, the truth.

    Raises:
        ValueError: lengths differ, scores are not finite, or all is poisoned.
    """
    truth = np.asarray(poisoned)
    found = _mask(np.asarray(flagged), len(truth))
    some, both = bool(truth.any()), bool(truth.any() and not truth.all())
    return Detection(
        auroc=auroc(scores, truth) if both else None,
        average_precision=average_precision(scores, truth) if both else None,
        recall=recall(found, truth) if some else None,
        precision=precision(found, truth),
        false_alarm_rate=false_alarm_rate(found, truth),
        recall_at_count=recall_at(scores, truth, int(truth.sum())) if some else None,
        residual_poisons=residual_poisons(found, truth),
    )


def _mask(flagged: NDArray[Any], n: int) -> NDArray[np.bool_]:
    if flagged.dtype == np.bool_:
        return flagged
    mask = np.zeros(n, np.bool_)
    mask[flagged.astype(np.int64)] = True  # no place at all is an empty array of floats
    return mask
