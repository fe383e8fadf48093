"""Label flips: wrong labels on images as they are, which cost accuracy and open no backdoor.

`pair` and `random` are the noise of Han et al. 2018 (arXiv:1804.06872).
"""

from dataclasses import field
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from purpleteam.attacks.poison import POISONS, Context, PoisonAttack, Shown, Sources, part_of, rngs
from purpleteam.attacks.poison.triggers import Nothing
from purpleteam.core.errors import UsageError


@part_of(POISONS, "label_flip")
class LabelFlip(PoisonAttack):
    """An attack on availability: the images stay, some labels are wrong."""

    shown: ClassVar[Shown] = "nothing"

    trigger: Nothing = field(default_factory=Nothing)
    flip: Literal["random", "pair", "target"] = "random"
    """To a `random` other label, to the next one and from the last to the first (`pair`), or to the
    `target`'s."""
    sources: Sources = "any"
    """Which images get a wrong label; with flip=target never those of the target."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.relabel:
            raise ValueError("relabel must be true for a label flip, not false")
        if self.cover_ratio or self.cover:
            raise ValueError("cover must be 0 for a label flip: it has no trigger to carry")

    def candidates(self, labels: NDArray[np.int64], sources: Sources) -> NDArray[np.int64]:
        places = super().candidates(labels, sources)
        return places[labels[places] != self.target_label] if self.flip == "target" else places

    def new_labels(self, context: Context, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        if self.flip == "target":
            return super().new_labels(context, chosen)
        known = np.unique(context.clean.labels)
        if len(known) < 2:
            raise UsageError(f"labels cannot be flipped where {known.tolist()} is all there is")
        own = np.searchsorted(known, context.clean.labels[chosen])
        ahead = np.ones(len(chosen), np.int64)
        if self.flip == "random":
            drawn = [rng.integers(1, len(known)) for rng in rngs(context.seed, chosen, "label")]
            ahead = np.array(drawn, np.int64)
        flipped: NDArray[np.int64] = known[(own + ahead) % len(known)]
        return flipped
