"""Small residual networks (He et al. 2016, arXiv:1512.03385) with mean pooling."""

from torch import Tensor, nn

from purpleteam.models.architectures import ARCHITECTURES, Normalise, Shape


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(x + self.body(x))
        return out


def _net(shape: Shape, classes: int, narrow: int, wide: int) -> nn.Module:
    return nn.Sequential(
        Normalise(),
        nn.Conv2d(shape[0], narrow, 5, stride=2, padding=2, bias=False),  # (N, narrow, H/2, W/2)
        nn.BatchNorm2d(narrow),
        nn.ReLU(),
        _Block(narrow),
        nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=False),  # (N, wide, H/4, W/4)
        nn.BatchNorm2d(wide),
        nn.ReLU(),
        _Block(wide),
        nn.AdaptiveAvgPool2d(1),  # (N, wide, 1, 1)
        nn.Flatten(),
        nn.Linear(wide, classes),
    )


@ARCHITECTURES.register("residual_cnn")
def residual_cnn(shape: Shape, classes: int) -> nn.Module:
    """Return a stem and two residual stages of widths 24 and 48: 63,730 weights for MNIST."""
    return _net(shape, classes, 24, 48)


@ARCHITECTURES.register("wide_residual_cnn")
def wide_residual_cnn(shape: Shape, classes: int) -> nn.Module:
    """Return the same with widths 32 and 64: 112,618 weights for MNIST, half as long again."""
    return _net(shape, classes, 32, 64)
