"""The units of a net's last hidden features: how active they are, and how to silence one for good.

Found by watching a net run, so any module will do. The reader is the layer after the last
convolution, or the last layer of a net that ends in one or has none. A unit is one channel of
what it reads, however many numbers that is. Silenced are the reader's weights on a unit, which
state dicts keep; whatever lies between (normalisation, a sum, a pool) does not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from purpleteam.core.errors import UsageError
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import device_of, frozen, to_batch
from purpleteam.models.inference import CACHE_BATCH

__all__ = ["Units", "units_of"]


@dataclass(frozen=True, eq=False)
class Units:
    """The units that one layer reads, and their mean absolute activity (units,)."""

    reader: str
    """Name of the layer in its net."""
    activity: Tensor

    def silence(self, net: nn.Module, units: Tensor) -> None:
        """Set the reader's weights on `units` (indices) to 0, in place."""
        weight = net.get_submodule(self.reader).get_parameter("weight")  # (out, in, ...)
        with torch.no_grad():
            grouped = weight.reshape(len(weight), len(self.activity), -1).clone()
            grouped[:, units] = 0
            weight.copy_(grouped.reshape(weight.shape))


class _Watch:
    """What each layer of a net read in one run, in the order in which they ran."""

    def __init__(self, net: nn.Module) -> None:
        self.ran: list[tuple[str, nn.Module]] = []
        self.read: dict[str, Tensor] = {}
        self.hooks = [
            layer.register_forward_pre_hook(self._hook(name))
            for name, layer in net.named_modules()
            if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)
        ]

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self.ran.append((name, layer))
            self.read[name] = inputs[0].detach()

        return hook

    def close(self) -> None:
        for hook in self.hooks:
            hook.remove()


def units_of(net: nn.Module, images: ImageSet) -> Units:
    """Return the units of the last hidden features and their activity over `images`.

    Raises:
        UsageError: the net has no linear layer and no convolution.
    """
    watch, reader, totals = _Watch(net), "", []
    try:
        with frozen(net) as asked, torch.no_grad():
            for start in range(0, len(images), CACHE_BATCH):
                watch.ran.clear()
                asked(to_batch(images.images[start : start + CACHE_BATCH], device_of(net)))
                if not watch.ran:
                    raise UsageError("the model has no convolution and no linear layer to prune")
                (reader, layer), channels = _reader(watch.ran)
                totals.append(_activity(layer, watch.read[reader], channels).sum(0))
    finally:
        watch.close()
    return Units(reader, torch.stack(totals).sum(0) / len(images))


def _reader(ran: list[tuple[str, nn.Module]]) -> tuple[tuple[str, nn.Module], int]:
    """Return the reader and how many channels it reads, 0 where each number is a unit."""
    places = [place for place, (_, layer) in enumerate(ran) if isinstance(layer, nn.Conv2d)]
    if not places or places[-1] + 1 == len(ran):
        return ran[-1], 0
    return ran[places[-1] + 1], int(getattr(ran[places[-1]][1], "out_channels", 0))


def _activity(layer: nn.Module, features: Tensor, channels: int) -> Tensor:
    """Return the mean absolute activity (N, units) of what a layer read."""
    if isinstance(layer, nn.Conv2d):
        return features.abs().mean((2, 3))  # (N, C, H, W)
    width = features.shape[-1]
    rows = features.abs().reshape(len(features), -1, width).mean(1)  # (N, width)
    units = channels if channels and width % channels == 0 else width
    return rows.reshape(len(rows), units, -1).mean(2)
