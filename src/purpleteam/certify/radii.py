"""L2 radii within which a classifier's answers cannot change, and what they come to over images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from purpleteam.core.arrays import Floats, Ints
from purpleteam.core.errors import UsageError
from purpleteam.core.statistics import Estimate, Rate, mean

CURVE = tuple(quarter / 4 for quarter in range(17))  # radii at which papers compare: 0 to 4


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What is proved of one image."""

    label: int
    """The classifier's answer; where it abstained, only the likeliest."""
    radius: float
    """No change of a smaller L2 norm, in pixel units of [0, 1], moves the answer; 0 proves none."""
    abstained: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class RadiusCertificate:
    """The certificates of a classifier on images. An abstention counts as wrong."""

    method: str
    images: tuple[Certificate, ...]
    labels: Ints
    """True labels, (N,)."""
    classifier: str
    """Digest of what was certified: of weights, and of noise where that is part of it."""
    how: Mapping[str, Any]
    """Options of the method."""
    claim: Mapping[str, Any]
    """Complete or not, deterministic or not, which arithmetic (ISO/IEC 24029-2)."""
    seconds: float

    @property
    def radius(self) -> Floats:
        """The radius of each image that is answered right, else -1, (N,)."""
        pairs = zip(self.images, self.labels.tolist(), strict=True)
        right = (c.radius if c.label == y and not c.abstained else -1.0 for c, y in pairs)
        return np.fromiter(right, np.float64, len(self.images))

    @property
    def abstained(self) -> int:
        return sum(image.abstained for image in self.images)

    @property
    def clean_accuracy(self) -> Rate:
        """Fraction right on unchanged images."""
        return self.certified_accuracy(0)

    def certified_accuracy(self, radius: float) -> Rate:
        """Return the fraction that is right and stays so within an L2 radius, at least 0."""
        return Rate.of(self.counts(radius)["verified"], len(self.images))

    def counts(self, radius: float) -> dict[str, int]:
        """Return how many images are verified, falsified (wrong as they are) and unknown."""
        if not radius >= 0:
            raise UsageError(f"a certified radius is at least 0, not {radius}")
        verified, n = int((self.radius >= radius).sum()), len(self.images)
        wrong = n - int((self.radius >= 0).sum()) - self.abstained
        return {"verified": verified, "falsified": wrong, "unknown": n - verified - wrong}

    @property
    def average_radius(self) -> Estimate:
        """Mean radius, 0 where wrong (ACR, Zhai et al. 2020, arXiv:2001.02378)."""
        radii = self.radius.clip(0).tolist()
        return mean(radii, bounds=(0, float("inf")))

    def to_json(self, epsilons: Sequence[float]) -> dict[str, Any]:
        """Return the fields of `purple certify --json`; the largest of the epsilons leads."""
        most = max(epsilons)
        curve = sorted({*CURVE, *epsilons})
        return {
            "method": self.method,
            "epsilon": most,
            "norm": "l2",
            "certified_accuracy": self.certified_accuracy(most).to_json(),
            "clean_accuracy": self.clean_accuracy.to_json(),
            "counts": self.counts(most),
            "stages": [
                {"epsilon": at, "certified_accuracy": self.certified_accuracy(at).to_json()}
                | self.counts(at)
                for at in curve
            ],
            "average_radius": self.average_radius.to_json(),
            "abstained": self.abstained,
            **self.how,
            **self.claim,
            "classifier": self.classifier,
            "seconds": self.seconds,
        }
