"""What enters a net's last dense layer."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from purpleteam.core.errors import UsageError
from purpleteam.models.devices import device_of, frozen, to_batch

__all__ = ["penultimate"]

BATCH = 200


def penultimate(model: nn.Module, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the input (N, d) of the last dense layer for uint8 images (N, H, W, C).

    Raises:
        UsageError: the model has no dense layer.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise UsageError("the model has no dense layer whose input could be read")
    seen: list[Tensor] = []
    hook = layers[-1].register_forward_pre_hook(lambda _, given: seen.append(given[0].flatten(1)))
    try:
        with frozen(model) as net, torch.no_grad():
            for start in range(0, len(images), BATCH):
                net(to_batch(images[start : start + BATCH], device_of(model)))
    finally:
        hook.remove()
    return torch.cat(seen).float().cpu().numpy()
