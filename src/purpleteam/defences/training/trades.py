"""TRADES (Zhang et al. 2019, arXiv:1901.08573): clean accuracy against how far answers move."""

import torch
import torch.nn.functional as F
from torch import Tensor

from purpleteam.defences.training import DEFENCES, part_of
from purpleteam.defences.training.pgd import PGDTraining
from purpleteam.models.guard import Guarded, switched


@part_of(DEFENCES, "trades")
class Trades(PGDTraining):
    """Cross-entropy of clean images, and how unlike are the answers to images near them.

    The images near by are those of PGD against the net's own answers, so that no label is needed
    there. They start anywhere in the ball, not beside the image as published: the divergence has
    no gradient at the image itself.
    """

    ranges = "beta at least 0 and finite"

    beta: float = 6.0
    """Weight of the divergence, 1 / lambda in the paper: larger is more robust, less accurate."""

    def objective(
        self, net: Guarded, x: Tensor, y: Tensor, rng: torch.Generator, done: float
    ) -> Tensor:
        """Return CE(f(x), y) + beta KL(f(x) || f(x_adv)), the mean over the batch."""
        switched(net)
        with torch.no_grad():
            answers = net(x).softmax(1)
        x_adv = self.attacked(net, x, answers, rng, done)  # the net is in train mode again
        logits = net(x)
        near = net(x_adv).log_softmax(1)
        divergence = F.kl_div(near, logits.softmax(1), reduction="batchmean")
        return F.cross_entropy(logits, y) + self.beta * divergence
