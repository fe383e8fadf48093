"""FT-SAM (Zhu et al. 2023, arXiv:2304.11823): sharpness-aware fine-tuning (arXiv:2010.01412).

Its adaptive form (arXiv:2102.11600) shakes most the few large weights that carry a backdoor.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from purpleteam.defences.repair import REPAIRS, Repairing, Tuning, part_of


@part_of(REPAIRS, "ft_sam")
class FTSAM(Tuning):
    """Fine-tunes by the gradient at the worst neighbour of the weights."""

    ranges = "radius above 0 and finite"

    radius: float = 2.0
    """How far the weights are moved, each measured by its own size."""

    def mend(self, net: nn.Module, work: Repairing) -> nn.Module:
        return self.fine_tune(net, work, step=partial(sharpness_aware, radius=self.radius))


def sharpness_aware(net: nn.Module, loss: Callable[[], Tensor], radius: float) -> None:
    """Leave in each `grad` the gradient at w + radius * w^2 g / ||w g||, and w as it was."""
    weights = [weight for weight in net.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(loss(), weights, allow_unused=True)
    pairs = [(w, g) for w, g in zip(weights, gradients, strict=True) if g is not None]
    with torch.no_grad():
        norm = torch.stack([(w * g).norm() for w, g in pairs]).norm().clamp(min=1e-12)
        before = [w.clone() for w, _ in pairs]
        for w, g in pairs:
            w.add_((radius / norm) * w.square() * g)
    loss().backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for (w, _), old in zip(pairs, before, strict=True):
            w.copy_(old)
