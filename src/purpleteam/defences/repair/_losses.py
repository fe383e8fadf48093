"""What the fine-tuning repairs go down: cross-entropy, or distance to what the model said."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from purpleteam.data.images import ImageSet
from purpleteam.models.devices import device_of, fast_autocast, frozen, to_batch
from purpleteam.models.guard import guarded

__all__ = ["answers", "divergence", "label_loss", "mean_score"]

Score = Callable[[nn.Module], float]


def answers(net: nn.Module, x: Tensor) -> Tensor:
    """Return logits (N, classes) in float32, computed in the fastest precision."""
    with fast_autocast(x.device):
        out: Tensor = guarded(net)(x)
    return out.float()


def divergence(given: Tensor, wanted: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the mean Kullback-Leibler divergence of softmax(given) from softmax(wanted).

    Logits are divided by the temperature first, and the result is multiplied by its square, so
    that gradients keep their size (Hinton et al. 2015, arXiv:1503.02531).
    """
    found = F.kl_div(
        (given / temperature).log_softmax(1),
        (wanted / temperature).log_softmax(1),
        reduction="batchmean",
        log_target=True,
    )
    return temperature**2 * found


def label_loss(net: nn.Module, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
    """Return the mean cross-entropy."""
    return F.cross_entropy(answers(net, x), y)


def mean_score(images: ImageSet, loss: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> Score:
    """Return a score: the mean of `loss` over all of `images`, without gradients."""

    def score(net: nn.Module) -> float:
        device = device_of(net)
        total = 0.0
        with frozen(net), torch.no_grad():
            for start in range(0, len(images), 100):
                part = images.part(start, start + 100)
                y = torch.from_numpy(part.labels.copy()).to(device)
                total += float(loss(net, to_batch(part.images, device), y)) * len(part)
        return total / len(images)

    return score
