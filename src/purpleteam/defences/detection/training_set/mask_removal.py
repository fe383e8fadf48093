"""Invert the trigger (Wang et al. 2019, Neural Cleanse, IEEE S&P), then take it off each image."""

import numpy as np
import torch
from torch import Tensor, nn

from purpleteam.core.arrays import Floats
from purpleteam.data.images import ImageSet
from purpleteam.defences.detection.recovered import RecoveredTrigger
from purpleteam.defences.detection.training_set._analysis import TRAINING_SET_DETECTORS, Analysis
from purpleteam.models.devices import device_of, frozen, to_batch

BATCH = 200
TRUSTED = 1000  # how many undoubted images the model scan takes where none are given as trusted


def mask_removal_scores(
    model: nn.Module, images: ImageSet, trigger: RecoveredTrigger, fill: Tensor
) -> Floats:
    """Return how much of its probability each image of the target loses, (N,) in [0, 1]."""
    scores = np.zeros(len(images))
    rows = np.flatnonzero(images.labels == trigger.target_label)
    with frozen(model) as net, torch.no_grad():
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            x = to_batch(images.images[some], device_of(model))
            with_it, without_it = (
                net(images).softmax(1)[:, trigger.target_label]
                for images in (x, trigger.without(x, fill))
            )
            scores[some] = (with_it - without_it).clamp(min=0).double().cpu().numpy()
    return scores


@TRAINING_SET_DETECTORS.register("mask_removal")
def mask_removal(analysis: Analysis) -> Floats:
    """Return the lost probability, 0 everywhere if a scan of the model recovers no trigger."""
    from purpleteam.defences.detection.model import scan_model  # costs time to load

    trusted = analysis.trusted
    if not trusted:
        places = np.flatnonzero(~analysis.doubted)
        rng = np.random.default_rng(analysis.seed)
        chosen = rng.choice(places, min(TRUSTED, len(places)), replace=False)
        trusted = analysis.images.take(np.sort(chosen))
    classes, seed, device = analysis.classes, analysis.seed, analysis.device
    model, progress = analysis.trained, analysis.progress
    scan = scan_model(model, trusted, classes=classes, seed=seed, device=device, progress=progress)
    if scan.trigger is None:
        return np.zeros(len(analysis.images))
    fill = to_batch(trusted.images[:], device).median(0).values  # (C, H, W)
    return mask_removal_scores(model, analysis.images, scan.trigger, fill)
