"""Do others find what we find? The same attack by us and by other libraries, image by image.

Where the robust accuracies differ by more than 0.3 points and what sampling explains, one of the
two is wrong or weaker, and that is a finding: of some weight where the other library breaks more,
since then our number is too high, and a note where we do.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from purpleteam.attacks.evaluate import evaluate
from purpleteam.attacks.evasion import ATTACKS, EvasionAttack
from purpleteam.attacks.peers import peer_attack
from purpleteam.core.config import build
from purpleteam.core.errors import UsageError, unknown
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.records import Finding
from purpleteam.core.statistics import Estimate, Rate, paired_difference
from purpleteam.data.images import ImageSet
from purpleteam.models.inference import Classifier

TOLERATED = 0.003
"""Difference of two robust accuracies that is nobody's fault: ties and other rounding."""
QUERIES = 1000
"""Queries of a random search; enough to compare two, fewer than a verdict needs."""

Options = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One attack by us and by another library on the same images."""

    attack: str
    peer: str
    ours: Rate
    """Robust accuracy under our attack."""
    theirs: Rate
    """Robust accuracy under theirs, judged by us."""
    difference: Estimate
    """Theirs less ours; below 0 they break more than we do."""

    @property
    def agrees(self) -> bool:
        """Whether the difference can be sampling and rounding."""
        return self.difference.low <= TOLERATED and self.difference.high >= -TOLERATED

    def to_json(self) -> dict[str, Any]:
        """Return one row of the table."""
        return {
            "attack": self.attack,
            "peer": self.peer,
            "ours": self.ours.to_json(),
            "theirs": self.theirs.to_json(),
            "difference": self.difference.to_json(),
            "agrees": self.agrees,
        }

    def finding(self, place: Mapping[str, Any]) -> Finding:
        """Return the disagreement as a record."""
        stronger = "they break more" if self.difference.value < 0 else "we break more"
        return Finding(
            tool="purpleteam",
            rule="cross-check",
            severity="medium" if self.difference.value < 0 else "note",
            confidence="high",
            message=(
                f"{self.attack} leaves {self.ours.value:.2%} robust, {self.peer} "
                f"{self.theirs.value:.2%}, of the same {self.ours.n} images: {stronger} than "
                f"sampling and {TOLERATED:.1%} explain"
            ),
            place=place,
        )


@dataclass(frozen=True)
class CrossCheck:
    """What the comparison with other libraries showed."""

    rows: tuple[Comparison, ...]
    findings: tuple[Finding, ...]
    absent: Mapping[str, str] = field(default_factory=dict)
    """What could not be compared, and why."""

    def to_json(self) -> dict[str, Any]:
        """Return the field `cross_check` of `purple attack --json`."""
        return {
            "rows": [one.to_json() for one in self.rows],
            "findings": [one.to_json() for one in self.findings],
            "absent": dict(self.absent),
        }


def cross_check(
    model: Classifier,
    images: ImageSet,
    *,
    norm: str = "linf",
    epsilon: float,
    seed: int = 0,
    steps: int = 40,
    only: Collection[str] | None = None,
    place: Mapping[str, Any] | None = None,
    progress: Progress = SILENT,
) -> CrossCheck:
    """Run our attacks and the same ones of other libraries on the same images.

    Args:
        model: images (N, C, H, W) in [0, 1] to logits.
        images: those that all attack.
        norm: linf or l2.
        epsilon: radius of the ball.
        seed: of ours; the libraries' generators are seeded from it too.
        steps: gradient steps of each attack.
        only: names of our attacks; the default is all that have an equal elsewhere.
        place: which model this is about, for the findings.
        progress: where to report.

    Raises:
        UsageError: the attack has no equal elsewhere, or none in that norm has.
    """
    if norm not in _PAIRS:
        raise UsageError(unknown("norm to cross-check", norm, _PAIRS))
    pairs = _PAIRS[norm](epsilon, steps)
    for name in only or ():
        if name not in pairs:
            raise UsageError(unknown("attack to cross-check", name, pairs))
    rows: list[Comparison] = []
    absent: dict[str, str] = {}

    def robust(attack: EvasionAttack) -> list[bool]:
        found = evaluate(model, images, attack, seed=seed, progress=progress)
        return [bool(one) for one in found.robust]

    ball = {"norm": norm, "epsilon": epsilon}
    for name in pairs if only is None else only:
        values, peers = pairs[name]
        ours = robust(build(ATTACKS[name], ball | dict(values), name))
        for peer, options in peers.items():
            try:
                theirs = robust(build(peer_attack(peer), ball | dict(options), peer))
            except UsageError as error:  # not installed, or it fails on this model
                absent[peer] = str(error)
                continue
            rows.append(_compare(name, peer, ours, theirs))
    where = {"path": "model"} if place is None else place
    findings = tuple(one.finding(where) for one in rows if not one.agrees)
    return CrossCheck(tuple(rows), findings, absent)


def _compare(attack: str, peer: str, ours: list[bool], theirs: list[bool]) -> Comparison:
    return Comparison(
        attack=attack,
        peer=peer,
        ours=Rate.of(sum(ours), len(ours)),
        theirs=Rate.of(sum(theirs), len(theirs)),
        difference=paired_difference(ours, theirs),
    )


Pairs = dict[str, tuple[Options, dict[str, Options]]]
"""Our attack's name to its options, and to each equal elsewhere with the same in its own words."""


def _linf(epsilon: float, steps: int) -> Pairs:
    step_size = 2.5 * epsilon / steps
    still = {"random_start": False}
    return {
        "fgsm": (
            {},
            {"foolbox:FGSM": {}, "art:FastGradientMethod": {}, "torchattacks:FGSM": {}},
        ),
        "pgd": (
            {"steps": steps, "step_size": step_size} | still,
            {
                "foolbox:LinfPGD": {"steps": steps, "abs_stepsize": step_size} | still,
                "art:ProjectedGradientDescent": {"max_iter": steps, "eps_step": step_size},
                "torchattacks:PGD": {"steps": steps, "alpha": step_size} | still,
            },
        ),
        "apgd_ce": ({"steps": steps}, {"torchattacks:APGD": {"steps": steps}}),
        "square": ({"queries": QUERIES}, {"torchattacks:Square": {"n_queries": QUERIES}}),
        "deepfool": ({"steps": steps}, {"foolbox:LinfDeepFoolAttack": {"steps": steps}}),
    }


def _l2(epsilon: float, steps: int) -> Pairs:
    step_size = 2.5 * epsilon / steps
    still = {"random_start": False}
    return {
        "fgsm": ({}, {"foolbox:FGM": {}, "art:FastGradientMethod": {}}),
        "pgd": (
            {"steps": steps, "step_size": step_size} | still,
            {
                "foolbox:L2PGD": {"steps": steps, "abs_stepsize": step_size} | still,
                "art:ProjectedGradientDescent": {"max_iter": steps, "eps_step": step_size},
                "torchattacks:PGDL2": {"steps": steps, "alpha": step_size} | still,
            },
        ),
        "apgd_ce": ({"steps": steps}, {"torchattacks:APGD": {"steps": steps}}),
        "deepfool": (
            {"steps": steps},
            {
                "foolbox:L2DeepFoolAttack": {"steps": steps},
                "torchattacks:DeepFool": {"steps": steps},
            },
        ),
        "ddn": ({"steps": steps}, {"foolbox:DDNAttack": {"steps": steps}}),
        "carlini_wagner": (
            {"steps": 5 * steps, "searches": 5},
            {"foolbox:L2CarliniWagnerAttack": {"steps": 5 * steps, "binary_search_steps": 5}},
        ),
    }


_PAIRS = {"linf": _linf, "l2": _l2}
