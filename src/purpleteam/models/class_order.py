"""Which output of a net is which class of the data.

A folder's classes are sorted by name, and a net may have learned them in another order, or among
more: its card or `--classes` names its outputs in its own order.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from purpleteam.core.errors import ModelError, UsageError
from purpleteam.models.devices import device_of, frozen, to_batch
from purpleteam.models.guard import Classifier, guarded

MAX_BYTES = 4 << 20
"""Most bytes of a file of names."""


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
    if Path(text).is_file():
        names, where = _lines(Path(text)), f"--classes {text!r}"
    else:
        names, where = [one.strip() for one in text.split(",")], f"--classes {text[:80]!r}"
    if len(names) < 2 or not all(names):
        raise UsageError(
            f"{where}: give each output of the net its class, a,b,c or a file with one name a line"
        )
    if twice := sorted({one for one in names if names.count(one) > 1}):
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
    missing = [one for one in classes if one not in names]
    if missing:
        near = difflib.get_close_matches(missing[0], names, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        some = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise ModelError(
            f"class {missing[0]!r} of dataset {dataset!r} is not among the model's{hint}: {some}; "
            "--classes names its outputs in their order"
        )
    order = tuple(names.index(one) for one in classes)
    return None if names == classes else order


def are_numbers(names: tuple[str, ...]) -> bool:
    """Say whether the names are 0, 1, 2 ..., which stand where nobody named the classes."""
    return names == tuple(str(number) for number in range(len(names)))


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"--classes {str(path)!r} is over {MAX_BYTES} bytes: no list of names")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--classes {str(path)!r} cannot be read: {error}") from None
    return [line.strip() for line in lines if line.strip()]
