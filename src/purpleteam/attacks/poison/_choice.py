"""Chance, seeded per image by its place: the draw of one image knows nothing of the others.

So asking for more poisons keeps those that were there, and what is done to an image hangs on the
seed and its place alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def in_drawn_order(places: NDArray[np.int64], seed: int, stream: str) -> NDArray[np.int64]:
    """Return the places in an order drawn by the seed; of fewer places the order is the same."""
    keys = np.array([_key(seed, place, stream) for place in places.tolist()], np.uint64)
    return places[np.argsort(keys, kind="stable")]


def generator(seed: int, place: int, stream: str) -> np.random.Generator:
    """Return the random numbers of the image at `place`, for one use of them."""
    return np.random.default_rng(_key(seed, place, stream))


def generators(seed: int, places: Iterable[int], stream: str) -> list[np.random.Generator]:
    """Return the random numbers of each of the places."""
    return [generator(seed, int(place), stream) for place in places]


def _key(seed: int, place: int, stream: str) -> int:
    key = hashlib.sha256(f"{seed}/{place}/{stream}".encode()).digest()
    return int.from_bytes(key[:8], "big")
