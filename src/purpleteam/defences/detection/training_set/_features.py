"""Features of images, and the votes of learners on small disjoint parts of them.

Random patches as filters (Coates, Ng and Lee 2011, AISTATS) need no labels and learn no trigger.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from purpleteam.core.arrays import Floats, Ints, Pixels, Singles
from purpleteam.core.errors import UsageError
from purpleteam.models.devices import device_of, frozen, to_batch

CUTS = 4000  # patches from which the whitening is estimated and the filters are drawn
FLAT = 0.02  # least deviation of a patch, in [0, 1]: flat ground is no filter
THRESHOLD = 0.5  # activations below it are cut off, which keeps the features sparse
MOST_PIXELS = 1200  # A covariance of this many columns still takes seconds
BATCH = 200
CACHE_BATCH = 50  # images whose activations stay in the processor's cache; the bits are the same
RIDGE = 0.1  # ridge in units of the mean squared length of a row
CLIP = 3.0  # deviations at which a feature is cut: a rare one would decide alone in its part
AT_ONCE = 20  # learners that are asked in one product
ROWS = 5000


def patch_features(
    images: Pixels,
    *,
    filters: int = 96,
    side: int = 6,
    pools: int = 3,
    stride: int = 2,
    seed: int = 0,
) -> Singles:
    """Return features (N, filters * pools ** 2) of uint8 images (N, H, W, C), standardised."""
    height, width, channels = images.shape[1:]
    side, rng = max(1, min(side, height // 2, width // 2)), np.random.default_rng(seed)
    picked = rng.integers(0, len(images), CUTS)
    rows, columns = rng.integers(0, (height - side + 1, width - side + 1), (CUTS, 2)).T
    windows = np.lib.stride_tricks.sliding_window_view(images, (side, side), (1, 2))
    patches = windows[picked, rows, columns].reshape(CUTS, -1) / 255.0  # by channel, row, column
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
    stride = min(stride, max(1, min(height, width) // (4 * side)))
    pooled = []
    with torch.inference_mode():
        for start in range(0, len(images), CACHE_BATCH):
            batch = torch.from_numpy(images[start : start + CACHE_BATCH] / np.float32(255))
            batch = batch.permute(0, 3, 1, 2).contiguous()  # one channel as it lies: faster here
            response = F.conv2d(batch, weight, bias, stride=stride).sub_(THRESHOLD).relu_()
            pooled.append(F.adaptive_avg_pool2d(response, pools).flatten(1).numpy())
    features = np.concatenate(pooled)
    centred = features - features.mean(0)
    return np.asarray(centred / np.maximum(centred.std(0), 1e-6))


def pixel_features(images: Pixels) -> Singles:
    """Return the pixels (N, d) in [0, 1] of uint8 images, shrunk to `MOST_PIXELS` at most."""
    height, width, channels = images.shape[1:]
    shrink = max(1.0, np.sqrt(height * width * channels / MOST_PIXELS))
    size = (max(1, int(height / shrink)), max(1, int(width / shrink)))
    rows = []
    for start in range(0, len(images), BATCH):
        batch = to_batch(images[start : start + BATCH])
        rows.append(F.adaptive_avg_pool2d(batch, size).flatten(1).numpy())
    return np.concatenate(rows)


def penultimate(model: nn.Module, images: Pixels) -> Singles:
    """Return the input (N, d) of the last dense layer for uint8 images (N, H, W, C)."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise UsageError("the model has no dense layer whose input could be read")
    seen: list[Tensor] = []
    hook = layers[-1].register_forward_pre_hook(lambda _, given: seen.append(given[0].flatten(1)))
    with hook, frozen(model) as net, torch.no_grad():
        for start in range(0, len(images), BATCH):
            net(to_batch(images[start : start + BATCH], device_of(model)))
    return torch.cat(seen).float().cpu().numpy()


def margins(table: NDArray[np.floating], labels: Ints) -> tuple[Floats, Ints]:
    """Return each row's score of its label less the best other (N,), and which that is (N,)."""
    rows = np.arange(len(labels))
    others = table.astype(np.float64)
    own = others[rows, labels]
    others[rows, labels] = -np.inf
    rival = others.argmax(1)
    return own - others[rows, rival], rival


def out_of_part_votes(
    features: Singles, labels: Ints, classes: int, parts: int, seed: int
) -> Floats:
    """Return for each row (N, d) the shares (N, K) of the votes of all random parts but its own."""
    part = np.empty(len(labels), np.int64)
    part[np.random.default_rng(seed).permutation(len(labels))] = np.arange(len(labels)) % parts
    constant = np.ones((len(labels), 1), np.float32)
    rows = np.concatenate([np.clip(features, -CLIP, CLIP), constant], 1)
    rows /= np.sqrt(np.float32(rows.shape[1]))
    weights = []  # (d + 1, K) of each part, by the dual, for centred one-hot labels
    for k in range(parts):
        own = rows[part == k]
        wanted = np.eye(classes, dtype=np.float32)[labels[part == k]] - np.float32(1 / classes)
        kernel = own @ own.T
        ridge = np.float32(RIDGE) * max(kernel.trace() / len(own), 1e-6)
        kernel[np.diag_indices_from(kernel)] += ridge
        weights.append(own.T @ np.linalg.solve(kernel, wanted))
    counts = torch.zeros(len(labels), classes)
    asked, home = torch.from_numpy(rows), torch.from_numpy(part)
    for first in range(0, parts, AT_ONCE):
        some = torch.from_numpy(np.stack(weights[first : first + AT_ONCE], 1))  # (d + 1, P, K)
        for start in range(0, len(labels), ROWS):
            block = slice(start, start + ROWS)
            answers = asked[block] @ some.flatten(1)
            votes = F.one_hot(answers.reshape(-1, *some.shape[1:]).argmax(2), classes)  # (n, P, K)
            other = home[block, None] != first + torch.arange(some.shape[1])
            counts[block] += (votes * other[:, :, None]).sum(1)  # no vote on its own
    return (counts / counts.sum(1, keepdim=True)).double().numpy()
