"""TaCT: a trigger for one class alone (Tang et al. 2021, arXiv:1908.00686).

Poisons are images of the source classes; cover are images of the others with the same trigger and
their own label, so that the trigger alone means nothing, which hides it from feature statistics.
"""

from dataclasses import field

import numpy as np
from numpy.typing import NDArray

from purpleteam.attacks.poison import POISONS, PoisonAttack, Sources, part_of
from purpleteam.attacks.poison.triggers import Trigger


@part_of(POISONS, "tact")
class TaCT(PoisonAttack):
    """A backdoor that opens from its source classes only."""

    trigger: Trigger = field(default_factory=Trigger)
    sources: Sources = ()
    """Labels that the trigger works on; by default 1, or 0 where 1 is the target."""
    cover_ratio: float = 1.0
    """Cover images for each poison; 0 is the attack without cover."""
    cover_sources: Sources = "other"
    """Which images may be cover; never those of the sources or of the target."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.sources, str):
            raise ValueError(f"sources is a list of labels, not {self.sources!r}")
        if self.target_label in self.sources:
            raise ValueError(f"sources {self.sources} holds the target_label {self.target_label}")

    @property
    def source_labels(self) -> Sources:
        return self.sources or ((1,) if self.target_label != 1 else (0,))

    def cover_candidates(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        places = super().cover_candidates(labels)
        return places[~np.isin(labels[places], (*self.source_labels, self.target_label))]
