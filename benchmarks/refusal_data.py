"""The images that the second net learns from, is chosen by and is measured with, by kind.

Each kind of each split is made once, from seeds alone, and then read from the cache. Fonts, shapes,
scribbles and blots of a split are in no other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
from figures import Random, spoiled
from non_digits import (
    DIGITS,
    STRANGE,
    Pixels,
    alike,
    coarse,
    drawn,
    kinds,
    make,
    printed,
    shape,
    written,
)
from numpy.typing import NDArray
from pen_paths import paths
from PIL import Image

from purpleteam.data.drawing import place
from purpleteam.data.images import ImageSet
from purpleteam.data.sources.mnist import find_mnist, load_mnist

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "refusal"
NONE = 10  # the class of what is no digit
SEEDS = {"train": 1, "validation": 2, "test": 3}
COUNTS = {  # images of each kind
    "train": {"digits": 75_000, "MNIST, turned": 55_000, "digits, printed": 6_000,
              "digits, drawn from print": 10_000, "digits, coarse": 12_000,
              "letters, coarse": 6_000, "digits, spoiled": 20_000, "letters, printed": 12_000,
              "letters, drawn": 30_000, "signs, printed": 5_000, "signs, drawn": 10_000,
              "shapes": 16_000, "figures": 40_000, "scribbles": 12_000, "blots": 8_000},
    "validation": {"digits": 5_000, "digits, coarse": 2_000, "digits, printed": 500,
                   "digits, drawn from print": 500, "letters, printed": 1_000,
                   "letters, drawn": 1_500, "shapes": 3_000, "scribbles": 1_000, "blots": 500},
    "test": {"digits": 10_000, "digits, printed": 1_000, "digits, drawn from print": 1_000,
             "letters, printed": 2_000, "letters, drawn": 2_000, "shapes": 2_000,
             "scribbles": 2_000, "blots": 2_000},
}  # fmt: skip
Pair = tuple[Pixels, NDArray[np.int64]]
Set = dict[str, Pair]


def mnist(split: str) -> ImageSet:
    """Return MNIST's images of a split."""
    return getattr(load_mnist(find_mnist()), split)


@cache
def data(split: str) -> Set:
    """Return images (N, 28, 28) and labels (N,) by kind; made once, then read from the cache."""
    found: Set = {}
    for kind, way in _ways(split).items():
        file = CACHE / split / f"{kind.replace(':', '')}.npz"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            images, labels = way()
            np.savez_compressed(file, images=images, labels=labels)
            print(split, kind, len(labels), flush=True)
        with np.load(file) as stored:
            found[kind] = stored["images"], stored["labels"]
    return found


def _ways(split: str) -> dict[str, Callable[[], Pair]]:
    """Return what makes the images and labels of each kind of a split."""
    counts, seed = COUNTS[split], SEEDS[split]
    found: dict[str, Callable[[], Pair]] = {
        "MNIST": lambda: _pair(mnist(split)),
        "digits, drawn": lambda: _drawn(split),
    }
    if "digits, coarse" in counts:
        found["digits, coarse"] = lambda: _coarse(split)
    if split == "train":
        found["MNIST, turned"] = lambda: _turned(split)
        found["digits, spoiled"] = lambda: _spoiled(split)
    for name, way in (("digits, printed", printed), ("digits, drawn from print", written)):
        found[name] = partial(_by_print, split, way, counts[name] // 10)
    others = kinds(split)
    if split == "test":
        others["look-alikes: letters and signs, printed"] = lambda rng: printed(alike(), split, rng)
        others["look-alikes: letters and signs, drawn"] = lambda rng: written(alike(), split, rng)
        others["look-alikes: shapes"] = lambda rng: shape("alike", rng)
        others["letters of scripts never taught, printed"] = lambda rng: printed(
            STRANGE, "train", rng
        )
        others["letters of scripts never taught, drawn"] = lambda rng: written(
            STRANGE, "train", rng
        )
    for name, one in others.items():
        found[name] = partial(_nothing, one, counts.get(name, 2_000), seed)
    return found


def _pair(images: ImageSet) -> Pair:
    return images.images[..., 0], images.labels


def _nothing(one: Callable[[Random], Pixels], count: int, seed: int) -> Pair:
    return make(one, count, seed), np.full(count, NONE)


def _drawn(split: str) -> Pair:
    """Digits of MNIST drawn again; where there are more than MNIST has, by several hands."""
    own, count, seed = mnist(split), COUNTS[split]["digits"], SEEDS[split]
    lines = paths(own.images[:count, ..., 0])
    chosen = [n for n in range(count) if lines[n % len(lines)]]
    again = [drawn(lines[n % len(lines)], np.random.default_rng((seed, n))) for n in chosen]
    return np.stack(again), own.labels[np.array(chosen) % len(lines)]


def _turned(split: str) -> Pair:
    """Digits of MNIST, each turned by up to 10 degrees."""
    own = mnist(split).first(COUNTS[split]["MNIST, turned"])
    angles = np.random.default_rng((SEEDS[split], 3)).uniform(-10, 10, len(own))

    def one(image: Pixels, angle: float) -> Pixels:
        large = Image.fromarray(image).resize((112, 112), Image.Resampling.BICUBIC)
        return place(np.array(large.rotate(angle, Image.Resampling.BICUBIC)))

    made = [one(*pair) for pair in zip(own.images[..., 0], angles.tolist(), strict=True)]
    return np.stack(made), own.labels


def _coarse(split: str) -> Pair:
    own = mnist(split).first(COUNTS[split]["digits, coarse"])
    each = (np.random.default_rng((SEEDS[split], n, 2)) for n in range(len(own)))
    made = [coarse(image, rng) for image, rng in zip(own.images[..., 0], each, strict=True)]
    return np.stack(made), own.labels


def _spoiled(split: str) -> Pair:
    """Digits of MNIST that are none any more."""
    count, seed = COUNTS[split]["digits, spoiled"], SEEDS[split]
    own = mnist(split).first(count)
    lines = [one or [[(0.0, 0.0)]] for one in paths(own.images[..., 0])]

    def one(number: int) -> Pixels:
        rng = np.random.default_rng((seed, number, 1))
        other = lines[rng.integers(len(lines))]
        return drawn(spoiled(lines[number], int(own.labels[number]), other, rng), rng)

    return np.stack([one(number) for number in range(count)]), np.full(count, NONE)


def _by_print(split: str, way: Callable[[str, str, Random], Pixels], each: int) -> Pair:
    seed = SEEDS[split]
    made = [make(partial(way, d, split), each, seed * 100 + k) for k, d in enumerate(DIGITS)]
    return np.concatenate(made), np.repeat(np.arange(10), each)


def one_set(parts: Set) -> ImageSet:
    """Return all kinds together."""
    images, labels = (np.concatenate([pair[n] for pair in parts.values()]) for n in (0, 1))
    return ImageSet(images[..., None], labels)
