"""Fine-tuning on trusted images: the repair that everyone tries first, and that fails."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import nn

from purpleteam.defences.repair._base import REPAIRS, Repairing
from purpleteam.defences.repair._losses import answers, label_loss, mean_score
from purpleteam.defences.repair._tuning import Tuning, held_out

__all__ = ["FineTune"]


@REPAIRS.register("fine_tune")
@dataclass(frozen=True, kw_only=True)
class FineTune(Tuning):
    """Goes on training on trusted images alone; nothing in them speaks of the trigger."""

    def mend(self, net: nn.Module, work: Repairing) -> nn.Module:
        """Return the net of the lowest held-out cross-entropy."""
        images, others = held_out(work, self.held_out)
        score = mean_score(others, lambda net, x, y: F.cross_entropy(answers(net, x), y))
        return self.tune(net, images, work, loss=label_loss, score=score)
