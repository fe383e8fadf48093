"""Certified training by interval bounds: IBP (Gowal et al. 2018, arXiv:1810.12715).

With the start and the warm-up of Shi et al. 2021 (arXiv:2103.17268): weights that keep boxes from
growing from layer to layer, and penalties on boxes that grow and neurons that all fall silent.
"""

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from purpleteam.attacks.evaluate import evaluate
from purpleteam.attacks.evasion.pgd import PGD
from purpleteam.certify.ball import VERIFIED
from purpleteam.certify.bends import Rectifier
from purpleteam.certify.bounds import Boxes, ball, elided, intervals, worst_logits
from purpleteam.certify.cascade import certify_ball
from purpleteam.certify.network import Network, network_of
from purpleteam.defences.training import DEFENCES, BallDefence, Hardening, part_of, ramped
from purpleteam.models.devices import device_of, to_batch
from purpleteam.models.guard import Guarded
from purpleteam.models.recipes import generator
from purpleteam.models.training import Training, Validation


@part_of(DEFENCES, "ibp")
class IBPTraining(BallDefence):
    """Learns from the worst logits that interval bounds allow in a box that grows; see certify."""

    keep = "last"  # the step size has fallen by then; and other bounds may judge the net
    ranges = (
        "train_epsilon above 0 and at most 1; robust_weight from 0 to 1; warm_up from 0 to 1; "
        "regularisation at least 0 and finite"
    )

    epochs: int = 70
    batch_size: int = 256
    learning_rate: float = 1e-3
    schedule: Literal["constant", "one_cycle", "cosine", "steps"] = "steps"
    l1: float = 2e-6
    gradient_clip: float = 10.0
    precise_batch_norm: bool = True
    precision: Literal["fast", "float32"] = "float32"
    """bfloat16 rounds to 1/256, which is wider than many a box."""
    train_epsilon: float | None = None
    """Radius of the boxes in training; by default twice epsilon but at most 0.3, or epsilon if that
    is more: the gap between training and test images wants a reserve (arXiv:1906.06316)."""
    robust_weight: float = 0.7
    """Share of the certified loss; the rest is the loss of the images as they are."""
    warm_up: float = 0.29
    """Fraction of the training over which the box grows from 0, slowly first."""
    regularisation: float = 0.5
    """Weight of the penalties on tightness and balance, which fades out as the box grows."""
    fresh_start: bool = True
    """Draw all weights anew, for boxes; else begin from those that the net has."""

    @property
    def radius(self) -> float:
        """The radius of the boxes in training, once they are whole."""
        return self.train_epsilon or max(self.epsilon, min(2 * self.epsilon, 0.3))

    def harden(self, work: Hardening) -> Training:
        """Start from weights for boxes, and train on them; the last epoch's weights are kept."""
        shape = to_batch(work.dataset.train.images[:1]).shape[1:]
        if self.fresh_start:
            initialise(network_of(work.net, shape), generator(work.seed, "weights for boxes"))
        network: Network | None = None  # of the net as it trains, on its device, behind its ramp
        grown = 0.0

        def objective(
            asked: Guarded, x: Tensor, y: Tensor, rng: torch.Generator, done: float
        ) -> Tensor:
            nonlocal network, grown
            network = network or network_of(asked.model, shape)
            grown = ramped(1.0, done, 0.0, self.warm_up, "smoothed")
            logits, live = network.by_batch(x)
            clean = F.cross_entropy(logits, y)
            if grown == 0:
                return clean
            robust, boxes = self.robust_loss(live, x, y, grown, rng)
            loss = (1 - self.robust_weight) * clean + self.robust_weight * robust
            if self.regularisation and grown < 1:
                loss = loss + self.regularisation * (1 - grown) * imbalance(live, boxes)
            return loss

        images = work.dataset.validation
        attack = PGD(epsilon=self.epsilon, steps=10).inside_box()

        def validate(model: nn.Module) -> Validation:
            found = certify_ball(
                model, images, epsilon=self.epsilon, method="ibp", device=device_of(model)
            )
            right, proved = found.decided_by != "clean", found.verdicts == VERIFIED
            standing = proved.copy()  # no attack on these succeeds
            if grown == 1 and len(left := np.flatnonzero(right & ~proved)):
                standing[left] = evaluate(model, images.take(left), attack).broken_by < 0
            return Validation(
                validation_accuracy=float(right.mean()),
                attacked=float(standing.mean()) if grown == 1 else None,
                certified=float(proved.mean()),
            )

        return work.train(self, work.dataset.train, images, objective=objective, validate=validate)

    def robust_loss(
        self, net: Network, x: Tensor, y: Tensor, grown: float, rng: torch.Generator
    ) -> tuple[Tensor, Boxes]:
        """Return a loss of images (N, C, H, W) in boxes, which it returns too, of each layer.

        `grown` above 0 is the fraction of `radius` that the boxes have by now.
        """
        boxes = intervals(net, ball(x, self.radius * grown), rounding=False)
        return worst_loss(net, boxes, y), boxes


def worst_loss(net: Network, boxes: Boxes, y: Tensor) -> Tensor:
    """Return the cross-entropy of the worst logits: no image in the boxes has more, on average."""
    return F.cross_entropy(worst_logits(elided(net, boxes, y, rounding=False), y), y)


def imbalance(net: Network, boxes: Boxes, tolerance: float = 0.5) -> Tensor:
    """Return the penalties of Shi et al. 2021 (section 3.3), each from 0 to 1, mean over ReLUs.

    On boxes that are wider before a ReLU than at the input, by their mean; and on neurons surely on
    that have another sum of centres, or another variance, than those surely off.
    """
    few = slice(32)  # images: enough for means over all neurons, at little cost
    first = (boxes[net.root].upper - boxes[net.root].lower).mean()
    penalties = []
    for node in net.nodes:
        if not isinstance(node.layer, Rectifier):
            continue
        lower, upper = boxes[node.inputs[0]].rows(few)
        centre, on, off = (lower + upper) / 2, lower > 0, upper < 0
        spread = (centre - centre.mean()) ** 2
        pairs = [
            ((centre * on).sum(), -(centre * off).sum()),
            ((spread * on).sum(), (spread * off).sum()),
        ]
        ratios = [torch.minimum(*two) / torch.maximum(*two).clamp_min(1e-12) for two in pairs]
        ratios.append(first / (upper - lower).mean().clamp_min(1e-12))
        penalties.append((tolerance - torch.stack(ratios)).clamp_min(0).sum() / tolerance)
    return torch.stack(penalties).mean() if penalties else first.new_zeros(())


def initialise(net: Network, rng: torch.Generator) -> None:
    """Draw weights of which boxes keep their width: N(0, 2 pi / fan_in^2), last layer aside."""
    weights = (getattr(node.layer, "weight", None) for node in net.nodes)
    drawn = [one for one in weights if isinstance(one, nn.Parameter) and one.ndim > 1]
    with torch.no_grad():
        for weight in drawn[:-1]:
            deviation = math.sqrt(2 * math.pi) / weight[0].numel()
            weight.copy_(deviation * torch.randn(weight.shape, generator=rng))
