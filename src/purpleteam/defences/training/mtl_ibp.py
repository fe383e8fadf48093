"""MTL-IBP, a mixture of two losses (De Palma et al. 2024, arXiv:2305.13991)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from purpleteam.certify.bounds import Boxes
from purpleteam.certify.network import Network
from purpleteam.defences.training import DEFENCES, part_of
from purpleteam.defences.training.ibp import IBPTraining
from purpleteam.defences.training.sabr import worst_point


@part_of(DEFENCES, "mtl_ibp")
class MTLIBPTraining(IBPTraining):
    """Learns from an attack and from the interval bound at once, the bound by its share.

    A small share leaves more images right than IBP, and intervals prove fewer: such a net wants a
    complete verifier.
    """

    ranges = "bound_share from 0 to 1; steps at least 0"

    robust_weight: float = 1.0
    bound_share: float = 0.5
    """Share of the interval bound in the robust loss, the attack has the rest; at 1 it is IBP."""
    steps: int = 1
    """Gradient steps of the attack."""

    def robust_loss(
        self, net: Network, x: Tensor, y: Tensor, grown: float, rng: torch.Generator
    ) -> tuple[Tensor, Boxes]:
        bound, boxes = super().robust_loss(net, x, y, grown, rng)
        point = worst_point(net, boxes[net.root], y, self.steps, rng)
        attacked = F.cross_entropy(net.values(point, net.root)[-1], y)
        return torch.lerp(attacked, bound, self.bound_share), boxes
