"""What is proved of images in an L-infinity ball: verified, falsified or unknown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.certify.vnnlib import Property
from purpleteam.core.statistics import Rate
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import to_batch

VERIFIED, FALSIFIED, UNKNOWN = "verified", "falsified", "unknown"
SHOWN = 6  # counterexamples that are kept of images certified in parts, and parts that have notes


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage: how many images it looked at, what it decided, and what that took."""

    name: str
    looked_at: int
    verified: int
    falsified: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True, eq=False)
class BallCertificate:
    """What was proved of each image in its L-infinity ball.

    Attributes:
        verdicts: (N,) verified, falsified or unknown; an image that is wrong when clean is its own
            counterexample.
        decided_by: (N,) the stage that decided, "clean" where it is wrong, "" where none did.
        margins: (N,) float32, the least lower bound of the label's lead over another class.
        counterexamples: by the image's place, (C, H, W) float32 images in its ball.
    """

    method: str
    epsilon: float
    classes: int
    verdicts: NDArray[np.str_]
    decided_by: NDArray[np.str_]
    margins: NDArray[np.float32]
    counterexamples: Mapping[int, NDArray[np.float32]]
    stages: tuple[Stage, ...]
    complete: bool
    notes: tuple[str, ...] = ()

    def of(self, place: slice) -> BallCertificate:
        """Return what was proved of the images in one place, without counterexamples."""
        rows: dict[str, Any] = {
            name: getattr(self, name)[place] for name in ("verdicts", "decided_by", "margins")
        }
        return replace(self, **rows, counterexamples={})

    @property
    def clean_accuracy(self) -> Rate:
        return self._share(self.decided_by != "clean")

    @property
    def certified_accuracy(self) -> Rate:
        return self._share(self.verdicts == VERIFIED)

    @property
    def how(self) -> dict[str, Any]:
        """What is claimed, in the words of ISO/IEC 24029-2 (2023) too."""
        return {
            "method": self.method,
            "norm": "linf",
            "epsilon": self.epsilon,
            "complete": self.complete,
            "deterministic": True,
            "arithmetic": "real: the error of float32 is added to each bound",
        }

    @property
    def counts(self) -> dict[str, int]:
        """How many images are verified, falsified and unknown."""
        kinds = (VERIFIED, FALSIFIED, UNKNOWN)
        return {kind: int((self.verdicts == kind).sum()) for kind in kinds}

    @property
    def wrong(self) -> int:
        """How many of the falsified are wrong as they are, without a change."""
        return int((self.decided_by == "clean").sum())

    def replayed(self, session: Any, images: ImageSet) -> BallCertificate:
        """Return the certificate without counterexamples that ONNX Runtime does not see err.

        `images` are the clean ones, `session` runs the net's ONNX. What it does not see err is
        unknown, and noted.
        """
        verdicts, decided_by = self.verdicts.copy(), self.decided_by.copy()
        kept = dict(self.counterexamples)
        for place, x_adv in self.counterexamples.items():
            if decided_by[place] == "clean":
                continue
            label, clean = int(images.labels[place]), to_batch(images.images[place : place + 1])
            asked = Property.around(clean.numpy(), self.epsilon, label, self.classes)
            if asked.refutation(session, x_adv[None]):
                verdicts[place], decided_by[place] = UNKNOWN, ""
                del kept[place]
        lost = len(self.counterexamples) - len(kept)
        note = f"{lost} counterexamples do not err in ONNX Runtime: their images are unknown"
        return replace(
            self,
            verdicts=verdicts,
            decided_by=decided_by,
            counterexamples=kept,
            notes=(*self.notes, *([note] if lost else [])),
        )

    def save_outcomes(self, path: Path) -> None:
        """Write one row per image as .npz, without pickles and byte for byte reproducible."""
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = {"verdicts": self.verdicts, "decided_by": self.decided_by, "margins": self.margins}
        with path.open("wb") as file:
            index = np.arange(len(self.verdicts))
            correct = self.decided_by != "clean"
            np.savez(file, allow_pickle=False, index=index, clean_correct=correct, **rows)

    def _share(self, which: NDArray[np.bool_]) -> Rate:
        return Rate.of(int(which.sum()), len(which))


def joined(parts: Iterable[BallCertificate]) -> BallCertificate:
    """Return the certificate of images that were certified in parts, one after the other.

    A few counterexamples are kept, none of an image that is wrong as it is, and a few parts' notes.
    """
    rows: dict[str, Any] = {"verdicts": [], "decided_by": [], "margins": []}
    stages, kept, notes = dict[str, Stage](), dict[int, NDArray[np.float32]](), list[str]()
    start = 0
    for part in parts:
        for name, values in rows.items():
            values.append(getattr(part, name))
        for place, x_adv in part.counterexamples.items():
            if part.decided_by[place] != "clean" and len(kept) < SHOWN:
                kept[start + place] = x_adv
        for stage in part.stages:
            known = stages.setdefault(stage.name, stage)
            if known is not stage:
                added = {
                    name: round(getattr(known, name) + getattr(stage, name), 3)
                    for name in ("looked_at", "verified", "falsified", "seconds")
                }
                stages[stage.name] = replace(known, **added)
        end = start + len(part.verdicts)
        notes += [f"images {start} to {end - 1}: {note}" for note in part.notes]
        start, last = end, part
    more = f"and {len(notes) - SHOWN} notes on other parts"
    whole: dict[str, Any] = {name: np.concatenate(values) for name, values in rows.items()}
    return replace(
        last,
        **whole,
        counterexamples=kept,
        stages=tuple(stages.values()),
        notes=(*notes[:SHOWN], *([more] if len(notes) > SHOWN else ())),
    )
