"""The input that a brought net wants, as a layer in front of it: epsilon stays in pixel units.

It belongs to the model: `purple import --normalise` writes it into the card and into the header of
the weights, so that the digest of the same weights behind another input is another one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from purpleteam.core.config import parse_part
from purpleteam.core.digest import canonical_json
from purpleteam.core.errors import ModelError, UsageError, unknown


@dataclass(frozen=True)
class Normalisation:
    """Subtracts a mean and divides by a deviation, one for all channels or one for each."""

    name: str = field(compare=False)
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> Normalisation:
        """Return what `--normalise` means: a known name, or `mean=M,std=S`.

        Several channels are `a/b/c` or `[a,b,c]`.
        """
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
        if len(mean) != len(std) and 1 not in (len(mean), len(std)):
            raise UsageError(f"--normalise {text!r}: {len(mean)} means, {len(std)} deviations")
        channels = max(len(mean), len(std))
        mean, std = (one * channels if len(one) == 1 else one for one in (mean, std))
        return cls(text, mean, std)

    @classmethod
    def of_card(cls, values: Mapping[str, Any] | None, whose: str) -> Normalisation | None:
        """Return what a card, or the header of its weights, says; a card may be a stranger's."""
        if values is None:
            return None
        try:
            mean, std = (tuple(map(float, values[key])) for key in ("mean", "std"))
            name = str(values.get("name", "its own"))
        except (KeyError, TypeError, ValueError, AttributeError):
            mean, std, name = (), (), ""
        sound = len(mean) == len(std) > 0 and 0 not in std and all(map(math.isfinite, mean + std))
        if not sound:
            raise ModelError(f"the normalisation of {whose} is none: {str(values)[:80]}")
        return cls(name, mean, std)

    def to_json(self) -> dict[str, Any]:
        """Return it as a card says it."""
        return {"name": self.name, "mean": list(self.mean), "std": list(self.std)}

    def header(self) -> str:
        """Return the numbers alone, as they stand in the header of the weights."""
        return canonical_json({"mean": self.mean, "std": self.std})

    @classmethod
    def of_header(cls, text: str | None, whose: str) -> Normalisation | None:
        """Return what `header` wrote."""
        try:
            return cls.of_card(None if text is None else json.loads(text), whose)
        except ValueError:
            raise ModelError(f"the normalisation of {whose} is none: {str(text)[:80]}") from None

    def before(self, module: nn.Module) -> Normalised:
        """Return the net with this layer in front of it."""
        return Normalised(module, self)

    def __call__(self, x: Tensor) -> Tensor:
        """Return images (N, C, H, W) in [0, 1] as the net wants them."""
        self.check_channels(x.shape[1])
        mean, std = (x.new_tensor(one).view(1, -1, 1, 1) for one in (self.mean, self.std))
        return (x - mean) / std

    def check_channels(self, channels: int) -> None:
        """Refuse images of another number of channels than it is for."""
        if len(self.mean) not in (1, channels):
            raise ModelError(
                f"normalisation {self.name!r} is of {len(self.mean)} channels, "
                f"the images have {channels}"
            )


class Normalised(nn.Module):
    """A net behind a normalisation. It holds no weights of its own."""

    module: nn.Module
    normalisation: Normalisation
    mean: Tensor
    std: Tensor

    def __init__(self, module: nn.Module, normalisation: Normalisation) -> None:
        super().__init__()
        self.module = module
        self.normalisation = normalisation
        for name in ("mean", "std"):
            values = torch.tensor(getattr(normalisation, name)).view(1, -1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.normalisation.check_channels(x.shape[1])
        out: Tensor = self.module((x - self.mean) / self.std)
        return out


FORM = "mean=M,std=S, such as mean=0.5,std=0.5 or mean=0.5/0.5/0.4,std=0.2/0.2/0.2"
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
    if isinstance(value, str) and "/" in value:
        value = [_number(one) for one in value.split("/")]
    numbers = value if isinstance(value, list) else [value]
    if not numbers or not all(type(one) in (int, float) for one in numbers):
        raise UsageError(f"--normalise {text!r}: {value!r} is no number and no list of numbers")
    if not all(math.isfinite(one) for one in numbers):
        raise UsageError(f"--normalise {text!r}: {value!r} is not finite")
    return tuple(float(one) for one in numbers)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


GREY = tuple(
    Normalisation.parse(f"mean={sum(one.mean) / 3:.3f},std={sum(one.std) / 3:.3f}")
    for one in _KNOWN
    if len(one.mean) == 3
)
"""A colour set's numbers as one, the mean over its channels: what nets on grey images are given."""
