"""Fine-pruning (Liu et al. 2018, arXiv:1805.12185): silence units that clean images leave idle.

A unit is a channel of what the reader reads: the layer after the last convolution, or the last.
"""

from __future__ import annotations

import copy
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from purpleteam.core.errors import UsageError
from purpleteam.data.images import ImageSet
from purpleteam.defences.repair import REPAIRS, Repairing, Tuning, held_out, part_of
from purpleteam.models.devices import device_of, frozen, to_batch
from purpleteam.models.inference import CACHE_BATCH, correct


@part_of(REPAIRS, "fine_prune")
class FinePrune(Tuning):
    """Silences the least active units while accuracy holds, then fine-tunes the rest."""

    ranges = "loss_of_accuracy at least 0 and below 1"

    loss_of_accuracy: float = 0.04
    """How much accuracy on the trusted images pruning may cost before fine-tuning."""

    def mend(self, net: nn.Module, work: Repairing) -> nn.Module:
        images, _ = held_out(work, self.held_out)
        units, pruned = prune(net, images, self.loss_of_accuracy)
        return self.fine_tune(net, work, after_step=lambda net: units.silence(net, pruned))


def prune(net: nn.Module, images: ImageSet, loss_of_accuracy: float) -> tuple[Units, Tensor]:
    """Silence the least active units, as many as cost up to this; return all and those."""
    units = units_of(net, images)
    order = units.activity.argsort(stable=True)
    floor = float(correct(net, images).mean()) - loss_of_accuracy
    low, high = 0, len(order)
    while high - low > 1:
        middle = (low + high) // 2
        tried = copy.deepcopy(net)
        units.silence(tried, order[:middle])
        enough = float(correct(tried, images).mean()) >= floor
        low, high = (middle, high) if enough else (low, middle)
    units.silence(net, order[:low])
    return units, order[:low]


@dataclass(frozen=True, eq=False)
class Units:
    """The units that one layer reads, and their mean absolute activity (units,)."""

    reader: str  # name of the layer in its net
    activity: Tensor

    def silence(self, net: nn.Module, units: Tensor) -> None:
        """Set the reader's weights on `units` (indices) to 0, in place."""
        weight = net.get_submodule(self.reader).get_parameter("weight")  # (out, in, ...)
        with torch.no_grad():
            grouped = weight.reshape(len(weight), len(self.activity), -1).clone()
            grouped[:, units] = 0
            weight.copy_(grouped.reshape(weight.shape))


def units_of(net: nn.Module, images: ImageSet) -> Units:
    """Return the units of the last hidden features and their activity over `images`."""
    ran: list[tuple[str, nn.Module, Tensor]] = []  # in the order in which they ran, with inputs
    name, totals = "", []

    def note(name: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        ran.append((name, layer, inputs[0].detach()))

    with ExitStack() as hooks, frozen(net) as asked, torch.no_grad():
        for name, layer in net.named_modules():
            if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1):
                hooks.enter_context(layer.register_forward_pre_hook(partial(note, name)))
        for start in range(0, len(images), CACHE_BATCH):
            ran.clear()
            asked(to_batch(images.images[start : start + CACHE_BATCH], device_of(net)))
            if not ran:
                raise UsageError("the model has no convolution and no linear layer to prune")
            place, channels = len(ran) - 1, 0
            for number, (_, layer, _) in enumerate(ran[:-1]):
                if isinstance(layer, nn.Conv2d):
                    place, channels = number + 1, layer.out_channels
            name, layer, features = ran[place]
            if isinstance(layer, nn.Conv2d):
                activity = features.abs().mean((2, 3))  # (N, units)
            else:
                width = features.shape[-1]
                rows = features.abs().reshape(len(features), -1, width).mean(1)  # (N, width)
                units = channels if channels and width % channels == 0 else width
                activity = rows.reshape(len(rows), units, -1).mean(2)
            totals.append(activity.sum(0))
    return Units(name, torch.stack(totals).sum(0) / len(images))
