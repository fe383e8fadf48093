"""The input that a brought net wants, as a layer in front of it: epsilon stays in pixel units."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from purpleteam.core.config import parse_part
from purpleteam.core.errors import ModelError, UsageError, unknown

__all__ = ["NORMALISATIONS", "Normalisation", "Normalised"]


@dataclass(frozen=True)
class Normalisation:
    """Subtracts a mean and divides by a deviation, one for all channels or one for each."""

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> Normalisation:
        """Return what `--normalise` means: a known name, or `mean=M,std=S`, lists in brackets."""
        if text in NORMALISATIONS:
            return NORMALISATIONS[text]
        if "=" not in text:
            raise UsageError(f"{unknown('normalisation', text, NORMALISATIONS)}; or {FORM}")
        values = parse_part(f":{text}")[1]
        if set(values) != {"mean", "std"}:
            raise UsageError(f"--normalise {text!r} is not of the form {FORM}")
        mean, std = (_numbers(text, values[key]) for key in ("mean", "std"))
        if 0 in std:
            raise UsageError(f"--normalise {text!r} divides by 0")
        if len(mean) != len(std):
            raise UsageError(f"--normalise {text!r}: {len(mean)} means, {len(std)} deviations")
        return cls(text, mean, std)

    def before(self, module: nn.Module) -> nn.Module:
        """Return the net with this layer in front of it."""
        return Normalised(module, self)

    def __call__(self, x: Tensor) -> Tensor:
        """Return images (N, C, H, W) in [0, 1] as the net wants them."""
        mean, std = (x.new_tensor(one).view(1, -1, 1, 1) for one in (self.mean, self.std))
        if mean.shape[1] not in (1, x.shape[1]):
            raise ModelError(
                f"normalisation {self.name!r} is of {mean.shape[1]} channels, "
                f"the images have {x.shape[1]}"
            )
        return (x - mean) / std


class Normalised(nn.Module):
    """A net behind a normalisation. It holds no weights of its own."""

    def __init__(self, module: nn.Module, normalisation: Normalisation) -> None:
        super().__init__()
        self.module = module
        self.normalisation = normalisation

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.module(self.normalisation(x))
        return out


FORM = "mean=M,std=S, such as mean=0.5,std=0.5 or mean=[0.5,0.5,0.4],std=[0.2,0.2,0.2]"
"""What stands in errors for everything that has no name."""

_KNOWN = (
    Normalisation("bytes", (0.0,), (1 / 255,)),
    Normalisation("signed", (0.5,), (0.5,)),
    Normalisation("inverted", (1.0,), (-1.0,)),
    Normalisation("mnist", (0.1307,), (0.3081,)),
    Normalisation("cifar10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    Normalisation("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
)
NORMALISATIONS = {one.name: one for one in _KNOWN}
"""The usual ones: [0, 255], [-1, 1], dark for bright, and three data sets' mean and deviation."""


def _numbers(text: str, value: Any) -> tuple[float, ...]:
    numbers = value if isinstance(value, list) else [value]
    if not numbers or not all(type(one) in (int, float) for one in numbers):
        raise UsageError(f"--normalise {text!r}: {value!r} is no number and no list of numbers")
    if not all(math.isfinite(one) for one in numbers):
        raise UsageError(f"--normalise {text!r}: {value!r} is not finite")
    return tuple(float(one) for one in numbers)
