"""Invert the trigger (Wang et al. 2019, Neural Cleanse, IEEE S&P), then take it off each image.

A poisoned image loses its label when the trigger's effect is taken away; a clean one of the same
label keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from purpleteam.data.images import ImageSet
from purpleteam.defences.detection.recovered import RecoveredTrigger
from purpleteam.defences.detection.training_set._base import (
    TRAINING_SET_DETECTORS,
    TrainingSetDetector,
)
from purpleteam.defences.detection.training_set._survey import Survey
from purpleteam.models.devices import device_of, frozen, to_batch

__all__ = ["MaskRemoval", "mask_removal_scores"]

BATCH = 200


def mask_removal_scores(
    model: nn.Module, images: ImageSet, trigger: RecoveredTrigger, fill: Tensor
) -> NDArray[np.float64]:
    """Return how much probability of the target each image of that label loses, (N,) in [0, 1].

    Args:
        model: maps (N, C, H, W) in [0, 1] to logits.
        images: the set under suspicion; images of other labels score 0.
        trigger: what is taken away.
        fill: (C, H, W), what a patch's place is filled with.
    """
    scores = np.zeros(len(images))
    rows = np.flatnonzero(images.labels == trigger.target_label)
    with frozen(model) as net, torch.no_grad():
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            x = to_batch(images.images[some], device_of(model))
            with_it, without_it = (
                net(one).softmax(1)[:, trigger.target_label]
                for one in (x, trigger.without(x, fill))
            )
            scores[some] = (with_it - without_it).clamp(min=0).double().cpu().numpy()
    return scores


@TRAINING_SET_DETECTORS.register("mask_removal")
@dataclass(frozen=True, kw_only=True)
class MaskRemoval(TrainingSetDetector):
    """What each image loses with the trigger that a scan of the trained model recovers."""

    trusted: int = 1000
    """Images for the scan: the survey's trusted ones, or else some that nothing speaks against."""

    def scores(self, survey: Survey) -> NDArray[np.float64]:
        """Return the lost probability, 0 everywhere if the model scan recovers nothing."""
        from purpleteam.defences.detection.model import scan_model  # costs time to load

        trusted = survey.trusted or self._undoubted(survey)
        found = scan_model(
            survey.trained,
            trusted,
            classes=survey.classes,
            seed=survey.seed,
            device=survey.device,
            progress=survey.progress,
        )
        if found.trigger is None:
            return np.zeros(len(survey.images))
        fill = to_batch(trusted.images, survey.device).median(0).values  # (C, H, W)
        return mask_removal_scores(survey.trained, survey.images, found.trigger, fill)

    def _undoubted(self, survey: Survey) -> ImageSet:
        places = np.flatnonzero(~survey.doubted)
        rng = np.random.default_rng(survey.seed)
        chosen = rng.choice(places, min(self.trusted, len(places)), replace=False)
        return survey.images.take(np.sort(chosen))
