"""Layers around a brought net: the input that it wants, and which of its outputs is which class.

A normalisation in front of the net keeps epsilon in pixel units. `purple import --normalise` writes
it into the card and the header of the weights, so it is part of the model's digest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from purpleteam.core.config import number, parse_part
from purpleteam.core.digest import canonical_json
from purpleteam.core.errors import ModelError, UsageError, unknown
from purpleteam.data.streamed import Images
from purpleteam.models.devices import device_of, forked, frozen, to_batch
from purpleteam.models.guard import Classifier

FORM = "mean=M,std=S, such as mean=0.5,std=0.5 or mean=0.5/0.5/0.4,std=0.2/0.2/0.2; or ramp=0.3"
MAX_BYTES = 4 << 20  # most of a file of names


@dataclass(frozen=True)
class Normalisation:
    """Subtracts a mean and divides by a deviation, one for all channels or one for each.

    Where `clip` is true the result is clipped to [0, 1]: a ramp. That of a declared epsilon e in
    L-infinity is clip((x - e) / (1 - 2 e), 0, 1): blank and full ink stay what they are whatever an
    adversary adds. It is monotone in each value, so the image of a ball is exactly a box, and flat
    at both ends, so plain gradients vanish there: attack it with `box`.
    """

    name: str = field(compare=False)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    clip: bool = False

    @classmethod
    def ramp(cls, epsilon: float) -> Normalisation:
        """Return the input ramp for an epsilon above 0 and below 0.5."""
        if not 0 < epsilon < 0.5:
            raise UsageError(f"a ramp is of an epsilon above 0 and below 0.5, not {epsilon:g}")
        return cls(f"ramp={epsilon!r}", (epsilon,), (1 - 2 * epsilon,), clip=True)

    @classmethod
    def parse(cls, text: str) -> Normalisation:
        """Return what `--normalise` means: a name, `mean=M,std=S`, also `a/b/c`, or `ramp=E`."""
        if text in NORMALISATIONS:
            return NORMALISATIONS[text]
        if "=" not in text:
            raise UsageError(f"{unknown('normalisation', text, NORMALISATIONS)}; or {FORM}")
        values = parse_part(f":{text}")[1]
        if set(values) == {"ramp"}:
            return cls.ramp(number(str(values["ramp"])))
        if set(values) != {"mean", "std"}:
            raise UsageError(f"--normalise {text!r} is not of the form {FORM}")
        sides: dict[str, tuple[float, ...]] = {}
        for key, value in values.items():
            parts = value if isinstance(value, list) else str(value).split("/")
            try:
                sides[key] = tuple(float(str(part)) for part in parts)  # but no True
            except ValueError:
                sides[key] = ()
            if not sides[key] or not all(map(math.isfinite, sides[key])):
                wrong = "is not finite" if sides[key] else "is no number and no list of numbers"
                raise UsageError(f"--normalise {text!r}: {value!r} {wrong}")
        mean, std = sides["mean"], sides["std"]
        if 0 in std:
            raise UsageError(f"--normalise {text!r} divides by 0")
        channels = max(len(mean), len(std))
        if {len(mean), len(std)} - {1, channels}:
            raise UsageError(f"--normalise {text!r}: {len(mean)} means, {len(std)} deviations")
        mean, std = (side * channels if len(side) == 1 else side for side in (mean, std))
        return cls(text, mean, std)

    @classmethod
    def of_card(cls, values: Mapping[str, Any] | None, whose: str) -> Normalisation | None:
        """Return what a card says; it may be a stranger's."""
        if values is None:
            return None
        try:
            mean, std = (tuple(map(float, values[key])) for key in ("mean", "std"))
            name, clip = str(values.get("name", "its own")), values.get("clip", False)
        except (KeyError, TypeError, ValueError, AttributeError):
            mean, std, name, clip = (), (), "", False
        sound = len(mean) == len(std) > 0 and 0 not in std and all(map(math.isfinite, mean + std))
        if not sound or not isinstance(clip, bool):
            raise ModelError(f"the normalisation of {whose} is none: {str(values)[:80]}")
        return cls(name, mean, std, clip)

    def numbers(self) -> dict[str, Any]:
        """Return what it does, without its name; `clip` alone where it is true, as in old files."""
        numbers: dict[str, Any] = {"mean": list(self.mean), "std": list(self.std)}
        return numbers | {"clip": True} if self.clip else numbers

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, **self.numbers()}

    def header(self) -> str:
        """Return the numbers alone, as they stand in the header of the weights."""
        return canonical_json(self.numbers())

    def before(self, module: nn.Module) -> Normalised:
        return Normalised(module, self)

    def __call__(self, x: Tensor) -> Tensor:
        out: Tensor = Normalised(nn.Identity(), self).to(x.device)(x)
        return out


class Normalised(nn.Module):
    """A net behind a normalisation. It holds no weights of its own."""

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
        if self.mean.shape[1] not in (1, x.shape[1]):
            layer = f"normalisation {self.normalisation.name!r} is of {self.mean.shape[1]} channels"
            raise ModelError(f"{layer}, the images have {x.shape[1]}")
        x = (x - self.mean) / self.std
        out: Tensor = self.module(x.clamp(0, 1) if self.normalisation.clip else x)
        return out

    def extra_repr(self) -> str:
        return self.normalisation.header()  # two that differ are exported from graphs that differ


_KNOWN = (
    Normalisation("bytes", (0.0,), (1 / 255,)),
    Normalisation("signed", (0.5,), (0.5,)),
    Normalisation("inverted", (1.0,), (-1.0,)),
    Normalisation("mnist", (0.1307,), (0.3081,)),
    Normalisation("cifar10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    Normalisation("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
)
NORMALISATIONS = {layer.name: layer for layer in _KNOWN}
# a colour set's numbers as one, the mean over its channels: what nets on grey images are given
GREY = tuple(
    Normalisation.parse(f"mean={sum(layer.mean) / 3:.3f},std={sum(layer.std) / 3:.3f}")
    for layer in _KNOWN
    if len(layer.mean) == 3
)


def scored(model: Classifier, images: Images, classes: int) -> tuple[Classifier, str]:
    """Return a model that answers with scores of its classes, if it can, and where they were."""
    if not getattr(model, "differentiable", True):  # each question may cost something
        return model, ""
    device = device_of(model)
    x = to_batch(images[:2], device)
    with frozen(model) as net, torch.no_grad(), forked(device):
        told = net.classes
        for known in (told, classes):
            net.classes = known
            with suppress(ModelError):
                net(x)
                return (model, "") if known == told else (net, net.form)
        net.classes = told
    return model, ""


def parse_classes(given: Any) -> tuple[str, ...]:
    """Return what `--classes` names, two or more: `a,b,c`, a list, or a file, one name a line."""
    text, listed = str(given), isinstance(given, list | tuple)
    path, where = Path(text), f"--classes {text[:80]!r}"
    names = [*map(str, given)] if listed else text.split(",")
    if not listed and path.is_file():
        where = f"--classes {text!r}"
        try:
            if path.stat().st_size > MAX_BYTES:
                raise UsageError(f"{where} is over {MAX_BYTES} bytes: no list of names")
            names = list(filter(str.strip, path.read_text(encoding="utf-8-sig").splitlines()))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{where} cannot be read: {error}") from None
    names = [name.strip() for name in names]
    if len(names) < 2 or not all(names):
        raise UsageError(f"{where}: name each output's class, a,b,c or a file with one name a line")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{where} names {twice[0]!r} more than once")
    return tuple(names)
