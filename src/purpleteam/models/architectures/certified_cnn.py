"""The small CNN of certified training (Gowal et al. 2018, arXiv:1810.12715)."""

from torch import nn

from purpleteam.models.architectures import ARCHITECTURES, Normalise, Shape


@ARCHITECTURES.register("certified_cnn")
def certified_cnn(shape: Shape, classes: int, *, batch_norm: bool = False) -> nn.Module:
    """Return two strided convolutions and two dense layers: 166,406 weights for MNIST."""
    channels, height, width = shape
    return nn.Sequential(
        Normalise(),
        nn.Conv2d(channels, 16, 4, stride=2, padding=1),  # (N, 16, H/2, W/2)
        *[nn.BatchNorm2d(16)] * batch_norm,
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),  # (N, 32, H/4, W/4)
        *[nn.BatchNorm2d(32)] * batch_norm,
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * (height // 4) * (width // 4), 100),
        *[nn.BatchNorm1d(100)] * batch_norm,
        nn.ReLU(),
        nn.Linear(100, classes),
    )


@ARCHITECTURES.register("certified_cnn_bn")
def certified_cnn_bn(shape: Shape, classes: int) -> nn.Module:
    """Return that net with batch normalisation, which certifies more: 166,702 weights for MNIST."""
    return certified_cnn(shape, classes, batch_norm=True)
