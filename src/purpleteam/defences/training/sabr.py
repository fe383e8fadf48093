"""SABR, small boxes in the ball (Mueller et al. 2023, arXiv:2210.04871)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from purpleteam.certify.bounds import Boxes, ball, intervals
from purpleteam.certify.boxes import Box
from purpleteam.certify.network import Network
from purpleteam.defences.training import DEFENCES, part_of
from purpleteam.defences.training.ibp import IBPTraining, worst_loss


@part_of(DEFENCES, "sabr")
class SABRTraining(IBPTraining):
    """Bounds a small box around the worst point that an attack finds, not the whole ball.

    More images are right than with IBP, and intervals prove fewer: it wants a complete verifier.
    """

    ranges = "relative_size above 0 and at most 1; steps at least 0"

    robust_weight: float = 1.0
    relative_size: float = 0.4
    """Radius of the small box, as a multiple of that of the ball; at 1 it is IBP."""
    steps: int = 8
    """Gradient steps of the attack that finds its centre."""

    def robust_loss(
        self, net: Network, x: Tensor, y: Tensor, grown: float, rng: torch.Generator
    ) -> tuple[Tensor, Boxes]:
        whole = intervals(net, ball(x, self.radius * grown), rounding=False)[net.root]
        point = worst_point(net, whole, y, self.steps, rng)
        box = small_box(whole, point, self.relative_size)
        boxes = intervals(net, box, at=net.root, rounding=False)
        return worst_loss(net, boxes, y), boxes


def small_box(whole: Box, point: Tensor, relative_size: float) -> Box:
    """Return a box near a point (N, ...), so much smaller than the whole one that it lies in."""
    centre, radius = (whole.lower + whole.upper) / 2, (whole.upper - whole.lower) / 2
    free = (1 - relative_size) * radius
    centre = torch.minimum(torch.maximum(point, centre - free), centre + free)
    return Box(centre - relative_size * radius, centre + relative_size * radius)


def worst_point(net: Network, box: Box, y: Tensor, steps: int, rng: torch.Generator) -> Tensor:
    """Return what PGD finds from a uniform start, (N, ...), in the box of the node `net.root`.

    That box is exactly what the ball becomes there; behind an input ramp it is where gradients are.
    All steps together are as long as the box is wide, in each value.
    """
    box, fixed = Box(*(side.detach() for side in box)), net.to(box.lower.dtype)
    half = (box.upper - box.lower) / 2
    share = torch.rand(half.shape, generator=rng).to(half.device)
    point = box.lower + 2 * half * share
    for _ in range(steps):
        point.requires_grad_(True)
        loss = F.cross_entropy(fixed.values(point, net.root)[-1], y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, point)
        point = point.detach() + 2 * half / steps * gradient.sign()
        point = torch.minimum(torch.maximum(point, box.lower), box.upper)
    return point.detach()
