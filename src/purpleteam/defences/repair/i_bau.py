"""Universal adversarial unlearning after I-BAU (Zeng et al. 2022, arXiv:2110.03735), first order.

The addition to all images that does most harm is unlearned; no implicit hypergradient is taken.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from purpleteam.defences.repair import REPAIRS, Repairing, Tuning, answers, part_of


@part_of(REPAIRS, "i_bau")
class IBAU(Tuning):
    """Fine-tunes on images with the worst common addition, found anew at each step."""

    ranges = "radius above 0 and finite; inner_steps at least 1"

    learning_rate: float = 3e-3
    radius: float = 4.0
    """Largest L2 norm of the addition, in pixel units of [0, 1]."""
    inner_steps: int = 5
    """Gradient steps to find it."""

    def mend(self, net: nn.Module, work: Repairing) -> nn.Module:
        def loss(net: nn.Module, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
            addition = universal(net, x, y, self.radius, self.inner_steps)
            out = answers(net, torch.cat([x, (x + addition).clamp(0, 1)]))
            return F.cross_entropy(out, y.repeat(2))

        return self.fine_tune(net, work, loss=loss)


def universal(net: nn.Module, x: Tensor, y: Tensor, radius: float, steps: int) -> Tensor:
    """Return one addition (1, C, H, W), L2 norm <= radius, that raises the loss of all images."""
    addition = torch.zeros_like(x[:1])
    for _ in range(steps):
        addition.requires_grad_(True)
        loss = F.cross_entropy(answers(net, (x + addition).clamp(0, 1)), y)
        (gradient,) = torch.autograd.grad(loss, addition)
        step = gradient / gradient.norm().clamp(min=1e-12)
        addition = addition.detach() + 2 * radius / steps * step
        addition = addition * (radius / addition.norm().clamp(min=1e-12)).clamp(max=1)
    return addition.detach()
