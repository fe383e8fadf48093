"""When a drawing gets no label: a second net tells digits from other drawings.

A classifier gives a letter a label as readily as a digit, and surely (Hendrycks and Gimpel 2017,
arXiv:1610.02136). The second net has learnt from letters, shapes, scribbles and blots as an
eleventh class. A drawing's score is the logarithm of the probability that it is a digit, by the
second net, and that it is this digit, by the model. The model's card says from which score on its
label is told: each model has thresholds of its own, chosen on its own scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.digest import sha256_bytes
from purpleteam.core.errors import ModelError, Refused

NET = "digit_or_not.onnx"  # beside this file
DIGEST = "sha256:e2b8b41e00a0770630d9a2b495c0235d14529f9d8479a79520a8f747ae0701ef"
LEAST = 1e-30  # probability; a smaller one counts as this


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """From which scores on a model's label is told; all are at most 0."""

    sure: float  # from here on the label is the answer
    nearest: float  # from here on there is no label, but the nearest digit; below, nothing

    @classmethod
    def of(cls, values: Mapping[str, Any], name: str) -> Self:
        """Read what the card of the model `name` says; ModelError where it is amiss."""
        try:
            nearest, sure = float(values["nearest"]), float(values["sure"])
            digest = values["net"]
        except (KeyError, TypeError, ValueError):
            told = f"needs net, nearest and sure, and has {values}"
            raise ModelError(f"model card {name!r}: refusal {told}") from None
        if not nearest <= sure <= 0:
            found = f"nearest {nearest:g} and sure {sure:g}"
            raise ModelError(
                f"model card {name!r}: refusal needs nearest <= sure <= 0, not {found}"
            )
        if digest != DIGEST:
            other = f"{digest}, and this package has {DIGEST}"
            raise ModelError(f"model card {name!r}: its refusal was calibrated with {other}")
        return cls(sure=sure, nearest=nearest)


class DigitOrNot:
    """The second net, which every model shares."""

    def __init__(self, session: Any) -> None:
        self._session, self._input = session, str(session.get_inputs()[0].name)
        self._outputs = [str(session.get_outputs()[0].name)]

    def scores(self, batch: NDArray[np.float32], likely: Sequence[float]) -> list[float]:
        """Return the scores of images (N, 1, 28, 28), in [0, 1], and of their labels' probability.

        Each is at most 0, and no number where that probability is none.
        """
        found = self._session.run(self._outputs, {self._input: batch})[0].tolist()
        return [
            math.log(max(digit_share(logits), LEAST)) + math.log(max(share, LEAST))
            for logits, share in zip(found, likely, strict=True)
        ]


def digit_share(logits: Sequence[float]) -> float:
    """Return the share of the digits in the softmax of ten digits and `none`."""
    return sum(softmax(logits)[:-1])


def softmax(logits: Sequence[float]) -> tuple[float, ...]:
    """Return the probability of each class."""
    most = max(logits)
    shares = [math.exp(one - most) for one in logits]
    total = sum(shares)
    return tuple([one / total for one in shares])


def read_net() -> bytes:
    """Return the second net's bytes, those that were calibrated with."""
    content = (resources.files("purpleteam.serve") / NET).read_bytes()
    if (digest := sha256_bytes(content)) != DIGEST:
        raise Refused(f"{NET!r} is not the file of the package: {digest}")
    return content
