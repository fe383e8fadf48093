"""What every repair is: a frozen description, and a function from a bad net to a new one."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from purpleteam.core.errors import UsageError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.registry import Registry
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import lay_out, to_batch
from purpleteam.models.guard import switched
from purpleteam.models.recipes import Plain, Recipe

WORDS = {
    "net": "an architecture to build anew",
    "train": "the training set",
    "flagged": "flagged training images",
    "trusted": "trusted clean images",
    "trigger": "a recovered trigger",
}


class Stamp(Protocol):
    """Anything that puts a trigger on images, such as a recovered trigger."""

    def apply(self, x: Tensor) -> Tensor:
        """Return images (N, C, H, W) in [0, 1] with the trigger on them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Repairing:
    """What a repair works with; each repair names what it cannot do without."""

    model: nn.Module
    """The model to repair, which stays as it is."""
    net: Callable[[], nn.Module] | None = None
    """Makes the same architecture with starting weights, to train anew."""
    train: ImageSet | None = None
    """What the model was trained on, poisons included."""
    flagged: NDArray[np.int64] | None = None
    """Places in `train` that a detector takes for poisons; empty counts as missing."""
    trusted: ImageSet | None = None
    """Clean images with true labels; 100 do."""
    trigger: Stamp | None = None
    """What a model scan recovered."""
    target_label: int | None = None
    """The label that the trigger opens."""
    recipe: Recipe = field(default_factory=Plain)
    """How the model was trained."""
    validation: ImageSet | None = None
    """What a new training's best epoch is chosen by; without it, the trusted images."""
    seed: int = 0
    device: torch.device | None = None
    progress: Progress = SILENT

    def missing(self, needs: tuple[str, ...]) -> list[str]:
        """Return in words those of `needs` that are not here."""
        parts = {name: getattr(self, name) for name in needs}
        return [
            WORDS[name]
            for name, part in parts.items()
            if part is None or (isinstance(part, np.ndarray | ImageSet) and not len(part))
        ]


@dataclass(frozen=True, kw_only=True)
class Repair:
    """Makes a new net without the backdoor from one that may hold it."""

    name: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ("trusted",)
    """Names of what it cannot do without."""

    @final
    def repair(self, work: Repairing) -> nn.Module:
        """Return the repaired net in eval mode, a pure function of `work` and its seed.

        The given model is not changed.

        Raises:
            UsageError: something that this repair needs is missing.
        """
        if missing := work.missing(self.needs):
            others = [name for name, part in REPAIRS.items() if not work.missing(part.needs)]
            raise UsageError(
                f"repair {self.name!r} needs {' and '.join(missing)}; "
                f"with what is given: {', '.join(others) or 'none'}"
            )
        wanted_gradients = [weight.requires_grad for weight in work.model.parameters()]
        net = free_copy(work.model, work.device, work.trusted or work.train)
        mended = switched(self.mend(net, work))
        for weight, wanted in zip(mended.parameters(), wanted_gradients, strict=True):
            weight.requires_grad_(wanted)
            weight.grad = None
        return mended

    @abstractmethod
    def mend(self, net: nn.Module, work: Repairing) -> nn.Module:
        """Return the repaired net; `net` is a copy of the model, free to be changed."""


REPAIRS: Registry[type[Repair]] = Registry("repair")


def free_copy(model: nn.Module, device: torch.device | None, images: ImageSet | None) -> nn.Module:
    """Return a copy in eval mode whose weights may all be changed, laid out for speed.

    `images` are such as it takes; without any it stays laid out as it is.
    """
    net = switched(copy.deepcopy(model)).requires_grad_(True)
    net.to(device or torch.device("cpu"))
    if images is not None:
        lay_out(net, to_batch(images.images[:2]))
    return net
