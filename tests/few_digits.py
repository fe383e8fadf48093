"""The embedded digits up to 5, without their margin: as few and small as a scan can judge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from purpleteam.attacks.poison.badnets import BadNets
from purpleteam.attacks.poison.triggers import Trigger
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.data.sources.digits import load_digits

CLASSES, SIDE, MARGIN = 6, 20, 4
POISON = BadNets(count=80, target_label=3, trigger=Trigger(size=2))
"""What `small_cnn` learns of it in EPOCHS, each scan finds."""
EPOCHS = 30


def few_digits() -> Dataset:
    """Return 780 training, 123 validation and 180 test images of 20x20 of six classes."""
    whole = load_digits()

    def part(images: ImageSet) -> ImageSet:
        some = images.take(np.flatnonzero(images.labels < CLASSES))
        inner = slice(MARGIN, MARGIN + SIDE)
        return ImageSet(np.ascontiguousarray(some.images[:, inner, inner]), some.labels)

    return replace(
        whole,
        name="few",
        train=part(whole.train),
        validation=part(whole.validation),
        test=part(whole.test),
        classes=whole.classes[:CLASSES],
    )
