"""The shortest addition that sends every image to one class (arXiv:1610.08401).

It finds blended patterns (arXiv:1712.05526) and sinusoids (SIG, arXiv:1902.11237).
"""

import math
from typing import Any, ClassVar

from torch import Tensor

from purpleteam.defences.detection.model import _base as base


@base.part_of(base.MODEL_DETECTORS, "additive")
class AdditiveInversion(base.Inversion):
    """Sizes are Euclidean lengths, in pixel units of [0, 1]."""

    compares: ClassVar[bool] = True
    null: ClassVar[base.Null] = base.Null(location=1.0, scale=0.32, deviation=0.2)
    stream: ClassVar[int] = 20

    def invert(self, search: base.Search) -> base.Inverted:
        def add(change: Tensor, x: Tensor) -> Tensor:
            return (x + change[:, None]).clamp(0, 1)

        form = tuple(search.work.images.shape[1:])
        largest = math.sqrt(math.prod(form))
        return base.shrink_radius(search, add, form, radius=0.1 * largest, largest=largest)

    def drawn(self, parts: tuple[Tensor, ...], work: base.Scanning) -> dict[str, Any]:
        return {"kind": "additive", "pattern": parts[0][0].clamp(-1, 1).numpy()}
