"""Tiny nets with fixed weights, of every layer that bounds go through."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHAPE = (2, 8, 8)


class EveryLayer(nn.Module):
    """Convolution, batch norm, ReLU and its kin, both poolings, residual and dense connections."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, stride=1, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.inner = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.wide = nn.Conv2d(4, 2, 3, dilation=2, stride=2, padding=2)
        self.kin = nn.PReLU()
        self.middle = nn.Linear(16, 6)
        self.last = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.clamp((x - 0.3) / 0.4, 0, 1)
        x = torch.relu(self.norm(self.first(x)))
        x = x + F.leaky_relu(self.inner(x), 0.2)
        x = self.wide(x)  # (N, 2, 4, 4)
        pooled = F.max_pool2d(x, 3, stride=2, padding=1), F.avg_pool2d(F.hardtanh(x, -0.2, 0.3), 2)
        x = F.relu6(torch.cat(pooled, 1) * 3 - 1)
        return self.last(self.kin(self.middle(x.view(x.size(0), -1))))


def every_layer() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = EveryLayer()
        net.norm.running_mean.normal_()
        net.norm.running_var.uniform_(0.5, 2)
    return net.eval()


def dense(*sizes: int, seed: int = 0, gain: float = 1.0) -> nn.Module:
    """Return linear layers with ReLU between, of images (1, 1, sizes[0]); weights times a gain."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU()]
            nn.init.normal_(layers[-2].weight, 0, gain / before**0.5) if gain != 1 else None
    return nn.Sequential(*layers[:-1]).eval()


def conv(seed: int = 0) -> nn.Module:
    """Return two convolutions and two linear layers, of images (1, 6, 6) in 3 classes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 3, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(3, 4, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(36, 8),
            nn.ReLU(),
            nn.Linear(8, 3),
        ).eval()
