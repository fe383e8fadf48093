"""CROWN-IBP (Zhang et al. 2020, arXiv:1906.06316), its loss fused (Xu et al. 2020, 2002.12920)."""

import torch
from torch import Tensor

from purpleteam.certify.bounds import Boxes, ball, intervals, lower_bound, margins
from purpleteam.certify.network import Network
from purpleteam.defences.training import DEFENCES, part_of
from purpleteam.defences.training.ibp import IBPTraining, worst_loss


@part_of(DEFENCES, "crown_ibp")
class CrownIBPTraining(IBPTraining):
    """Begins with linear bounds, which are tighter, and goes over to intervals as the box grows."""

    def robust_loss(
        self, net: Network, x: Tensor, y: Tensor, grown: float, rng: torch.Generator
    ) -> tuple[Tensor, Boxes]:
        boxes = intervals(net, ball(x, self.radius * grown), rounding=False)
        loss = worst_loss(net, boxes, y)
        if grown < 1:
            loss = torch.lerp(fused_loss(net, boxes, y), loss, grown)
        return loss, boxes


def fused_loss(net: Network, boxes: Boxes, y: Tensor) -> Tensor:
    """Return a bound of the cross-entropy in the boxes by CROWN, of the loss as a whole.

    The loss is log sum_j exp(m_j) of m_j = z_j - z_y. Each exp(m_j) lies below its chord over the
    interval of m_j, so one linear form in the logits bounds their sum, instead of one a class.
    """
    forms = -margins(y, net.classes)
    lower = lower_bound(net, boxes, forms, elide=True, rounding=False)
    upper = -lower_bound(net, boxes, -forms, elide=True, rounding=False)
    scale = upper.amax(1, keepdim=True).clamp_min(0).detach()  # no exp overflows
    low, high = (lower - scale).exp(), (upper - scale).exp()
    slopes = (high - low) / (upper - lower).clamp_min(1e-6)  # (N, classes - 1)
    form = (slopes[:, :, None] * forms).sum(1, keepdim=True)
    most = -lower_bound(net, boxes, -form, rounding=False)[:, 0]
    total = most + (high - slopes * upper).sum(1) + (-scale[:, 0]).exp()
    return (scale[:, 0] + total.clamp_min(1e-12).log()).mean()
