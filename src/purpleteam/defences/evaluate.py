"""Measure a defence twice: as the seeds did, by transfer, and as it must be, white-box.

Transfer accuracy is accuracy on images that were made against another model. It says how well
a net knows those images, not how well it withstands an adversary who attacks the net itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from purpleteam.core.records import Measurement
from purpleteam.core.statistics import Rate
from purpleteam.data.images import ImageSet
from purpleteam.models.inference import Classifier, correct

__all__ = ["transfer_accuracy"]


def transfer_accuracy(
    model: Classifier,
    adversarial: ImageSet,
    clean: ImageSet,
    subject: Mapping[str, Any],
    **how: Any,
) -> Measurement:
    """Return the accuracy of `model` on images made against another model, as a record.

    Args:
        model: the defended classifier.
        adversarial: the images, as bytes, with their true labels.
        clean: the images that they were made from; their true distance is recorded.
        subject: what the number is about.
        **how: attack, epsilon, and the digest of the model that the images were made against.
    """
    right = correct(model, adversarial)
    moved = np.abs(adversarial.images.astype(np.int16) - clean.images.astype(np.int16))
    return Measurement(
        name="transfer_accuracy",
        value=Rate.of(int(right.sum()), len(adversarial)),
        subject=subject,
        how={"knowledge": "transfer"} | how,
        detail={
            "images": adversarial.digest,
            "largest_linf": float(moved.max() / 255),
            "share_moved_over_half": float((moved > 127).mean()),
        },
    )
