"""The small CNN of certified training (Gowal et al. 2018, arXiv:1810.12715)."""

from torch import nn

from purpleteam.models.architectures import ARCHITECTURES, Normalise, Shape


@ARCHITECTURES.register("certified_cnn")
def certified_cnn(shape: Shape, classes: int) -> nn.Module:
    """Return two strided convolutions and two dense layers: 166,406 weights for MNIST."""
    channels, height, width = shape
    return nn.Sequential(
        Normalise(),
        nn.Conv2d(channels, 16, 4, stride=2, padding=1),  # (N, 16, H/2, W/2)
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),  # (N, 32, H/4, W/4)
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * (height // 4) * (width // 4), 100),
        nn.ReLU(),
        nn.Linear(100, classes),
    )
