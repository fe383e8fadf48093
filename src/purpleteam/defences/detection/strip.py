"""STRIP: is this input triggered? (Gao et al. 2019, arXiv:1902.06531). NumPy alone.

Answers to a clean input with trusted images superimposed scatter; to a triggered one they do not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.arrays import Bools, Floats, Pixels
from purpleteam.core.errors import DataError, ModelError, UsageError
from purpleteam.core.registry import check_ranges
from purpleteam.data.images import ImageSet

Answers = Callable[[Pixels], NDArray[np.floating[Any]]]  # (N, H, W, C) to shares (N, classes)

MOST_OVERLAYS = 100  # the paper's number; the app asks the model once for each of them and image
FORMAT = "purpleteam strip 1"
LARGEST_FILE = 64 * 2**20
KINDS: dict[str, tuple[type, ...]] = {
    "threshold": (int, float),
    "false_rejection_rate": (int, float),
    "calibrated_on": (int,),
    "model_digest": (str, type(None)),
}  # what a file says beside the overlays, and of which types


@dataclass(frozen=True, kw_only=True, eq=False)
class Strip:
    """A fitted STRIP: the trusted images to superimpose, and the entropy below which it flags."""

    ranges: ClassVar[str] = (
        "threshold finite and at least 0; false_rejection_rate between 0 and 1; "
        "calibrated_on at least 1"
    )

    overlays: Pixels
    """Trusted clean images (K, H, W, C)."""
    threshold: float
    """In bits; an input with a lower entropy counts as triggered."""
    false_rejection_rate: float
    """The share of clean inputs that may be flagged, as stated when it was fitted."""
    calibrated_on: int
    """How many trusted images, none of them an overlay, set the threshold."""
    model_digest: str | None = None
    """The model whose answers set the threshold; it says nothing about another."""

    def __post_init__(self) -> None:
        if self.overlays.dtype != np.uint8 or self.overlays.ndim != 4:
            form = f"{self.overlays.dtype} {self.overlays.shape}"
            raise ValueError(f"overlays must be uint8 (K, H, W, C), not {form}")
        if not 1 <= len(self.overlays) <= MOST_OVERLAYS:
            raise ValueError(f"overlays are 1 to {MOST_OVERLAYS} images, not {len(self.overlays)}")
        check_ranges(self)
        self.overlays.flags.writeable = False

    @classmethod
    def fit(
        cls,
        answers: Answers,
        trusted: ImageSet,
        *,
        false_rejection_rate: float = 0.01,
        overlays: int = 16,
        seed: int = 0,
        model_digest: str | None = None,
    ) -> Strip:
        """Return the overlays, drawn from trusted images, with the threshold that the rest sets.

        Of n images that calibrate, it is the k-th lowest entropy, k the largest whole number up to
        `false_rejection_rate` * (n + 1): a further clean input from the same source is flagged with
        at most that probability, whatever the distribution. UsageError for too few images.
        """
        rest = len(trusted) - overlays
        place = math.floor(false_rejection_rate * (rest + 1) + 1e-9)
        if place < 1:
            needed = math.ceil(1 / false_rejection_rate) - 1 + overlays
            raise UsageError(
                f"false_rejection_rate {false_rejection_rate} with {overlays} overlays needs "
                f"{needed} trusted images, not {len(trusted)}"
            )
        order = np.random.default_rng(seed).permutation(len(trusted))
        strip = cls(
            overlays=trusted.images[np.sort(order[:overlays])],
            threshold=0.0,
            false_rejection_rate=false_rejection_rate,
            calibrated_on=rest,
            model_digest=model_digest,
        )
        entropies = strip.entropies(answers, trusted.images[np.sort(order[overlays:])])
        return replace(strip, threshold=float(np.sort(entropies)[place - 1]))

    def entropies(self, answers: Answers, images: Pixels) -> Floats:
        """Return the mean entropy (N,), in bits, of the answers to each superimposed image."""
        given, wanted = images.shape[1:], self.overlays.shape[1:]
        if given != wanted:
            raise UsageError(f"images of shape {given} are not those of the overlays, {wanted}")
        entropies = np.empty(len(images))
        for place, image in enumerate(images):
            # One call for each image: its number is the same to the last bit, whatever is beside.
            looks = superimpose(image, self.overlays)
            probabilities = np.asarray(answers(looks), np.float64)
            if probabilities.ndim != 2 or len(probabilities) != len(looks):
                got = f"{len(looks)} images with {probabilities.shape}"
                raise ModelError(f"the model answered {got}, not a row each")
            if not (np.isfinite(probabilities).all() and (probabilities >= 0).all()):
                raise ModelError("the model gave no probabilities for a superimposed image")
            shares = np.maximum(probabilities, np.finfo(np.float64).tiny)
            entropies[place] = -(probabilities * np.log2(shares)).sum(1).mean()
        return entropies

    def triggered(self, answers: Answers, images: Pixels) -> Bools:
        """Return for each of the images (N, H, W, C) whether it counts as triggered."""
        return np.asarray(self.entropies(answers, images) < self.threshold)

    def save(self, path: Path) -> None:
        """Write one .safetensors file: the overlays, and the rest as JSON in its header."""
        from safetensors.numpy import save

        facts = {"format": FORMAT} | {name: getattr(self, name) for name in KINDS}
        content = save({"overlays": self.overlays}, {"strip": json.dumps(facts)})
        try:
            path.write_bytes(content)
        except OSError as error:
            raise UsageError(f"cannot write {str(path)!r}: {error.strerror}") from None

    @classmethod
    def load(cls, path: Path) -> Strip:
        """Read what `save` wrote; nothing in it is run. DataError where it is something else."""
        from safetensors import SafetensorError, safe_open

        try:
            if path.stat().st_size > LARGEST_FILE:
                raise ValueError(f"it is larger than {LARGEST_FILE} bytes")
            with safe_open(path, framework="numpy") as file:
                facts = json.loads((file.metadata() or {})["strip"])
                if facts.pop("format") != FORMAT:
                    raise ValueError("its format is another")
                if set(facts) != set(KINDS) or any(
                    type(facts[name]) not in kinds for name, kinds in KINDS.items()
                ):
                    raise ValueError(f"its facts are not {', '.join(KINDS)}")
                return cls(overlays=file.get_tensor("overlays"), **facts)
        except OSError as error:
            raise DataError(f"STRIP file {str(path)!r} cannot be read: {error.strerror}") from None
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{str(path)!r} is no STRIP file: {error}") from None


def superimpose(image: Pixels, overlays: Pixels) -> Pixels:
    """Return (K, H, W, C): the image plus each overlay; a mean would halve the trigger."""
    total = image.astype(np.uint16) + overlays  # (K, H, W, C)
    return np.asarray(np.minimum(total, 255), np.uint8)
