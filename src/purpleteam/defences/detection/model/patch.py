"""Neural Cleanse (Wang et al. 2019): the smallest patch that sends every class to one."""

from typing import Any, ClassVar

from torch import Tensor

from purpleteam.defences.detection.model import _base as base


@base.part_of(base.MODEL_DETECTORS, "patch")
class PatchInversion(base.Inversion):
    """Sizes are sums of the mask, in pixels."""

    compares: ClassVar[bool] = True
    null: ClassVar[base.Null] = base.Null(location=1.2, scale=0.55, deviation=0.3)
    stream: ClassVar[int] = 10

    steps: int = 120

    def invert(self, search: base.Search) -> base.Inverted:
        return base.shrink_mask(search)

    def drawn(self, parts: tuple[Tensor, ...], work: base.Scanning) -> dict[str, Any]:
        mask, pattern = parts
        return {"kind": "patch", "mask": mask[0, 0].numpy(), "pattern": pattern[0].numpy()}
