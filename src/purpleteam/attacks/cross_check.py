"""The same attack by us and by other libraries on the same images: do the numbers agree?

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

COMPARED = ("linf", "l2")
RATES = ("ours", "theirs", "difference")

Options = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One attack by us and by another library on the same images."""

    attack: str
    peer: str
    ours: Rate
    """Robust accuracy under our attack."""
    theirs: Rate
    """Robust accuracy under theirs, confirmed by us."""
    difference: Estimate
    """Theirs less ours; below 0 they break more than we do."""

    @property
    def agrees(self) -> bool:
        """Whether the difference can be sampling and rounding."""
        return self.difference.low <= TOLERATED and self.difference.high >= -TOLERATED

    def to_json(self) -> dict[str, Any]:
        """Return one row of the table."""
        rates = {key: value.to_json() for key, value in vars(self).items() if key in RATES}
        return {**vars(self), **rates, "agrees": self.agrees}

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
            "rows": [row.to_json() for row in self.rows],
            "findings": [finding.to_json() for finding in self.findings],
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

    In linf or l2, with so many gradient steps each. `only` names attacks of ours; the default is
    all that have an equal elsewhere. `place` says which model this is about, for the findings.

    Raises:
        UsageError: the attack has no equal elsewhere, or none in that norm has.
    """
    if norm not in COMPARED:
        raise UsageError(unknown("norm to cross-check", norm, COMPARED))
    pairs = _pairs(norm, epsilon, steps)
    for name in only or ():
        if name not in pairs:
            raise UsageError(unknown("attack to cross-check", name, pairs))
    rows: list[Comparison] = []
    absent: dict[str, str] = {}

    def robust(attack: EvasionAttack) -> list[bool]:
        evaluation = evaluate(model, images, attack, seed=seed, progress=progress)
        return [bool(stands) for stands in evaluation.robust]

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
            row = Comparison(
                attack=name,
                peer=peer,
                ours=Rate.of(sum(ours), len(ours)),
                theirs=Rate.of(sum(theirs), len(theirs)),
                difference=paired_difference(ours, theirs),
            )
            rows.append(row)
    where = {"path": "model"} if place is None else place
    findings = tuple(row.finding(where) for row in rows if not row.agrees)
    return CrossCheck(tuple(rows), findings, absent)


Pairs = dict[str, tuple[Options, dict[str, Options]]]
"""Our attack's name to its options, and to each equal elsewhere with the same in its own words."""


def _pairs(norm: str, epsilon: float, steps: int) -> Pairs:
    """Return what is compared in linf or l2."""
    linf = norm == "linf"
    ours = {"steps": steps}
    step_size, still = 2.5 * epsilon / steps, {"random_start": False}
    by_foolbox = ours | {"abs_stepsize": step_size} | still
    by_torchattacks = {"steps": steps} | {"alpha": step_size} | still
    pairs: Pairs = {
        "fgsm": ({}, {"foolbox:FGSM" if linf else "foolbox:FGM": {}, "art:FastGradientMethod": {}}),
        "pgd": (
            ours | {"step_size": step_size} | still,
            {
                "foolbox:LinfPGD" if linf else "foolbox:L2PGD": by_foolbox,
                "art:ProjectedGradientDescent": {"max_iter": steps, "eps_step": step_size},
                "torchattacks:PGD" if linf else "torchattacks:PGDL2": by_torchattacks,
            },
        ),
        "apgd_ce": (ours, {"torchattacks:APGD": ours}),
    }
    if linf:
        pairs["fgsm"][1]["torchattacks:FGSM"] = {}
        pairs["square"] = {"queries": QUERIES}, {"torchattacks:Square": {"n_queries": QUERIES}}
        pairs["deepfool"] = ours, {"foolbox:LinfDeepFoolAttack": ours}
        return pairs
    pairs["deepfool"] = ours, {"foolbox:L2DeepFoolAttack": ours, "torchattacks:DeepFool": ours}
    pairs["ddn"] = ours, {"foolbox:DDNAttack": ours}
    pairs["carlini_wagner"] = (
        {"steps": 5 * steps, "searches": 5},
        {"foolbox:L2CarliniWagnerAttack": {"steps": 5 * steps, "binary_search_steps": 5}},
    )
    return pairs
