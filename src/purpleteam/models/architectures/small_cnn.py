"""A small strided CNN for quick experiments and tests."""

from torch import nn

from purpleteam.models.architectures import ARCHITECTURES, Normalise, Shape


@ARCHITECTURES.register("small_cnn")
def small_cnn(shape: Shape, classes: int) -> nn.Module:
    """Return two strided convolutions and two dense layers: 26,826 weights for MNIST."""
    channels, height, width = shape
    rows, columns = (height + 3) // 4, (width + 3) // 4  # halved twice, rounded up
    return nn.Sequential(
        Normalise(),
        nn.Conv2d(channels, 8, 5, stride=2, padding=2),  # (N, 8, H/2, W/2)
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),  # (N, 16, H/4, W/4)
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * rows * columns, 32),
        nn.ReLU(),
        nn.Linear(32, classes),
    )
