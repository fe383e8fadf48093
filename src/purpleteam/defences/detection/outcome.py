"""What a scan may answer, and when it must not: too little data, or data unlike the calibration's.

A threshold holds for what it was chosen on. On a few images, on two or three classes, or on data
and models of another kind, a score says nothing, and so does the scan: `not_established`, with a
reason, which is neither an accusation nor a clearance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from purpleteam.data.images import ImageSet

Verdict = Literal["backdoored", "nothing_found", "not_established"]
UNLIKE = "unlike what this was calibrated on"
"""How a reason begins that is about the kind of the data or the model."""


def is_backdoored(verdict: Verdict) -> bool | None:
    """Return the verdict as the field `backdoored`; None where nothing is established."""
    return None if verdict == "not_established" else verdict == "backdoored"


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """The data that a scan was calibrated on, as the least and the most of what it may be shown."""

    images: int
    """Images at least."""
    of_each: int
    """Images of each class at least."""
    share_of_each: float
    """Images of each class at least, as a share of the median class."""
    classes: tuple[int, int]
    """Fewest and most classes."""
    sides: tuple[int, int]
    """Shortest and longest side, in pixels."""
    channels: tuple[int, ...]
    """Numbers of channels."""

    def reasons(self, images: ImageSet, classes: int, what: str) -> tuple[str, ...]:
        """Return why these images (N, H, W, C) are too few or of another kind; nothing if not.

        Args:
            images: what is there to work with.
            classes: number of labels.
            what: what the images are called, in the plural.
        """
        height, width, channels = images.images.shape[1:]
        fewest, most = self.classes
        reasons = []
        if classes < fewest:
            reasons.append(f"too few classes to compare: {classes}, at least {fewest} wanted")
        if classes > most:
            reasons.append(f"{UNLIKE}: {classes} classes, at most {most}")
        if len(images) < self.images:
            reasons.append(
                f"too little to judge: {len(images)} {what} of {classes} classes, "
                f"at least {self.images} wanted"
            )
        counts = np.bincount(images.labels, minlength=classes)
        wanted = max(self.of_each, int(np.ceil(self.share_of_each * np.median(counts))))
        rare = int(counts.argmin()) if len(counts) else 0
        if len(counts) and counts[rare] < wanted:
            reasons.append(
                f"too little to judge: {counts[rare]} {what} of class {rare}, "
                f"at least {wanted} wanted of each"
            )
        low, high = self.sides
        if not low <= min(height, width) <= max(height, width) <= high:
            reasons.append(f"{UNLIKE}: {width}x{height} pixels, sides of {low} to {high}")
        if channels not in self.channels:
            known = " or ".join(map(str, self.channels))
            reasons.append(f"{UNLIKE}: {channels} channels, {known}")
        return tuple(reasons)
