"""The same attack by us and by other libraries on the same images: do the numbers agree?

Robust accuracies that differ by more than 0.3 points and what sampling explains are a finding: of
medium severity where the other library breaks more, since then ours is too high, else a note.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from purpleteam.attacks.evaluate import evaluate
from purpleteam.attacks.evasion import ATTACKS, EvasionAttack
from purpleteam.attacks.peers import peer_attack
from purpleteam.core.config import build
from purpleteam.core.errors import UsageError, unknown
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.records import Finding, plain
from purpleteam.core.statistics import Estimate, Rate, paired_difference
from purpleteam.data.images import ImageSet
from purpleteam.models.inference import Classifier

TOLERATED = 0.003  # difference of two robust accuracies that ties and rounding may make
QUERIES = 1000  # of a random search; enough to compare two, fewer than a verdict needs


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Robust accuracy under one attack of ours and of another library on the same images."""

    attack: str
    peer: str
    ours: Rate
    theirs: Rate  # confirmed by us
    difference: Estimate  # theirs less ours; below 0 they break more than we do

    @property
    def agrees(self) -> bool:
        """Whether the difference can be sampling and rounding."""
        return self.difference.low <= TOLERATED and self.difference.high >= -TOLERATED

    def to_json(self) -> dict[str, Any]:
        return {**plain(vars(self)), "agrees": self.agrees}

    def finding(self, place: Mapping[str, Any]) -> Finding:
        worse = self.difference.value < 0
        return Finding(
            tool="purpleteam",
            rule="cross-check",
            severity="medium" if worse else "note",
            confidence="high",
            message=(
                f"{self.attack} leaves {self.ours.value:.2%} robust, {self.peer} "
                f"{self.theirs.value:.2%}, of the same {self.ours.n} images: "
                f"{'they' if worse else 'we'} break more than sampling and {TOLERATED:.1%} explain"
            ),
            place=place,
        )


@dataclass(frozen=True)
class CrossCheck:
    """What the comparison with other libraries showed."""

    rows: tuple[Comparison, ...]
    findings: tuple[Finding, ...]
    absent: Mapping[str, str]  # what could not be compared, and why

    def to_json(self) -> dict[str, Any]:
        """Return the field `cross_check` of `purple attack --json`."""
        return dict(plain(vars(self)))


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
    """Run our attacks in linf or l2 and the same ones of other libraries on the same images.

    `only` names attacks of ours; the default is all that have an equal elsewhere. `place` says
    which model this is about, for the findings.
    """
    if norm not in ("linf", "l2"):
        raise UsageError(unknown("norm to cross-check", norm, ("linf", "l2")))
    pairs = _pairs(norm, epsilon, steps)
    for name in only or ():
        if name not in pairs:
            raise UsageError(unknown("attack to cross-check", name, pairs))

    def robust(kind: type[EvasionAttack], options: Mapping[str, Any], name: str) -> list[bool]:
        attack = build(kind, {"norm": norm, "epsilon": epsilon} | dict(options), name)
        evaluation = evaluate(model, images, attack, seed=seed, progress=progress)
        return [bool(stands) for stands in evaluation.robust]

    rows, absent = list[Comparison](), dict[str, str]()
    for name in pairs if only is None else only:
        options, peers = pairs[name]
        ours = robust(ATTACKS[name], options, name)
        for peer, theirs_options in peers.items():
            try:
                theirs = robust(peer_attack(peer), theirs_options, peer)
            except UsageError as error:  # not installed, or it fails on this model
                absent[peer] = str(error)
                continue
            rates = {
                "ours": Rate.of(sum(ours), len(ours)),
                "theirs": Rate.of(sum(theirs), len(theirs)),
            }
            difference = paired_difference(ours, theirs)
            rows.append(Comparison(attack=name, peer=peer, difference=difference, **rates))
    where = {"path": "model"} if place is None else place
    findings = tuple(row.finding(where) for row in rows if not row.agrees)
    return CrossCheck(tuple(rows), findings, absent)


Options = dict[str, Any]


def _pairs(norm: str, epsilon: float, steps: int) -> dict[str, tuple[Options, dict[str, Options]]]:
    """Return our attacks' options, and each equal elsewhere with the same in its own words."""
    size, same = 2.5 * epsilon / steps, Options(steps=steps)
    still = same | {"random_start": False}
    foolbox, torch = still | {"abs_stepsize": size}, still | {"alpha": size}
    art = {"art:ProjectedGradientDescent": {"max_iter": steps, "eps_step": size}}
    fgsm, apgd = {"art:FastGradientMethod": Options()}, (same, {"torchattacks:APGD": same})
    pgd = still | {"step_size": size}
    if norm == "linf":
        return {
            "fgsm": ({}, {"foolbox:FGSM": {}} | fgsm | {"torchattacks:FGSM": {}}),
            "pgd": (pgd, {"foolbox:LinfPGD": foolbox} | art | {"torchattacks:PGD": torch}),
            "apgd_ce": apgd,
            "square": ({"queries": QUERIES}, {"torchattacks:Square": {"n_queries": QUERIES}}),
            "deepfool": (same, {"foolbox:LinfDeepFoolAttack": same}),
        }
    more = Options(steps=5 * steps)
    binary = more | {"binary_search_steps": 5}
    return {
        "fgsm": ({}, {"foolbox:FGM": {}} | fgsm),
        "pgd": (pgd, {"foolbox:L2PGD": foolbox} | art | {"torchattacks:PGDL2": torch}),
        "apgd_ce": apgd,
        "deepfool": (same, {"foolbox:L2DeepFoolAttack": same, "torchattacks:DeepFool": same}),
        "ddn": (same, {"foolbox:DDNAttack": same}),
        "carlini_wagner": (more | {"searches": 5}, {"foolbox:L2CarliniWagnerAttack": binary}),
    }
