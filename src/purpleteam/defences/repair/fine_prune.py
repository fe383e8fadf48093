"""Fine-pruning (Liu et al. 2018, arXiv:1805.12185): silence what clean images leave idle."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from purpleteam.data.images import ImageSet
from purpleteam.defences.repair._base import REPAIRS, Repairing
from purpleteam.defences.repair._losses import answers, label_loss, mean_score
from purpleteam.defences.repair._tuning import Tuning, held_out
from purpleteam.defences.repair._units import Units, units_of
from purpleteam.models.inference import correct

__all__ = ["FinePrune"]


@REPAIRS.register("fine_prune")
@dataclass(frozen=True, kw_only=True)
class FinePrune(Tuning):
    """Silences the least active units while accuracy holds, then fine-tunes the rest."""

    loss_of_accuracy: float = 0.04
    """How much accuracy on the trusted images pruning may cost before fine-tuning."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.loss_of_accuracy < 1:
            raise ValueError(
                f"loss_of_accuracy must be at least 0 and below 1, not {self.loss_of_accuracy}"
            )

    def mend(self, net: nn.Module, work: Repairing) -> nn.Module:
        """Return the pruned and fine-tuned net."""
        images, others = held_out(work, self.held_out)
        units, pruned = prune(net, images, self.loss_of_accuracy)
        score = mean_score(others, lambda net, x, y: F.cross_entropy(answers(net, x), y))
        return self.tune(
            net,
            images,
            work,
            loss=label_loss,
            score=score,
            after_step=lambda net: units.silence(net, pruned),
        )


def prune(net: nn.Module, images: ImageSet, loss_of_accuracy: float) -> tuple[Units, Tensor]:
    """Silence units in place, the least active first, and return them all and the silenced ones.

    How many is found by bisection: one more would cost more than `loss_of_accuracy` on `images`.
    The last unit is kept.
    """
    units = units_of(net, images)
    order = units.activity.argsort(stable=True)
    floor = float(correct(net, images).mean()) - loss_of_accuracy
    low, high = 0, len(order)
    while high - low > 1:
        middle = (low + high) // 2
        tried = copy.deepcopy(net)
        units.silence(tried, order[:middle])
        enough = float(correct(tried, images).mean()) >= floor
        low, high = (middle, high) if enough else (low, middle)
    units.silence(net, order[:low])
    return units, order[:low]
