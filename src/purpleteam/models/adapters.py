"""Layers around a brought net: the input that it wants, and which of its outputs is which class.

A normalisation in front of the net keeps epsilon in pixel units. It belongs to the model: `purple
import --normalise` writes it into the card and into the header of the weights, so that the digest
of the same weights behind another input is another one. A folder's classes are sorted by name, and
a net may have learned them in another order, or among more: its card or `--classes` names its
outputs in its own order.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from purpleteam.core.config import parse_part
from purpleteam.core.digest import canonical_json
from purpleteam.core.errors import ModelError, UsageError, unknown
from purpleteam.models.devices import device_of, frozen, to_batch
from purpleteam.models.guard import Classifier, guarded

FORM = "mean=M,std=S, such as mean=0.5,std=0.5 or mean=0.5/0.5/0.4,std=0.2/0.2/0.2"
"""What stands in errors for everything that has no name."""
MAX_BYTES = 4 << 20
"""Most bytes of a file of names."""


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
        mean, std = (side * channels if len(side) == 1 else side for side in (mean, std))
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
        mean, std = (x.new_tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
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


_KNOWN = (
    Normalisation("bytes", (0.0,), (1 / 255,)),
    Normalisation("signed", (0.5,), (0.5,)),
    Normalisation("inverted", (1.0,), (-1.0,)),
    Normalisation("mnist", (0.1307,), (0.3081,)),
    Normalisation("cifar10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    Normalisation("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
)
NORMALISATIONS = {layer.name: layer for layer in _KNOWN}
"""The usual ones: [0, 255], [-1, 1], dark for bright, and three data sets' mean and deviation."""


def _numbers(text: str, value: Any) -> tuple[float, ...]:
    numbers = value if isinstance(value, list) else [value]
    if isinstance(value, str) and "/" in value:
        with suppress(ValueError):  # what are no numbers is refused below
            numbers = [float(part) for part in value.split("/")]
    if not numbers or not all(type(number) in (int, float) for number in numbers):
        raise UsageError(f"--normalise {text!r}: {value!r} is no number and no list of numbers")
    if not all(math.isfinite(number) for number in numbers):
        raise UsageError(f"--normalise {text!r}: {value!r} is not finite")
    return tuple(float(number) for number in numbers)


GREY = tuple(
    Normalisation.parse(f"mean={sum(layer.mean) / 3:.3f},std={sum(layer.std) / 3:.3f}")
    for layer in _KNOWN
    if len(layer.mean) == 3
)
"""A colour set's numbers as one, the mean over its channels: what nets on grey images are given."""


class Ordered(nn.Module):
    """A net whose scores are brought into the data's order of classes. It has no weights."""

    module: nn.Module
    names: tuple[str, ...]
    order: Tensor

    def __init__(self, module: nn.Module, names: tuple[str, ...], order: Sequence[int]) -> None:
        super().__init__()
        self.module = module
        self.names = names
        """Of all outputs of the net, in its own order."""
        self.register_buffer("order", torch.tensor(order), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = guarded(self.module)(x)
        check_count(scores, self.names)
        return scores.index_select(1, self.order)


class Scored(nn.Module):
    """A net that answers with more than its scores; their number tells them from the rest."""

    module: nn.Module

    def __init__(self, module: Classifier, classes: int) -> None:
        super().__init__()
        self.module = module  # type: ignore[assignment]
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        asked = guarded(self.module)
        asked.classes = self.classes
        scores: Tensor = asked(x)
        return scores


def scored(model: Classifier, images: NDArray[np.uint8], classes: int) -> tuple[Classifier, str]:
    """Return a model that answers with the scores of its classes, and where they were.

    A model whose answers need no number of classes to be read is returned as it is. So is one
    that cannot be read even so: whoever asks it is told what is wrong.
    """
    if not getattr(model, "differentiable", True):  # each question may cost something
        return model, ""
    device = device_of(model)
    x = to_batch(images[:2], device)
    with (
        frozen(model) as net,
        torch.no_grad(),
        torch.random.fork_rng(devices=[device] if x.is_cuda else []),
    ):
        for known in (None, classes):
            net.classes = known
            try:
                net(x)
            except ModelError:
                continue
            return (model, "") if known is None else (Scored(model, classes), net.form)
        net.classes = None
    return model, ""


def check_count(scores: Tensor, names: tuple[str, ...]) -> None:
    """Refuse scores (N, classes) that are not one for each name."""
    if scores.shape[1] != len(names):
        raise ModelError(f"the model scores {scores.shape[1]} classes, not the {len(names)} named")


def parse_classes(text: str) -> tuple[str, ...]:
    """Return what `--classes` names: `a,b,c`, or a file with one name a line.

    Raises:
        UsageError: fewer than two names, an empty one, the same twice, or an unreadable file.
    """
    path, where = Path(text), f"--classes {text[:80]!r}"
    names = [name.strip() for name in text.split(",")]
    if path.is_file():
        where = f"--classes {text!r}"
        try:
            if path.stat().st_size > MAX_BYTES:
                raise UsageError(f"{where} is over {MAX_BYTES} bytes: no list of names")
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{where} cannot be read: {error}") from None
        names = [line.strip() for line in lines if line.strip()]
    if len(names) < 2 or not all(names):
        raise UsageError(
            f"{where}: give each output of the net its class, a,b,c or a file with one name a line"
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{where} names {twice[0]!r} more than once")
    return tuple(names)


def order_of(
    names: tuple[str, ...], classes: tuple[str, ...], dataset: str
) -> tuple[int, ...] | None:
    """Return for each class of the data the number of the output that is named so.

    None where it is the order that the data has.

    Raises:
        ModelError: a class of the data is not among the names.
    """
    missing = [name for name in classes if name not in names]
    if missing:
        near = difflib.get_close_matches(missing[0], names, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        some = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise ModelError(
            f"class {missing[0]!r} of dataset {dataset!r} is not among the model's{hint}: {some}; "
            "--classes names its outputs in their order"
        )
    return None if names == classes else tuple(names.index(name) for name in classes)


def are_numbers(names: tuple[str, ...]) -> bool:
    """Say whether the names are 0, 1, 2 ..., which stand where nobody named the classes."""
    return names == tuple(str(number) for number in range(len(names)))
