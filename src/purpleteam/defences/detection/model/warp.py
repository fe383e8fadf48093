"""The smallest smooth warp that sends every image to one class (WaNet, arXiv:2102.10369)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from purpleteam.defences.detection.model._base import (
    MODEL_DETECTORS,
    Evidence,
    ModelDetector,
    Scanning,
)
from purpleteam.defences.detection.model.inversion import (
    AT_LEISURE,
    Inverted,
    Search,
    Slot,
    shrink_radius,
    slots_of,
)
from purpleteam.defences.detection.model.outliers import Null
from purpleteam.defences.detection.recovered import RecoveredTrigger, identity_grid

__all__ = ["WarpInversion"]


@MODEL_DETECTORS.register("warp")
@dataclass(frozen=True, kw_only=True)
class WarpInversion(ModelDetector):
    """Sizes are root mean square shifts of the control points, as shares of the image's side."""

    null: ClassVar[Null] = Null(location=1.45, scale=0.36, deviation=0.2)

    steps: int = 80
    """Gradient steps."""
    images: int = 24
    """Trusted images for each class and step."""
    grid: int = 6
    """Control points to a side; the shifts between them are interpolated."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grid < 2:
            raise ValueError(f"grid must be at least 2, not {self.grid}")

    def examine(self, work: Scanning) -> Evidence | None:
        """Invert a flow for every class as target."""
        search = Search(steps=self.steps, images=self.images, stream=30)
        return self.judge(
            self._shrink(work, slots_of(work), search).log_sizes - math.log(self.grid)
        )

    def recover(
        self, work: Scanning, target: int, sources: tuple[int, ...] | None
    ) -> RecoveredTrigger | None:
        """Return the smallest warp that works on nearly all images of the sources."""
        found = self._shrink(work, (Slot(target, sources),), AT_LEISURE)
        height, width = work.images.shape[2:]
        shifts = _flow(found.parts[0], height, width)[0]
        pixels = shifts * shifts.new_tensor([(width - 1) / 2, (height - 1) / 2])
        return RecoveredTrigger(
            kind="warp", target_label=target, source_labels=sources, flow=pixels.cpu().numpy()
        )

    def _shrink(self, work: Scanning, slots: tuple[Slot, ...], search: Search) -> Inverted:
        return shrink_radius(
            work,
            slots,
            search,
            form=(2, self.grid, self.grid),
            shape=_warp,
            radius=0.06 * self.grid,
            largest=0.5 * self.grid,
            stride=0.05,
        )


def _flow(change: Tensor, height: int, width: int) -> Tensor:
    """Control points (S, 2, grid, grid) in shares of the side to shifts (S, H, W, 2) in the grid.

    A side is 2 long in the coordinates of a sampling grid.
    """
    size = (height, width)
    dense = F.interpolate(change, size=size, mode="bicubic", align_corners=True)
    return 2 * dense.permute(0, 2, 3, 1)


def _warp(change: Tensor, x: Tensor) -> Tensor:
    slots, n, channels, height, width = x.shape
    grid = identity_grid(height, width, x) + _flow(change, height, width)
    grid = grid[:, None].expand(-1, n, -1, -1, -1).flatten(0, 1)
    warped = F.grid_sample(x.flatten(0, 1), grid, padding_mode="border", align_corners=True)
    return warped.view(slots, n, channels, height, width)
