"""CNN7, on which certified training is compared (Shi et al. 2021, arXiv:2103.17268)."""

from torch import nn

from purpleteam.models.architectures import ARCHITECTURES, Normalise, Shape


@ARCHITECTURES.register("cnn7")
def cnn7(shape: Shape, classes: int, *, width: int = 64) -> nn.Module:
    """Return five convolutions and two dense layers: 13,258,314 weights for MNIST; for GPUs."""
    channels, height, breadth = shape
    layers: list[nn.Module] = [Normalise()]
    for wide, stride in ((width, 1), (width, 1), (2 * width, 2), (2 * width, 1), (2 * width, 1)):
        layers.append(nn.Conv2d(channels, wide, 3, stride=stride, padding=1, bias=False))
        layers += [nn.BatchNorm2d(wide), nn.ReLU()]
        channels = wide
    features = channels * ((height + 1) // 2) * ((breadth + 1) // 2)
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(features, 8 * width, bias=False),
        nn.BatchNorm1d(8 * width),
        nn.ReLU(),
        nn.Linear(8 * width, classes),
    )
