"""MM-BD (Wang et al. 2023, arXiv:2205.06900): the largest margin of each class, from noise."""

from typing import ClassVar

import torch
from torch import Tensor

from purpleteam.defences.detection.model import _base as base
from purpleteam.models.devices import fast_autocast
from purpleteam.models.guard import guarded


@base.part_of(base.MODEL_DETECTORS, "max_margin")
class MaximumMargin(base.ModelDetector):
    """Sizes are 1 / margin, so that a large margin is a small size as elsewhere."""

    null: ClassVar[base.Null] = base.Null(location=1.3, scale=0.52, deviation=0.2)

    steps: int = 60
    """Gradient steps."""
    restarts: int = 5
    """Random starts for each class; the largest margin counts."""

    def examine(self, work: base.Scanning) -> base.Evidence | None:
        """Maximise the margin of every class over inputs in [0, 1]."""
        shape = (work.classes * self.restarts, *work.images.shape[1:])
        x = torch.rand(shape, generator=work.generator(50)).to(work.images.device)
        targets = torch.arange(work.classes, device=x.device).repeat_interleave(self.restarts)

        def margins(x: Tensor) -> Tensor:
            with fast_autocast(x.device):
                logits = guarded(work.model)(x)
            own = logits.gather(1, targets[:, None])[:, 0]
            others = logits.scatter(1, targets[:, None], -torch.inf).amax(1)
            margin: Tensor = own - others
            return margin

        for step in range(self.steps):
            x = x.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(margins(x).sum(), x)
            stride = 0.2 * x[0].numel() ** 0.5 * (1 - step / self.steps)
            length = gradient.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
            x = (x.detach() + stride * gradient / length).clamp(0, 1)
        with torch.no_grad():
            largest = margins(x).view(work.classes, -1).amax(1)
        return self.evidence(-largest.double().clamp_min(1e-6).log().cpu().numpy())
