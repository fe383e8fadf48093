"""Shadow models: trained as the model is, each on a random half of a pool of images.

So each image of the pool was learned by half of them (Carlini et al. 2022, arXiv:2112.03570), and
what they answer on it tells how a model answers that has, and that has not, learned it.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import nn

from purpleteam.core.arrays import Bools, Ints, Singles
from purpleteam.core.digest import sha256_bytes
from purpleteam.core.errors import UsageError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.data.images import ImageSet
from purpleteam.models.inference import logits

LEAST = 2  # shadow models: one that learned an image, and one that did not
COST = 3.0  # trainings of the model that all shadow models together may cost
LEAST_POOL = 40  # images: fewer teach a half of them nothing

TrainOne = Callable[[ImageSet, int], nn.Module]
"""Trains a new net on images, with a seed."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Images of which some were learned by the model and the others were not.

    Attributes:
        images: N images with their labels; no order tells which are members.
        member: (N,), whether the model has learned it.
    """

    images: ImageSet
    member: Bools

    @classmethod
    def of(cls, learned: ImageSet, others: ImageSet, *, shadows: int, seed: int) -> "Pool":
        """Return a pool of both on whose halves so many shadow models cost at most three trainings.

        It holds at most as many others as members; a random part of each, drawn by the seed.
        """
        most = max(LEAST_POOL, int(2 * COST * len(learned) / shadows))
        count = min(len(others), most // 2)
        rng = np.random.default_rng([seed, 1])
        chosen = (
            rng.permutation(len(learned))[: most - count],
            rng.permutation(len(others))[:count],
        )
        if min(map(len, chosen)) < LEAST_POOL // 2:
            had = f"{len(chosen[0])} learned and {len(chosen[1])} other images"
            raise UsageError(f"membership needs {LEAST_POOL // 2} images of each kind, not {had}")
        parts = [
            part.take(np.sort(rows)) for part, rows in zip((learned, others), chosen, strict=True)
        ]
        order = rng.permutation(sum(map(len, parts)))
        pixels = np.concatenate([np.asarray(part.images) for part in parts])[order]
        labels = np.concatenate([part.labels for part in parts])[order]
        return cls(ImageSet(pixels, labels), order < len(parts[0]))

    def judged(self, seed: int) -> Ints:
        """Return the places of as many members as others, drawn by the seed, in order."""
        rng, count = np.random.default_rng([seed, 2]), min(self.member.sum(), (~self.member).sum())
        both = (np.flatnonzero(part) for part in (self.member, ~self.member))
        return np.sort(np.concatenate([rng.permutation(rows)[:count] for rows in both]))


@dataclass(frozen=True, eq=False)
class Shadows:
    """What shadow models answer on a pool, and which images each learned.

    Attributes:
        scores: float32 logits (S, N, classes).
        inside: (S, N), whether a shadow model learned an image: each image, half of them.
    """

    scores: Singles
    inside: Bools
    seconds: float

    def __len__(self) -> int:
        return len(self.scores)


def check_count(count: int) -> None:
    """Refuse a number of shadow models that are no pairs."""
    if count < LEAST or count % 2:
        raise UsageError(f"shadow models must be an even number from {LEAST}, not {count}")


def halves(images: int, count: int, seed: int) -> Bools:
    """Return (count, images): which images each of an even number of shadow models learns.

    Each image is learned by exactly half of them, and each pair of them halves the images at
    random, a function of the numbers alone.
    """
    check_count(count)
    rng = np.random.default_rng([seed, 3])
    inside = np.zeros((count, images), bool)
    for pair in range(count // 2):
        inside[2 * pair, rng.permutation(images)[: images // 2]] = True
        inside[2 * pair + 1] = ~inside[2 * pair]
    return inside


def train_shadows(
    pool: ImageSet,
    train_one: TrainOne,
    *,
    count: int,
    seed: int,
    folder: Path | None = None,
    budget_seconds: float | None = None,
    progress: Progress = SILENT,
) -> Shadows:
    """Train shadow models on halves of a pool; keep their answers on all of it, and no weights.

    Args:
        pool: N images.
        train_one: trains a new net on a half, with the seed of its number.
        count: an even number of them, each two of which learn two halves.
        seed: of the halves and of the trainings.
        folder: where answers are kept, a file each, so that what is there is not done again; it
            must be of these very trainings.
        budget_seconds: stop before a pair that would, as long as the last, go beyond it; one pair
            is trained in any case.
        progress: where to report.
    """
    inside, started = halves(len(pool), count, seed), time.perf_counter()
    answers: list[Singles] = []
    with progress.task("shadow models", count) as task:
        for number in range(count):
            begun = time.perf_counter()
            if budget_seconds is not None and number and number % 2 == 0:
                last = 2 * (begun - started) / number
                if begun - started + last > budget_seconds:
                    break
            path = None if folder is None else folder / f"shadow-{number}.safetensors"
            scores = None if path is None else _read(path)
            if scores is None or len(scores) != len(pool):
                net = train_one(pool.take(np.flatnonzero(inside[number])), seed + number)
                scores = logits(net, pool.images)
                if path is not None:
                    _write(path, scores)
            answers.append(scores)
            task.advance(1)
    done = len(answers)
    return Shadows(np.stack(answers), inside[:done], time.perf_counter() - started)


def _write(path: Path, scores: Singles) -> None:
    """Write answers with their digest, in one step; without room the work goes on without them."""
    fresh = path.with_suffix(".tmp")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(save({"scores": scores}, {"digest": sha256_bytes(scores.tobytes())}))
        fresh.replace(path)


def _read(path: Path) -> Singles | None:
    """Return the answers in a file; None where it is not there, or not whole."""
    try:
        with safe_open(path, framework="np") as file:
            scores: Singles = file.get_tensor("scores")
            told = (file.metadata() or {}).get("digest")
            return scores if told == sha256_bytes(scores.tobytes()) else None
    except (OSError, SafetensorError):
        return None
