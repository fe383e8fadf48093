"""A clean reference: a net that learns only from images whose label is not in doubt.

It begins without the images that the small subsets doubt, and takes back, round by round, those
whose label it would have given itself. A poisoned image never comes back, since nothing that the
net has learned from speaks for its label; a hard image comes back as soon as the net can read it.
Should a few poisons have slipped in and taught the trigger, those that the votes were sure of are
barred all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from purpleteam.core.progress import SILENT, Progress
from purpleteam.data.images import ImageSet
from purpleteam.defences.detection.training_set._margins import log_probabilities, margins
from purpleteam.models import build
from purpleteam.models.inference import logits
from purpleteam.models.recipes import Recipe
from purpleteam.models.training import train

__all__ = ["Reference", "learn_reference", "learn_set"]


@dataclass(frozen=True, kw_only=True)
class _ToTheEnd(Recipe):
    """No validation set is needed: the last epoch's weights are kept."""

    keep: ClassVar[Literal["best", "last"]] = "last"


@dataclass(frozen=True, eq=False)
class Reference:
    """What the clean reference says of the images that it never learned from.

    Attributes:
        suspects: places of the images that never came back, growing.
        margin: log probability of their label less that of the best other one, (S,).
        content: the label that the reference reads in them, other than their own, (S,).
    """

    module: nn.Module
    suspects: NDArray[np.int64]
    margin: NDArray[np.float64]
    content: NDArray[np.int64]


def learn_set(
    module: nn.Module,
    images: ImageSet,
    *,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
    augmentation: str = "none",
    device: torch.device | None = None,
    description: str = "train",
    progress: Progress = SILENT,
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
        barred: which of them stay so whatever the reference says, (N,).
        classes: number of classes.
        architecture: name of the net.
        epochs: passes over the images before the first round; each round is one more.
        rounds: how often images may come back.
        seed: start and order of the training.
        device: where to train.
        progress: where to report.
    """
    height, width, channels = images.images.shape[1:]
    module = build(architecture, (channels, height, width), classes, seed=seed)
    aside = np.flatnonzero(doubted)
    batch_size = 128 if len(images) >= 10_000 else 32
    for turn in range(rounds + 1):
        trusted = np.setdiff1d(np.arange(len(images)), aside)
        module = learn_set(
            module,
            images.take(trusted),
            epochs=epochs if turn == 0 else max(1, epochs // 3),
            learning_rate=2e-3 if turn == 0 else 1e-3,
            batch_size=batch_size,
            seed=seed + turn,
            augmentation="shift",
            device=device,
            description=f"clean reference {turn + 1}/{rounds + 1}",
            progress=progress,
        )
        said = np.zeros((0, classes))
        if len(aside):  # every doubted image may have come back
            said = log_probabilities(logits(module, images.images[aside]))
        margin, content = margins(said, images.labels[aside])
        if turn < rounds:
            aside = aside[(margin <= 0) | barred[aside]]
    return Reference(module, aside, margin, content)
