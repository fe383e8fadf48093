"""Learners that contradict labels: votes of small disjoint parts, and a clean reference net.

The reference learns only from images whose label is not in doubt. It begins without the images
that the votes doubt, and takes back, round by round, those whose label it predicts itself. A
poisoned image does not come back, since nothing that the net has learned from speaks for its label;
a hard image comes back as soon as the net classifies it. Should a few poisons have slipped in and
taught the trigger, those that the votes were sure of stay out all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from purpleteam.core.progress import SILENT, Progress
from purpleteam.data.images import ImageSet
from purpleteam.models import build
from purpleteam.models.inference import logits
from purpleteam.models.recipes import Recipe
from purpleteam.models.training import train

RIDGE = 0.1
"""Ridge in units of the mean squared length of a row."""
CLIP = 3.0
"""Deviations at which a feature is cut: a rare one would decide alone in its part."""
AT_ONCE = 20
"""Learners that are asked in one product."""
ROWS = 5000


@dataclass(frozen=True, kw_only=True)
class _ToTheEnd(Recipe):
    """No validation set is needed: the last epoch's weights are kept."""

    keep: ClassVar[Literal["best", "last"]] = "last"


@dataclass(frozen=True, eq=False)
class Reference:
    """What the clean reference predicts for the images that it never learned from."""

    module: nn.Module
    suspects: NDArray[np.int64]
    """Places of the images that never came back, growing."""
    margin: NDArray[np.float64]
    """Log probability of their label less that of the best other one, (S,)."""
    content: NDArray[np.int64]
    """The most probable label other than their own, (S,)."""


def margins(
    table: NDArray[np.floating], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return each row's score of its label less the best other (N,), and which that is (N,)."""
    rows = np.arange(len(labels))
    others = table.astype(np.float64)
    own = others[rows, labels]
    others[rows, labels] = -np.inf
    rival = others.argmax(1)
    return own - others[rows, rival], rival


def log_probabilities(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return log softmax (N, K) of logits (N, K)."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def out_of_part_votes(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    classes: int,
    *,
    parts: int,
    seed: int,
) -> NDArray[np.float64]:
    """Return for each row the shares (N, K) of the votes of all parts but its own.

    The rows (N, d) are dealt at random into `parts` of equal size; a ridge classifier learns each.

    Raises:
        ValueError: there are fewer than two parts, or more parts than rows.
    """
    if not 2 <= parts <= len(labels):
        raise ValueError(f"parts must be 2 to {len(labels)}, not {parts}")
    part = np.empty(len(labels), np.int64)
    part[np.random.default_rng(seed).permutation(len(labels))] = np.arange(len(labels)) % parts
    rows = np.concatenate(
        [np.clip(features, -CLIP, CLIP), np.ones((len(labels), 1), np.float32)], 1
    )
    rows /= np.sqrt(np.float32(rows.shape[1]))
    weights = [_ridge(rows[part == k], labels[part == k], classes) for k in range(parts)]
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


def _ridge(
    rows: NDArray[np.float32], labels: NDArray[np.int64], classes: int
) -> NDArray[np.float32]:
    """Return the weights (d, K) of a ridge regression on centred one-hot labels, by its dual."""
    wanted = np.eye(classes, dtype=np.float32)[labels] - np.float32(1 / classes)
    kernel = rows @ rows.T
    kernel[np.diag_indices_from(kernel)] += np.float32(RIDGE) * max(
        kernel.trace() / len(rows), 1e-6
    )
    return np.asarray(rows.T @ np.linalg.solve(kernel, wanted))


def learn_set(
    module: nn.Module,
    images: ImageSet,
    *,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
    augmentation: str,
    device: torch.device | None,
    description: str,
    progress: Progress,
) -> nn.Module:
    """Train `module` in place on all the images, with no validation, and return it."""
    recipe = _ToTheEnd(
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        augmentation=augmentation,
    )
    return train(
        module,
        images,
        images,
        recipe,
        seed=seed,
        validate=lambda _: 0.0,
        device=device,
        description=description,
        progress=progress,
    ).module


def learn_reference(
    images: ImageSet,
    doubted: NDArray[np.bool_],
    barred: NDArray[np.bool_],
    classes: int,
    *,
    architecture: str,
    epochs: int,
    rounds: int,
    seed: int,
    device: torch.device | None = None,
    progress: Progress = SILENT,
) -> Reference:
    """Train the reference on what is not doubted, then `rounds` times on what came back as well.

    Args:
        images: the training set under suspicion.
        doubted: which labels are in doubt at first, (N,).
        barred: which of them stay so whatever the reference predicts, (N,).
        classes: number of classes.
        architecture: name of the net.
        epochs: passes over the images before the first round; each round is a third of them.
        rounds: how often images may come back.
        seed: start and order of the training.
        device: where to train.
        progress: where to report.
    """
    height, width, channels = images.images.shape[1:]
    module = build(architecture, (channels, height, width), classes, seed=seed)
    aside = np.flatnonzero(doubted)
    for turn in range(rounds + 1):
        module = learn_set(
            module,
            images.take(np.setdiff1d(np.arange(len(images)), aside)),
            epochs=epochs if turn == 0 else max(1, epochs // 3),
            learning_rate=2e-3 if turn == 0 else 1e-3,
            batch_size=128 if len(images) >= 10_000 else 32,
            seed=seed + turn,
            augmentation="shift",
            device=device,
            description=f"clean reference {turn + 1}/{rounds + 1}",
            progress=progress,
        )
        scores = np.zeros((0, classes))
        if len(aside):  # every doubted image may have come back
            scores = log_probabilities(logits(module, images.images[aside]))
        margin, content = margins(scores, images.labels[aside])
        if turn < rounds:
            aside = aside[(margin <= 0) | barred[aside]]
    return Reference(module, aside, margin, content)
