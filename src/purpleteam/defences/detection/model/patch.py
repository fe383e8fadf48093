"""Neural Cleanse (Wang et al. 2019): the smallest patch that sends every class to one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from purpleteam.defences.detection.model._base import (
    MODEL_DETECTORS,
    Evidence,
    ModelDetector,
    Null,
    Scanning,
    minus_natural,
)
from purpleteam.defences.detection.model.inversion import (
    THOROUGH,
    Search,
    Slot,
    shrink_mask,
    slots_of,
)
from purpleteam.defences.detection.recovered import RecoveredTrigger


@MODEL_DETECTORS.register("patch")
@dataclass(frozen=True, kw_only=True)
class PatchInversion(ModelDetector):
    """Sizes are sums of the mask, in pixels."""

    compares: ClassVar[bool] = True
    null: ClassVar[Null] = Null(location=1.2, scale=0.55, deviation=0.3)

    steps: int = 120
    """Steps of Adam."""
    images: int = 24
    """Trusted images for each class and step."""

    def examine(self, work: Scanning) -> Evidence | None:
        """Invert a mask and a pattern for every class as target."""
        search = Search(steps=self.steps, images=self.images, stream=10)
        sizes = shrink_mask(work, slots_of(work), search).log_sizes
        rest = minus_natural(
            work, sizes, lambda it: shrink_mask(it, slots_of(it), search.shorter()).log_sizes
        )
        return self.evidence(rest, sizes)

    def recover(
        self, work: Scanning, target: int, sources: tuple[int, ...] | None
    ) -> RecoveredTrigger | None:
        """Return the smallest patch that works on nearly all images of the sources."""
        return recover_patch(work, target, sources)


def recover_patch(work: Scanning, target: int, sources: tuple[int, ...] | None) -> RecoveredTrigger:
    """Return the smallest patch from the sources (None: all others) to the target."""
    inverted = shrink_mask(work, (Slot(target, sources),), THOROUGH)
    mask, pattern = (part[0].cpu().numpy() for part in inverted.parts)
    return RecoveredTrigger(
        kind="patch", target_label=target, source_labels=sources, mask=mask[0], pattern=pattern
    )
