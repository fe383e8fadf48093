"""The shortest perturbation that, added to any image, sends it to one class.

Universal perturbations are of Moosavi-Dezfooli et al. 2017 (arXiv:1610.08401). A blended pattern
(Chen et al. 2017, arXiv:1712.05526) or a sinusoid (SIG, Barni et al. 2019, arXiv:1902.11237) is
learned as a direction in which the target lies very near.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

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
    Inverted,
    Search,
    Slot,
    shrink_radius,
    slots_of,
)
from purpleteam.defences.detection.recovered import RecoveredTrigger


@MODEL_DETECTORS.register("additive")
@dataclass(frozen=True, kw_only=True)
class AdditiveInversion(ModelDetector):
    """Sizes are Euclidean lengths, in pixel units of [0, 1]."""

    compares: ClassVar[bool] = True
    null: ClassVar[Null] = Null(location=1.0, scale=0.32, deviation=0.2)

    steps: int = 70
    """Gradient steps."""
    images: int = 24
    """Trusted images for each class and step."""

    def examine(self, work: Scanning) -> Evidence | None:
        """Invert a perturbation for every class as target."""
        search = Search(steps=self.steps, images=self.images, stream=20)
        sizes = _shrink(work, slots_of(work), search).log_sizes
        rest = minus_natural(
            work, sizes, lambda it: _shrink(it, slots_of(it), search.shorter()).log_sizes
        )
        return self.evidence(rest, sizes)

    def recover(
        self, work: Scanning, target: int, sources: tuple[int, ...] | None
    ) -> RecoveredTrigger | None:
        """Return the shortest perturbation that works on nearly all images of the sources."""
        inverted = _shrink(work, (Slot(target, sources),), THOROUGH)
        pattern = inverted.parts[0][0].clamp(-1, 1).cpu().numpy()
        return RecoveredTrigger(
            kind="additive", target_label=target, source_labels=sources, pattern=pattern
        )


def _shrink(work: Scanning, slots: tuple[Slot, ...], search: Search) -> Inverted:
    form = tuple(work.images.shape[1:])
    largest = math.sqrt(math.prod(form))

    def add(change: Tensor, x: Tensor) -> Tensor:
        return (x + change[:, None]).clamp(0, 1)

    return shrink_radius(
        work, slots, search, form=form, shape=add, radius=0.1 * largest, largest=largest
    )
