"""What the suspects of one label share, in one kind of features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from purpleteam.defences.detection.training_set._whitening import Whitened

__all__ = ["ALIKE", "LEAST_MEMBERS", "SEEDS", "SharedGroup", "in_turn", "shared_group"]

LEAST_MEMBERS = 8
"""Fewer images than this can share anything by chance."""
SEEDS = 40
"""How many suspects of a label the search for what they share begins with."""
ALIKE = 2.5
"""Deviations from which an image belongs to the group."""


@dataclass(frozen=True, eq=False)
class SharedGroup:
    """What the images of one label share in one kind of features.

    Attributes:
        label: the label under suspicion.
        features: the kind of features.
        strength: median over the first members of how far they lie along what the others share,
            in deviations of undoubted images.
        members: places of the images that share it.
        scores: (N,) how far each image lies along it, in deviations.
        apartness: how unlike their content the members are otherwise; about 1 where planted.
    """

    label: int
    features: str
    strength: float
    members: NDArray[np.int64]
    scores: NDArray[np.float64]
    apartness: float


def shared_group(
    white: Whitened,
    candidates: NDArray[np.int64],
    *,
    label: int,
    features: str,
    seeds: int,
    refinements: int,
) -> SharedGroup | None:
    """Find what the candidates of one label share, or None where there are too few.

    Args:
        white: whitened residuals of all images.
        candidates: places of the label's suspects, the most suspicious first.
        label: the label.
        features: name of the kind of features.
        seeds: how many of the candidates the search begins with.
        refinements: how often the group is drawn anew from all candidates.
    """
    if min(len(candidates), seeds) < LEAST_MEMBERS:
        return None
    members = candidates[:seeds]
    scores = white.scores(members, label)
    strength = float(np.median(scores[members]))
    for _ in range(refinements):
        chosen = candidates[scores[candidates] > max(ALIKE, strength / 4)]
        if len(chosen) < LEAST_MEMBERS:
            break
        members, scores = chosen, white.scores(chosen, label)
    return SharedGroup(label, features, strength, members, scores, white.apartness(members))


def in_turn(
    candidates: NDArray[np.int64],
    suspicion: NDArray[np.float64],
    content: NDArray[np.int64],
    *,
    certain: float,
) -> NDArray[np.int64]:
    """Return the candidates, the certain ones first and of these each content's in turn.

    A style of writing that is often misread as one other class would fill the first places by
    suspicion alone; in turn, it gets no more of them than any other content.

    Args:
        candidates: places of the suspects of one label, (M,).
        suspicion: (N,) how surely each image's label is contradicted.
        content: (N,) what each image shows.
        certain: suspicion from which it is certain.
    """
    ranked = candidates[np.argsort(-suspicion[candidates], kind="stable")]
    sure = ranked[suspicion[ranked] > certain]
    turn = np.zeros(len(sure), np.int64)
    for one in np.unique(content[sure]):
        of_content = content[sure] == one
        turn[of_content] = np.arange(of_content.sum())
    return np.concatenate([sure[np.argsort(turn, kind="stable")], ranked[len(sure) :]])
