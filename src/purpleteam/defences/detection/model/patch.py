"""Neural Cleanse (Wang et al. 2019): the smallest patch that sends every class to one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from purpleteam.defences.detection.model._base import MODEL_DETECTORS, Null, Scanning
from purpleteam.defences.detection.model.inversion import (
    Inversion,
    Inverted,
    Search,
    Slot,
    shrink_mask,
)


@MODEL_DETECTORS.register("patch")
@dataclass(frozen=True, kw_only=True)
class PatchInversion(Inversion):
    """Sizes are sums of the mask, in pixels."""

    compares: ClassVar[bool] = True
    null: ClassVar[Null] = Null(location=1.2, scale=0.55, deviation=0.3)
    stream: ClassVar[int] = 10

    steps: int = 120

    def invert(self, work: Scanning, slots: tuple[Slot, ...], search: Search) -> Inverted:
        """Invert a mask and a pattern for every slot."""
        return shrink_mask(work, slots, search)

    def drawn(self, work: Scanning, parts: tuple[Tensor, ...]) -> dict[str, Any]:
        """Return a patch."""
        mask, pattern = (part[0].numpy() for part in parts)
        return {"kind": "patch", "mask": mask[0], "pattern": pattern}
