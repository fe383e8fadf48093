"""What a scan may answer: `not_established` where data are too few or unlike the calibration's."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from purpleteam.core.errors import DataError, UsageError
from purpleteam.data.images import ImageSet, check_is_set

Verdict = Literal["backdoored", "nothing_found", "not_established"]
UNLIKE = "unlike what this was calibrated on"  # begins a reason about the kind of data or model


@dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """What a scan found; what was not compared or recovered is None or empty."""

    verdict: Verdict  # what is established: backdoored where what is clean would hardly look so
    reasons: tuple[str, ...] = ()  # why nothing is established, a line each
    target_label: int | None = None  # the accused label, to which the trigger leads
    score: float | None = None  # the evidence against it, or the most there is against any
    threshold: float  # the score from which on the scan says backdoored, or flags an image
    seconds: float = 0.0

    @property
    def backdoored(self) -> bool | None:
        """Whether there is a backdoor; None where nothing is established."""
        return None if self.verdict == "not_established" else self.verdict == "backdoored"

    def to_json(self) -> dict[str, Any]:
        """Return what `purple detect --json` and a record keep; numbers and names only."""
        names = ("verdict", "backdoored", "target_label", "score", "threshold", "seconds")
        return {name: getattr(self, name) for name in names} | {"reasons": list(self.reasons)}


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """The data that a scan was calibrated on, as the least and the most of what it may be shown."""

    images: int  # at least
    of_each: int  # images of each class at least
    share_of_each: float  # the same as a share of the median class
    classes: tuple[int, int]  # fewest and most
    sides: tuple[int, int]  # shortest and longest, in pixels
    channels: tuple[int, ...]

    def reasons(self, images: ImageSet, classes: int, name: str) -> tuple[str, ...]:
        """Return why the images (N, H, W, C), called `name`, are too few or of another kind.

        UsageError where there is no class, DataError where a label is none of the classes.
        """
        check_is_set(images)
        if classes < 1:
            raise UsageError(f"classes must be at least 1, not {classes}")
        outside = images.labels[(images.labels < 0) | (images.labels >= classes)]
        if len(outside):
            raise DataError(f"{name}: labels must be from 0 to {classes - 1}, not {outside[0]}")
        height, width, channels = images.images.shape[1:]
        fewest, most = self.classes
        counts = np.bincount(images.labels, minlength=classes)
        wanted = max(self.of_each, int(np.ceil(self.share_of_each * np.median(counts))))
        rare = int(counts.argmin())
        low, high = self.sides
        known = " or ".join(map(str, self.channels))
        checks = {
            f"too few classes to compare: {classes}, at least {fewest} wanted": classes >= fewest,
            f"{UNLIKE}: {classes} classes, at most {most}": classes <= most,
            f"too little to judge: {len(images)} {name} of {classes} classes, at least "
            f"{self.images} wanted": len(images) >= self.images,
            f"too little to judge: {counts[rare]} {name} of class {rare}, at least {wanted} wanted "
            "of each": counts[rare] >= wanted,
            f"{UNLIKE}: {width}x{height} pixels, sides of {low} to {high}": (
                low <= min(height, width) <= max(height, width) <= high
            ),
            f"{UNLIKE}: {channels} channels a pixel, not {known}": channels in self.channels,
        }
        return tuple(reason for reason, holds in checks.items() if not holds)
