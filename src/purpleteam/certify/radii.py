"""Radii within which a classifier's answers cannot change, and attacks on what they claim."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from purpleteam.attacks.evasion import EvasionAttack
from purpleteam.core.arrays import Floats, Ints
from purpleteam.core.errors import UsageError
from purpleteam.core.statistics import Estimate, Rate, mean
from purpleteam.data.images import ImageSet
from purpleteam.data.streamed import CHUNK
from purpleteam.models.devices import device_of, to_batch
from purpleteam.models.guard import Classifier, guarded

CURVE = tuple(quarter / 4 for quarter in range(17))  # radii at which papers compare


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What is proved of one image: no change shorter than `radius` moves the answer."""

    label: int  # where it abstained, only the likeliest
    radius: float  # in pixel units of [0, 1]
    abstained: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class RadiusCertificate:
    """The certificates of a classifier on images. An abstention counts as wrong."""

    images: tuple[Certificate, ...]
    labels: Ints
    """True labels, (N,)."""
    how: Mapping[str, Any]
    """Method, norm, options, and what is claimed in the words of ISO/IEC 24029-2."""
    classifier: str
    """Digest of what was certified: of weights, and of the noise where it is part of that."""
    seconds: float

    @cached_property
    def radius(self) -> Floats:
        """The radius of each image that is answered right, else -1, (N,)."""
        pairs = zip(self.images, self.labels.tolist(), strict=True)
        return np.array([c.radius if c.label == y and not c.abstained else -1.0 for c, y in pairs])

    def certified_accuracy(self, radius: float) -> Rate:
        """Return the fraction that is right, and stays so within a radius of at least 0."""
        return Rate.of(self.counts(radius)["verified"], len(self.images))

    def counts(self, radius: float) -> dict[str, int]:
        """Return how many images are verified, falsified (wrong as they are) and unknown."""
        if not radius >= 0:
            raise UsageError(f"a certified radius is at least 0, not {radius}")
        verified = int((self.radius >= radius).sum())
        unknown = len(self.images) - verified - self.wrong
        return {"verified": verified, "falsified": self.wrong, "unknown": unknown}

    @cached_property
    def wrong(self) -> int:
        """How many of the falsified are wrong as they are, without a change: all."""
        answered = np.array([not image.abstained for image in self.images])
        return int(((self.radius < 0) & answered).sum())

    @property
    def average_radius(self) -> Estimate:
        """Mean radius, 0 where wrong (ACR, Zhai et al. 2020, arXiv:2001.02378)."""
        return mean(self.radius.clip(0).tolist(), bounds=(0, float("inf")))

    def to_json(self, epsilons: Sequence[float]) -> dict[str, Any]:
        """Return the fields of `purple certify --json`; the largest of the epsilons leads."""

        def at(radius: float) -> dict[str, Any]:
            accuracy = self.certified_accuracy(radius).to_json()
            counts = self.counts(radius)
            return {"epsilon": radius, "certified_accuracy": accuracy, "counts": counts}

        return {
            **self.how,
            **at(max(epsilons)),
            "clean_accuracy": self.certified_accuracy(0).to_json(),
            "stages": [at(radius) for radius in sorted({*CURVE, *epsilons})],
            "average_radius": self.average_radius.to_json(),
            "wrong": self.wrong,
            "abstained": sum(image.abstained for image in self.images),
            "classifier": self.classifier,
            "seconds": self.seconds,
        }


def contradictions(
    images: ImageSet,
    certificate: RadiusCertificate,
    attack: EvasionAttack,
    attacked: Classifier,
    answer: Callable[[Tensor, Sequence[int]], Sequence[int | None]] | None = None,
    *,
    seed: int = 0,
) -> tuple[int, ...]:
    """Attack each image whose radius is above the attack's epsilon; return which are answered anew.

    The certified label is held for right, whatever the true one is. `attacked` is the certified
    classifier as an attack sees it; `answer` is what counts, where that is not its own: labels of
    images (N, C, H, W) of an index (N,), None where it abstains. A sound certificate leaves none.
    """
    if attack.norm != (norm := certificate.how["norm"]):
        raise UsageError(f"the radii are in {norm}, the attack is in {attack.norm}")
    held = certificate.images
    index = [i for i, c in enumerate(held) if not c.abstained and c.radius > attack.epsilon]
    if not index:
        return ()
    device, step = device_of(attacked), max(1, CHUNK // (4 * math.prod(images.images.shape[1:])))
    anew = list[int]()
    for start in range(0, len(index), step):
        some = index[start : start + step]
        labels = [held[i].label for i in some]
        x, y = to_batch(images.images[some], device), torch.tensor(labels, device=device)
        x_adv = attack(attacked, x, y, seed=seed, index=torch.tensor(some))
        found = answer(x_adv, some) if answer else guarded(attacked)(x_adv).argmax(1).tolist()
        pairs = zip(some, labels, found, strict=True)
        anew += [i for i, label, new in pairs if new not in (None, label)]
    return tuple(anew)
