"""A small residual network (He et al. 2016, arXiv:1512.03385) with mean pooling."""

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


@ARCHITECTURES.register("residual_cnn")
def residual_cnn(shape: Shape, classes: int) -> nn.Module:
    """Return a stem and two residual stages of widths 24 and 48: 63,730 weights for MNIST."""
    channels = shape[0]
    return nn.Sequential(
        Normalise(),
        nn.Conv2d(channels, 24, 5, stride=2, padding=2, bias=False),  # (N, 24, H/2, W/2)
        nn.BatchNorm2d(24),
        nn.ReLU(),
        _Block(24),
        nn.Conv2d(24, 48, 3, stride=2, padding=1, bias=False),  # (N, 48, H/4, W/4)
        nn.BatchNorm2d(48),
        nn.ReLU(),
        _Block(48),
        nn.AdaptiveAvgPool2d(1),  # (N, 48, 1, 1)
        nn.Flatten(),
        nn.Linear(48, classes),
    )
