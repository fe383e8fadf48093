"""What a targeted poison achieves: how the model reads the one image that it aims at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from purpleteam.core.errors import DataError, UsageError
from purpleteam.data.images import ImageSet
from purpleteam.models.inference import Classifier, logits


@dataclass(frozen=True, kw_only=True)
class Victim:
    """One image and how a model reads it."""

    index: int
    """Its place in its split."""
    label: int
    """Its true label."""
    read_as: int
    """The model's label for it."""
    target_label: int
    """The label that the adversary wants."""
    target_confidence: float
    """The model's probability of that label, in [0, 1]."""

    @property
    def hit(self) -> bool:
        """Whether the adversary has what they want."""
        return self.read_as == self.target_label

    def to_json(self) -> dict[str, Any]:
        """Return the fields of `purple poison --train --json`, under `victim`."""
        return asdict(self) | {"hit": self.hit}


def evaluate_victim(model: Classifier, images: ImageSet, manifest: Mapping[str, Any]) -> Victim:
    """Look up the victim that a poisoned set's manifest names, and ask the model.

    Args:
        model: the classifier that was trained on the poisoned set.
        images: the split that the victim is of.
        manifest: of the poisoned set.

    Raises:
        UsageError: the attack has no victim.
        DataError: these are other images.
    """
    if "victim" not in manifest:
        raise UsageError(f"poison {manifest.get('poison')!r} aims at no single image")
    named = manifest["victim"]
    index = int(named["index"])
    if index >= len(images) or images.take([index]).digest != named["digest"]:
        raise DataError(f"image {index} of these is not the victim {named['digest']}")
    scores = logits(model, images.images[index : index + 1])[0].astype(np.float64)
    chances = np.exp(scores - np.logaddexp.reduce(scores))
    target = int(manifest["target_label"])
    return Victim(
        index=index,
        label=int(named["label"]),
        read_as=int(scores.argmax()),
        target_label=target,
        target_confidence=float(chances[target]),
    )
