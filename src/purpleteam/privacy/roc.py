"""Who is recognised at what price: the ROC curve of a score that should be higher for members.

Rates are read at few false positives, where an attack is sure of somebody (Carlini et al. 2022,
arXiv:2112.03570), each with its interval; none is averaged over all images alone.
"""

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from purpleteam.core.arrays import Bools, Floats, Ints
from purpleteam.core.errors import UsageError
from purpleteam.core.statistics import Estimate, Rate, Z, difference, fraction_interval

FALSE_POSITIVES = (0.001, 0.01)
"""The rates at which members found are counted."""
POINTS = 120  # most points of a curve that is kept
FEW = 1e-4  # false-positive rate at which a kept curve begins


@dataclass(frozen=True, eq=False)
class Roc:
    """Members found and others wrongly taken for members, at each threshold, the highest first.

    Attributes:
        scores: (N,), the higher the likelier a member; NaN, where there was no answer, is lowest.
        member: (N,), the truth.
    """

    scores: Floats
    member: Bools

    def __post_init__(self) -> None:
        if self.scores.shape != self.member.shape or self.scores.ndim != 1:
            raise UsageError(f"{self.scores.shape} scores are not of {self.member.shape} images")
        if not 0 < self.member.sum() < len(self.member):
            raise UsageError("members and others are needed, and here are only one of these")

    @classmethod
    def of(cls, scores: Floats, member: Bools) -> Self:
        """Return the curve of scores, those of images without an answer below all others."""
        known = np.asarray(scores, np.float64)
        return cls(np.where(np.isnan(known), -np.inf, known), np.asarray(member, bool))

    @property
    def members(self) -> int:
        """How many images are members."""
        return int(self.member.sum())

    @property
    def others(self) -> int:
        """How many are none."""
        return len(self.member) - self.members

    def steps(self) -> tuple[Floats, Ints, Ints]:
        """Return each threshold, and the members and others at or above it; equal scores as one."""
        order = np.argsort(-self.scores, kind="stable")
        ranked, truth = self.scores[order], self.member[order]
        last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
        found, wrong = (np.cumsum(part, dtype=np.int64)[last] for part in (truth, ~truth))
        return ranked[last], found, wrong

    def tpr_at(self, rate: float) -> Rate | None:
        """Return the members found with at most so many others; None where one is too many."""
        allowed = math.floor(rate * self.others + 1e-9)
        if allowed < 1:
            return None
        _, found, wrong = self.steps()
        fitting = np.flatnonzero(wrong <= allowed)
        return Rate.of(int(found[fitting[-1]]) if len(fitting) else 0, self.members)

    def bounds_at(self, rate: float) -> tuple[float, float]:
        """Return between what the rate of members found lies, at that rate of all other images.

        The interval of `tpr_at` takes its threshold as given, which hangs on the few others above
        it. This one counts both: its low end is that of a threshold whose rate is surely at most
        `rate`, its high end that of one whose rate is surely no less, by Clopper and Pearson.
        """
        _, found, wrong = self.steps()
        counts, others = range(self.others + 1), self.others
        enough = bisect_left(counts, rate, key=lambda few: fraction_interval(few, others)[0])
        safe = bisect_right(counts, rate, key=lambda few: fraction_interval(few, others)[1]) - 1
        above, below = np.flatnonzero(wrong >= enough), np.flatnonzero(wrong <= safe)
        high = Rate.of(int(found[above[0]]), self.members).high if len(above) else 1.0
        low = Rate.of(int(found[below[-1]]), self.members).low if len(below) else 0.0
        return low, high

    def auc(self) -> Estimate:
        """Return the chance that a member scores higher than another image; a tie is half of one.

        The interval is that of DeLong et al. (1988, Biometrics 44:837), by ranks.
        """
        higher = _share_below(self.scores[~self.member], self.scores[self.member])
        lower = 1 - _share_below(self.scores[self.member], self.scores[~self.member])
        value = float(higher.mean())
        spread = _variance(higher) / self.members + _variance(lower) / self.others
        least = 1 / (2 * max(self.members, self.others))  # of one image nothing finer is known
        half = max(Z * math.sqrt(spread), least)
        low, high = max(0.0, value - half), min(1.0, value + half)
        return Estimate(value=value, n=len(self.member), low=low, high=high, method="delong")

    def advantage(self, seed: int = 0) -> Estimate:
        """Return true less false positives at the best threshold (Yeom et al. 2018, 1709.01604).

        The threshold is chosen on one random half and counted on the other, both ways: the best on
        the images that it is counted on would be above 0 for a coin.
        """
        rng = np.random.default_rng(seed)
        first = np.zeros(len(self.member), bool)
        for group in (self.member, ~self.member):
            places = rng.permutation(np.flatnonzero(group))
            first[places[: len(places) // 2]] = True
        found = wrong = 0
        for chosen, counted in ((first, ~first), (~first, first)):
            if not 0 < self.member[chosen].sum() < chosen.sum():
                continue  # too few to choose by
            levels, hits, misses = Roc(self.scores[chosen], self.member[chosen]).steps()
            gain = hits / self.member[chosen].sum() - misses / (~self.member[chosen]).sum()
            above = (self.scores >= levels[gain.argmax()]) & counted
            found += int((above & self.member).sum())
            wrong += int((above & ~self.member).sum())
        return difference(Rate.of(found, self.members), Rate.of(wrong, self.others))

    def curve(self) -> list[dict[str, float | int]]:
        """Return false-positive rates, evenly on a logarithmic axis, and the members found."""
        _, found, wrong = self.steps()
        rates = wrong / self.others
        kept: dict[int, dict[str, float | int]] = {}
        for rate in np.geomspace(max(FEW, 1 / self.others), 1, POINTS):
            place = int(np.searchsorted(rates, rate + 1e-12, side="right")) - 1
            if place >= 0:
                kept[place] = {"rate": round(float(rates[place]), 6), "found": int(found[place])}
        return list(kept.values())

    def to_json(self) -> dict[str, Any]:
        """Return the numbers and the curve."""
        told = {f"{rate:g}": self.tpr_at(rate) for rate in FALSE_POSITIVES}
        return {
            "tpr_at": {rate: value and value.to_json() for rate, value in told.items()},
            "auroc": self.auc().to_json(),
            "advantage": self.advantage().to_json(),
            "members": self.members,
            "others": self.others,
            "curve": self.curve(),
        }


def _share_below(these: Floats, scores: Floats) -> Floats:
    """Return for each score the share of these that are lower, equal ones counted as half."""
    ranked = np.sort(these)
    below = np.searchsorted(ranked, scores, "left") + np.searchsorted(ranked, scores, "right")
    return np.asarray(below / (2 * len(these)))


def _variance(values: Floats) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else 0.25
