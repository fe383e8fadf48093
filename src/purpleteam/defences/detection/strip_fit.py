"""STRIP for a model of torch: its answers as probabilities, and the threshold they set."""

import numpy as np
from scipy.special import softmax

from purpleteam.data.images import ImageSet
from purpleteam.defences.detection.strip import Answers, Strip
from purpleteam.models.inference import Classifier, logits


def fit_strip(
    model: Classifier,
    trusted: ImageSet,
    false_rejection_rate: float = 0.01,
    seed: int = 0,
    *,
    overlays: int = 16,
    model_digest: str | None = None,
) -> Strip:
    """Return STRIP for a model, fitted on clean images that took no part in its training.

    The defaults need 115 trusted images. The app asks the model once for each overlay and image,
    and takes up to 16; `model_digest` binds the fit to a stored model.

    Raises:
        UsageError: there are too few trusted images for that rate.
    """
    return Strip.fit(
        probabilities_of(model),
        trusted,
        false_rejection_rate=false_rejection_rate,
        overlays=overlays,
        seed=seed,
        model_digest=model_digest,
    )


def probabilities_of(model: Classifier) -> Answers:
    """Return the model as a function from images (N, H, W, C) to probabilities (N, classes)."""
    return lambda images: softmax(logits(model, images).astype(np.float64), axis=1)
