"""Many images from few: two put together along a cut, after CutMix (Yun 2019, arXiv:1905.04899).

What such an image should be called only a model can say, so this is for distillation: there a
hundred images make tens of thousands of questions (Beyer et al. 2022, arXiv:2106.05237).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["put_together"]


def put_together(x: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Return images (N, C, H, W), a share of them continued by another from a cut on.

    The cut is between two rows or two columns, all places equally likely; both halves stay
    where they were.
    """
    n, _, height, width = x.shape
    count = round(share * n)
    partner = torch.randperm(n, generator=rng)[:count].to(x.device)
    place = torch.rand(count, 1, 1, 1, generator=rng).to(x.device)
    across = (torch.rand(count, 1, 1, 1, generator=rng) < 0.5).to(x.device)
    rows = (torch.arange(height, device=x.device) / height)[:, None]  # (H, 1)
    columns = (torch.arange(width, device=x.device) / width)[None, :]  # (1, W)
    first = torch.where(across, rows < place, columns < place)  # (count, 1, H, W)
    return torch.cat([torch.where(first, x[:count], x[partner]), x[count:]])
