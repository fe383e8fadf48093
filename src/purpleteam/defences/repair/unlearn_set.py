"""Unlearn flagged images, after Anti-Backdoor Learning (Li et al. 2021, arXiv:2110.11571).

Their loss has no bound to ascend to: -log(1 - p) of their label descends, beside distillation.
"""

import copy

import numpy as np
import torch
from torch import Tensor, nn

from purpleteam.data.images import ImageSet
from purpleteam.defences import repair as tuning
from purpleteam.defences.repair import REPAIRS, Repairing, answers, part_of
from purpleteam.models.devices import device_of, to_batch

TEMPERATURE = 2.0  # above 1, what the model thinks of the other labels counts for more


@part_of(REPAIRS, "unlearn_set")
class UnlearnSet(tuning.Tuning):
    """Teaches the net that flagged images are anything but what they are labelled."""

    needs = ("trusted", "train", "flagged")

    steps: int = 400
    learning_rate: float = 3e-3

    def mend(self, net: nn.Module, work: Repairing) -> nn.Module:
        """Return the net of the lowest loss on held-out trusted and all flagged images."""
        model = copy.deepcopy(net).requires_grad_(False)
        _, others = tuning.held_out(work, self.held_out)
        flagged = flagged_of_one_label(work)
        label = int(flagged.labels[0])

        def kept(net: nn.Module, x: Tensor, y: Tensor | None = None) -> Tensor:
            with torch.no_grad():
                wanted = answers(model, x)
            return tuning.divergence(answers(net, x), wanted, TEMPERATURE)

        def denied(net: nn.Module, x: Tensor, y: Tensor | None = None) -> Tensor:
            return denial(answers(net, x), label)

        def loss(net: nn.Module, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
            chosen = torch.randint(len(flagged), (len(x),), generator=rng).numpy()
            refused = denied(net, to_batch(flagged.images[chosen], device_of(net)))
            return kept(net, tuning.put_together(x, 1.0, rng)) + refused

        of_trusted, of_flagged = tuning.mean_score(others, kept), tuning.mean_score(flagged, denied)
        return self.fine_tune(
            net, work, loss=loss, score=lambda net: of_trusted(net) + of_flagged(net)
        )


def denial(given: Tensor, label: int) -> Tensor:
    """Return the mean of -log(1 - p(label)) of logits (N, classes), computed without rounding."""
    others = torch.cat([given[:, :label], given[:, label + 1 :]], 1)
    return (given.logsumexp(1) - others.logsumexp(1)).mean()


def flagged_of_one_label(work: Repairing) -> ImageSet:
    """Return the flagged images of the target label, or of the label that most of them have."""
    if work.train is None or work.flagged is None:
        raise ValueError("unlearn_set needs train and flagged")
    labels = work.train.labels[work.flagged]
    wanted = work.target_label
    if wanted is None or not (labels == wanted).any():
        wanted = int(np.bincount(labels).argmax())
    return work.train.take(work.flagged[labels == wanted])
