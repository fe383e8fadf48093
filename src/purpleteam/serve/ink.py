"""Which images are no digit at all, told from their ink before the net is asked.

A net must answer with one of its classes, whatever it is shown. Three plain rules send away
what is clearly no digit: a full page, noise, an inverted or an almost blank image. They know
nothing of shapes, so a scribble passes them; what the net is unsure of is refused afterwards.
Each limit lies outside what at least 99.9 % of the MNIST images show.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Reason", "refuse"]

Reason = Literal["empty", "not_a_digit", "triggered"]
"""Why there is no label; the last is no matter of ink, but of `defences.detection.strip`."""

FAINT = 32
"""Below this brightness everywhere, nothing was drawn."""
INKED = 128
"""A pixel at least this bright counts as ink."""
LEAST, MOST = 0.01, 0.35
"""Share of the pixels that a digit inks."""
EXTENT = 24
"""Most rows, and most columns, that a digit reaches over; it is placed in a box of 20."""
COHERENCE = 1.3
"""Fewest inked pixels among the four neighbours of an inked one, on average; strokes have 3."""


def refuse(image: NDArray[np.uint8]) -> Reason | None:
    """Return why this image (28, 28) is no digit, or None where it may be one."""
    if image.max() < FAINT:
        return "empty"
    ink = image >= INKED  # (28, 28)
    if not LEAST <= ink.mean() <= MOST:
        return "not_a_digit"
    if max(_extent(ink, axis=0), _extent(ink, axis=1)) > EXTENT:
        return "not_a_digit"
    return "not_a_digit" if _coherence(ink) < COHERENCE else None


def _extent(ink: NDArray[np.bool_], axis: int) -> int:
    inked = np.flatnonzero(ink.any(axis=axis))
    return int(inked[-1] - inked[0]) + 1


def _coherence(ink: NDArray[np.bool_]) -> float:
    beside = np.sum(ink[:, 1:] & ink[:, :-1]) + np.sum(ink[1:] & ink[:-1])
    return float(2 * beside / ink.sum())
