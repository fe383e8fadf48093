"""How one perturbation for all images is fitted: on random mini-batches of another split."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from purpleteam.attacks.driver import Driver
from purpleteam.attacks.search import Cost, Search
from purpleteam.core.errors import UsageError
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import device_of, frozen, to_batch
from purpleteam.models.inference import Classifier
from purpleteam.models.nets import Nets

MINI_BATCH = 128
ENOUGH = 9.0
"""Loss beyond which an image is broken for good: it must not outweigh those that still stand."""


def mini_batches(
    model: Classifier,
    images: ImageSet,
    norm: str,
    count: int,
    rng: np.random.Generator,
    samples: int,
) -> Iterator[Driver]:
    """Yield the model as seen on random mini-batches; no image is ever dropped."""
    search = Search(
        epsilon=float("inf"), norm=norm, nearest=True, stop_inside=False, samples=samples
    )
    device = device_of(model)
    with frozen(model):
        nets = Nets.of(model, to_batch(images.images[:4], device))
        for _ in range(count):
            rows = rng.choice(len(images), min(MINI_BATCH, len(images)), replace=False)
            x = to_batch(images.images[rows], device)
            y = torch.from_numpy(images.labels[rows]).to(device)
            yield Driver(nets, x, y, search, Cost())


def capped_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy, cut off where more of it would gain nothing (arXiv:1811.11304)."""
    return F.cross_entropy(logits, y, reduction="none").clamp_max(ENOUGH)


def not_fitted(name: str) -> UsageError:
    """Return the error of an attack that is run before it was fitted."""
    return UsageError(
        f"attack {name!r} is the same for all images, so it is fitted before it is run, on other "
        f"images than those it is judged on: ATTACKS[{name!r}](...).prepare(model, images)"
    )
