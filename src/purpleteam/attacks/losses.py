"""What an attack climbs: (n,) of logits (n, classes) and labels (n,), and of labels aimed at.

The differences of logits ratio (DLR) is unmoved by scaling and shifting the logits, so a net
cannot hide behind confident scores (Croce & Hein 2020, arXiv:2003.01690).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = 1e-12  # keeps a ratio finite where all logits are equal


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return -log of the softmax at the label."""
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return the best wrong logit minus that of the label: above 0 the model errs."""
    return logits.scatter(1, y.unsqueeze(1), -torch.inf).amax(1) - _at(logits, y)


def targeted_margin(logits: Tensor, y: Tensor, target_label: Tensor) -> Tensor:
    """Return the logit of the target minus that of the label."""
    return _at(logits, target_label) - _at(logits, y)


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Return the margin over the gap between first and third logit; needs 3 classes."""
    first, _, third = logits.topk(3, dim=1).values.unbind(1)
    return margin(logits, y) / (first - third + TINY)


def targeted_dlr(logits: Tensor, y: Tensor, target_label: Tensor) -> Tensor:
    """Return the target's margin over the first logit's gap to the third and fourth; 4 classes."""
    first, _, third, fourth = logits.topk(4, dim=1).values.unbind(1)
    gap = first - (third + fourth) / 2
    return targeted_margin(logits, y, target_label) / (gap + TINY)


def _at(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.gather(1, labels.unsqueeze(1)).squeeze(1)
