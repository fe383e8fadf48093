"""Features of images: pixels, random patches as filters, and a trained net's last hidden layer.

Random patches (Coates, Ng and Lee 2011, AISTATS) need no labels: a net that was trained on poisoned
labels has learned the trigger; filters cut from the images themselves have not, and cost seconds.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from purpleteam.core.errors import UsageError
from purpleteam.models.devices import device_of, frozen, to_batch

CUTS = 4000  # patches from which the whitening is estimated and the filters are drawn
FLAT = 0.02  # least deviation of a patch, in [0, 1]: flat ground is no filter
THRESHOLD = 0.5  # activations below it are cut off, which keeps the features sparse
MOST_PIXELS = 1200  # A covariance of this many columns still takes seconds
BATCH = 500
PENULTIMATE_BATCH = 200
CACHE_BATCH = 50  # images whose activations stay in the processor's cache; the bits are the same


def patch_features(
    images: NDArray[np.uint8],
    *,
    filters: int = 96,
    side: int = 6,
    pools: int = 3,
    stride: int = 2,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Return features (N, filters * pools ** 2) of uint8 images (N, H, W, C), standardised.

    Whitened random patches are correlated with the image, cut off at a threshold and averaged
    over a grid of `pools` by `pools` regions.
    """
    height, width = images.shape[1:3]
    side = max(1, min(side, height // 2, width // 2))
    weight, bias = _filters(images, filters, side, np.random.default_rng(seed))
    stride = min(stride, max(1, min(height, width) // (4 * side)))
    rows = []
    with torch.inference_mode():
        for start in range(0, len(images), CACHE_BATCH):
            batch = torch.from_numpy(images[start : start + CACHE_BATCH] / np.float32(255))
            batch = batch.permute(0, 3, 1, 2).contiguous()  # one channel as it lies: faster here
            response = F.conv2d(batch, weight, bias, stride=stride).sub_(THRESHOLD).relu_()
            rows.append(F.adaptive_avg_pool2d(response, pools).flatten(1).numpy())
    return standardised(np.concatenate(rows))


def pixel_features(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the pixels (N, d) in [0, 1] of uint8 images (N, H, W, C), d at most `MOST_PIXELS`.

    Larger images are averaged over cells of equal size.
    """
    height, width, channels = images.shape[1:]
    shrink = max(1.0, np.sqrt(height * width * channels / MOST_PIXELS))
    size = (max(1, int(height / shrink)), max(1, int(width / shrink)))
    rows = []
    for start in range(0, len(images), BATCH):
        batch = to_batch(images[start : start + BATCH])
        rows.append(F.adaptive_avg_pool2d(batch, size).flatten(1).numpy())
    return np.concatenate(rows)


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
            for start in range(0, len(images), PENULTIMATE_BATCH):
                net(to_batch(images[start : start + PENULTIMATE_BATCH], device_of(model)))
    finally:
        hook.remove()
    return torch.cat(seen).float().cpu().numpy()


def standardised(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the features (N, d) with mean 0 and deviation 1 in each column that varies."""
    centred = features - features.mean(0)
    return np.asarray(centred / np.maximum(centred.std(0), 1e-6))


def _filters(
    images: NDArray[np.uint8], filters: int, side: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    height, width, channels = images.shape[1:]
    picked = rng.integers(0, len(images), CUTS)
    rows, columns = rng.integers(0, (height - side + 1, width - side + 1), (CUTS, 2)).T
    inside = np.arange(side)
    cut = images[
        picked[:, None, None],
        (rows[:, None] + inside)[:, :, None],
        (columns[:, None] + inside)[:, None, :],
    ]  # (CUTS, side, side, C)
    patches = (cut.astype(np.float64) / 255).transpose(0, 3, 1, 2).reshape(CUTS, -1)
    inked = patches.std(1) > FLAT
    patches = patches[inked] if inked.sum() > filters else patches
    patches = patches - patches.mean(1, keepdims=True)
    mean = patches.mean(0)
    values, vectors = np.linalg.eigh(np.cov(patches.T).reshape(patches.shape[1], -1))
    whiten = (vectors / np.sqrt(np.maximum(values, 0) + 0.05)) @ vectors.T
    white = (patches - mean) @ whiten
    white /= np.maximum(np.linalg.norm(white, axis=1, keepdims=True), 1e-12)
    chosen = white[rng.choice(len(white), filters, replace=len(white) < filters)]
    kernel = chosen @ whiten
    bias = torch.from_numpy(-(kernel @ mean)).float()
    kernel -= kernel.mean(1, keepdims=True)  # a filter answers to shape, not to brightness
    weight = torch.from_numpy(kernel.reshape(filters, channels, side, side)).float()
    return weight, bias
