"""The classifier that an adversary with gradients works against: given, or trained on clean data.

What is crafted on it transfers, since the net that will be trained learns from the same images.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from purpleteam.attacks.poison._base import Context
from purpleteam.models.devices import device_of, to_batch
from purpleteam.models.loading import build
from purpleteam.models.recipes import RECIPES
from purpleteam.models.training import Craft, train

BATCH = 50
"""Images a call. Batches are always full, so that an image's numbers hang on nothing beside it."""
NEXT = 1_000_003
"""From the seed of one surrogate to that of the next."""


def surrogate(
    context: Context, architecture: str, epochs: int, craft: Craft | None = None, number: int = 0
) -> nn.Module:
    """Return the model that was given, or a net trained on the clean set with the context's seed.

    `craft` makes the training adversarial; of several nets each `number` has its own weights.
    """
    if context.model is not None:
        return context.model
    clean, seed = context.clean, context.seed + NEXT * number
    height, width, channels = clean.images.shape[1:]
    classes = int(clean.labels.max()) + 1
    net = build(architecture, (channels, height, width), classes, seed=seed)
    some = clean.first(min(500, len(clean)))  # only to choose between epochs
    recipe = RECIPES["plain"](epochs=epochs, precision="float32")
    return train(
        net,
        clean,
        some,
        recipe,
        seed=seed,
        craft=craft,
        description="train the surrogate",
        progress=context.progress,
    ).module


def surrogate_facts(context: Context, *models: nn.Module) -> dict[str, Any]:
    """Return what the manifest says about the surrogates."""
    digest = hashlib.sha256()
    for model in models:
        for name, value in model.state_dict().items():
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    whose = "trained on the clean set" if context.model is None else "given"
    return {"surrogate": {"whose": whose, "digest": f"sha256:{digest.hexdigest()}"}}


def in_batches(
    model: nn.Module, images: NDArray[np.uint8]
) -> list[tuple[NDArray[np.int64], Tensor]]:
    """Return full batches as (places, float (B, C, H, W)): the last repeats its first image."""
    batches = []
    for start in range(0, len(images), BATCH):
        places = np.arange(start, min(start + BATCH, len(images)))
        full = np.concatenate([places, np.full(BATCH - len(places), start)])
        batches.append((places, to_batch(images[full], device_of(model))))
    return batches


def as_bytes(x: Tensor) -> NDArray[np.uint8]:
    """Return float (N, C, H, W) in steps of 1/255 as uint8 (N, H, W, C)."""
    pixels: NDArray[np.uint8] = (
        (x.detach() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    )
    return pixels
