"""Tiny nets and images for the contracts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from purpleteam.data.images import ImageSet

SHAPE = (1, 4, 4)


def linear_net(classes: int = 4) -> nn.Sequential:
    """Return a net whose logits are linear in the pixels and 0 in the middle of the cube."""
    layer = nn.Linear(16, classes)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(classes, 16, generator=torch.Generator().manual_seed(0)))
        layer.bias.copy_(-0.5 * layer.weight.sum(1))
    return nn.Sequential(nn.Flatten(), layer)


class Viewed(nn.Module):
    """Flattens as tutorials do, which fails on images in another order in memory."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, d) of (N, C, H, W)."""
        return x.view(len(x), -1)


def curved_net() -> nn.Sequential:
    """Return an untrained net with all that an attack could disturb: batch norm, dropout, view."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(0.5),
            Viewed(),
            nn.Linear(16, 4),
        )


def whole_range(n: int) -> Tensor:
    """Return images of the whole cube, a third of their pixels black and a third white."""
    rng = torch.Generator().manual_seed(1)
    return (3 * torch.rand((n, *SHAPE), generator=rng) - 1).clamp(0, 1)


def label_of(model: nn.Module, x: Tensor) -> Tensor:
    """Return what the model says of each image in eval mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    with torch.no_grad():
        labels = model(x).argmax(1)
    for module, mode in modes:
        module.training = mode
    return labels


def fit_set(model: nn.Module) -> ImageSet:
    """Return images of their own, with the model's labels, for attacks that are fitted first."""
    pixels = (255 * whole_range(64).flip(2)).byte().permute(0, 2, 3, 1)
    labels = label_of(model, pixels.permute(0, 3, 1, 2) / 255)
    return ImageSet(pixels.contiguous().numpy(), labels.numpy())
