"""The classic two-convolution CNN, after LeNet-5 (LeCun et al. 1998) with modern layers."""

from torch import nn

from purpleteam.models.architectures import ARCHITECTURES, Normalise, Shape


@ARCHITECTURES.register("classic_cnn")
def classic_cnn(shape: Shape, classes: int) -> nn.Module:
    """Return conv 32, pool, conv 64, pool, dense 128, dense: 421,642 weights for MNIST."""
    channels, height, width = shape
    return nn.Sequential(
        Normalise(),
        nn.Conv2d(channels, 32, 3, padding=1),  # (N, 32, H, W)
        nn.MaxPool2d(2),
        nn.ReLU(),  # after the pool: the same function at a quarter of the work
        nn.Conv2d(32, 64, 3, padding=1),  # (N, 64, H/2, W/2)
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * (height // 4) * (width // 4), 128),
        nn.ReLU(),
        nn.Linear(128, classes),
    )
