"""Where an evaluation keeps its adversarial examples: all of them, or of a large set a sample."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.errors import UsageError
from purpleteam.data.images import ImageSet
from purpleteam.data.streamed import Spool, Streamed, fits

KEPT = 500  # examples that are kept of a set which does not fit in memory, evenly spread

Floats = NDArray[np.float32] | Streamed[np.float32]  # (N, H, W, C) in [0, 1]


class Examples:
    """Adversarial examples as they are made; an image that has none yet stands for itself.

    Of images that fit in memory all are kept, in memory. Of others those of `count` images are,
    evenly spread, in a temporary file where these are too many themselves.
    """

    def __init__(self, images: ImageSet, count: int = KEPT) -> None:
        self.array: Floats
        self._array: NDArray[np.float32] | Spool
        self.rows = np.arange(len(images))
        self._place = self.rows
        if fits(1, images.images.shape):
            self.array = self._array = as_floats(images)[:]
            return
        self.rows = spread(self.rows, count)
        self._place = np.full(len(images), -1)
        self._place[self.rows] = np.arange(len(self.rows))
        shape = images.images.shape
        self._array = Spool((len(self.rows), *shape[1:]), np.float32)
        self._made, self._clean = np.zeros(len(self.rows), np.bool_), as_floats(images)
        self.array = Streamed(self._read, shape, np.float32)

    def keeps(self, index: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say of which images the examples are kept."""
        return np.asarray(self._place[index] >= 0)

    def put(self, index: NDArray[np.int64], x_adv: NDArray[np.float32]) -> None:
        """Keep the examples (n, H, W, C) of images, all of which are to be kept."""
        if not isinstance(self._array, Spool):
            self._array[index] = x_adv
        elif len(index):
            self._array.write(self._place[index], x_adv)
            self._made[self._place[index]] = True

    def _read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        if not (kept := self.keeps(rows)).all():
            few = f"those of {len(self.rows)} of {len(self._place)} images are"
            remedy = f"evaluate(..., kept={len(self._place)}) keeps all, in a file"
            raise UsageError(f"adversarial example {rows[~kept][0]} is not kept, {few}: {remedy}")
        places = self._place[rows]
        out, made = self._clean[rows], self._made[places]
        if made.any():
            out[made] = self._array[places[made]]
        return out


def as_floats(images: ImageSet) -> Floats:
    """Return the images (N, H, W, C) in [0, 1]."""
    pixels = images.images
    if isinstance(pixels, Streamed):
        return pixels.mapped(_floats, pixels.shape[1:], np.float32)
    return _floats(pixels)


def _floats(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(pixels / np.float32(255), np.float32)


def put_in(base: Floats, rows: NDArray[np.int64], values: Floats) -> Floats:
    """Return examples with others in these rows, each of which is named once."""
    if isinstance(base, Streamed):
        return base.replaced(rows, values)
    base = base.copy()
    base[rows] = values[:]
    return base


def picked(array: Floats, rows: NDArray[np.int64]) -> Floats:
    """Return these rows; they are read when they are needed where the array is not held."""
    return array.take(rows) if isinstance(array, Streamed) else array[rows]


def spread(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return at most `count` rows, at even distances: sets are often sorted by class."""
    places = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(np.int64)
    return np.asarray(rows[places])
