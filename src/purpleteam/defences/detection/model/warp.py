"""The smallest smooth warp that sends every image to one class (WaNet, arXiv:2102.10369)."""

import math
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from purpleteam.defences.detection.model import _base as base
from purpleteam.defences.detection.recovered import identity_grid

HIDDEN = 0.25  # shifts of this share of the side or more hide nothing, and all count alike


@base.part_of(base.MODEL_DETECTORS, "warp")
class WarpInversion(base.Inversion):
    """Sizes are root mean square shifts of the control points, as shares of the image's side."""

    null: ClassVar[base.Null] = base.Null(location=1.15, scale=0.3, deviation=0.2)
    stream: ClassVar[int] = 30
    ranges = "grid at least 2; coarse_grid at least 2"

    steps: int = 60
    images: int = 16
    grid: int = 6
    """Control points to a side; the shifts between them are interpolated."""
    coarse_grid: int = 4
    """The same for a second look, in which fewer changes are near by nature."""

    def examine(self, work: base.Scanning) -> base.Evidence | None:
        """Invert a fine and a coarse flow for every class as target; the mean size counts."""
        sizes = [
            replace(self, grid=grid).invert(self.search(work)).log_sizes - math.log(grid)
            for grid in (self.grid, self.coarse_grid)
        ]
        both = np.mean(sizes, axis=0)
        return self.evidence(np.minimum(both, math.log(HIDDEN)), both)

    def invert(self, search: base.Search) -> base.Inverted:
        """Return the shifts of the fine grid's control points for every slot."""
        side, form = float(self.grid), (2, self.grid, self.grid)
        return base.shrink_radius(
            search, _warp, form, radius=0.06 * side, largest=0.5 * side, stride=0.2
        )

    def drawn(self, parts: tuple[Tensor, ...], work: base.Scanning) -> dict[str, Any]:
        height, width = work.images.shape[2:]
        shifts = _flow(parts[0], height, width)[0]
        pixels = shifts * shifts.new_tensor([(width - 1) / 2, (height - 1) / 2])
        return {"kind": "warp", "flow": pixels.numpy()}


def _flow(change: Tensor, height: int, width: int) -> Tensor:
    """Control points (S, 2, grid, grid) in shares of the side to grid shifts (S, H, W, 2)."""
    size = (height, width)
    dense = F.interpolate(change, size=size, mode="bicubic", align_corners=True)
    return 2 * dense.permute(0, 2, 3, 1)


def _warp(change: Tensor, x: Tensor) -> Tensor:
    slots, n, channels, height, width = x.shape
    grid = identity_grid(height, width, x) + _flow(change, height, width)
    grid = grid[:, None].expand(-1, n, -1, -1, -1).flatten(0, 1)
    warped = F.grid_sample(x.flatten(0, 1), grid, padding_mode="border", align_corners=True)
    return warped.view(slots, n, channels, height, width)
