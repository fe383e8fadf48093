"""privacy: what a model gives away of its training images, and of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Unpack

from purpleteam.core.errors import UsageError, unknown
from purpleteam.core.records import Record
from purpleteam.verbs.attack import listed
from purpleteam.verbs.options import Budget, Epochs, Images, Model, OnModel
from purpleteam.verbs.result import Result, percent, table
from purpleteam.verbs.verb import Option, verb

if TYPE_CHECKING:
    from purpleteam.privacy.audit import Audit
    from purpleteam.privacy.extraction.extract import Extraction
    from purpleteam.privacy.membership.measure import Membership
    from purpleteam.verbs._subject import Subject

USUAL = (
    *("loss", "entropy", "lira", "rmia", "bavaria", "label_only"),
    *("extraction_natural", "inversion_gradient"),
)


@dataclass(frozen=True, kw_only=True, repr=False)
class GivenAway(Result):
    """What each attack on privacy found."""

    stage = "privacy"

    membership: tuple[Membership, ...] = ()
    copies: tuple[Extraction, ...] = ()
    audit: Audit | None = None

    @property
    def exit_code(self) -> int:
        """1 where an audit shows that a private training leaks more than it says."""
        return int(self.audit is not None and not self.audit.holds)

    def lines(self) -> list[str]:
        lines: list[str] = []
        if told := self.values["membership"]:
            lines += ["training images recognised, where few others are taken for them"]
            rows: list[tuple[str, ...]] = [
                ("attack", "at 0.1 % false", "at 1 % false", "advantage", "AUROC")
            ]
            for row in told:
                found = map(percent, row["tpr_at"].values())
                wide = [_spanned(row[name]) for name in ("advantage", "auroc")]
                rows.append((row["attack"], *found, *wide))
            doubts = {row["doubt"] for row in told if not row["trusted"]}
            lines += [*table(rows), *(f"not to be trusted: {doubt}" for doubt in sorted(doubts))]
        if told := self.values["copies"]:
            lines += [*([""] if lines else []), "copies from answers"]
            rows = [("questions", "chosen by", "answers", "agreement", "accuracy")]
            for row in told:
                for point in row["points"]:
                    rates = (percent(point[name]) for name in ("agreement", "accuracy"))
                    rows.append((f"{point['queries']:,}", row["strategy"], row["answers"], *rates))
            lines += table(rows)
        if told := self.values["rebuilt"]:
            lines += [*([""] if lines else []), "images rebuilt from the model"]
            rows = [("attack", "prior", "recognised by another net", "what they are")]
            for row in told:
                rows.append(
                    (row["attack"], row["prior"], percent(row["recognised"]), row["verdict"])
                )
            lines += table(rows)
        if told := self.values["audit"]:
            from purpleteam.verbs._audited import lines_of

            lines += [*([""] if lines else []), "audit of the private training", *lines_of(told)]
        return lines


def _spanned(value: dict[str, Any]) -> str:
    return "{value:.3f} ({low:.3f} to {high:.3f})".format_map(value)


@verb(answers=True)
def privacy(
    model: Model = "standard",
    images: Images = "digits",
    labels: Any = None,
    *,
    attack: Annotated[
        Any, Option(kind=list[str], help="NAME[:field=value,...]; repeatable.")
    ] = None,
    shadows: Annotated[
        int, Option(least=2, help="Shadow models, each of a random half of the images; even.")
    ] = 8,
    recipe: Annotated[
        Any, "How shadow models are trained: NAME[:field=value,...]; as the model's card says."
    ] = None,
    epochs: Epochs = None,
    queries: Annotated[
        int | None, Option(least=1, help="Questions that the model answers each attack, at most.")
    ] = None,
    budget: Budget = None,
    **given: Unpack[OnModel],
) -> GivenAway:
    """Tell what a model gives away: its training images, itself, and what a class looks like.

    Members are the training split, or the part of it that the model's card names; the test split
    was not learned. Eight shadow models cost three trainings of the model at most. A copy is
    trained on answers about the validation images, which are the adversary's own here. A training
    with differential privacy is done once more with canaries, which must not prove that it leaks
    more than it says: `audit`.
    """
    from purpleteam.privacy.audit import CanaryAudit
    from purpleteam.privacy.extraction import Strategy
    from purpleteam.privacy.inversion import Inversion
    from purpleteam.privacy.membership import MembershipAttack
    from purpleteam.privacy.shadows import Pool, check_count
    from purpleteam.verbs._audited import audited
    from purpleteam.verbs._copies import copied
    from purpleteam.verbs._learned import Training, learned_by
    from purpleteam.verbs._membership import recognised
    from purpleteam.verbs._rebuilt import rebuilt
    from purpleteam.verbs._subject import code_of, open_subject
    from purpleteam.verbs.trained import seconds_of

    named, seconds = listed(attack), seconds_of(budget)
    asked = [_attack(one) for one in named or USUAL]
    check_count(shadows)
    arch, given["arch"] = given.get("arch"), code_of(given.get("arch"), model)
    subject = open_subject(images, labels, model=model, **given)
    training = Training.of(subject, arch, recipe, epochs)
    learned, others, guessed = learned_by(subject)
    if not named and training.recipe.name == "dp_sgd":
        asked.append(CanaryAudit())
    attacks, left_out = _possible(subject, asked, queries, named=bool(named))
    notes, records = [*subject.notes, *guessed, *left_out], list[Record]()
    values: dict[str, Any] = {"membership": [], "copies": [], "rebuilt": [], "audit": None}
    found: list[Membership] = []
    copies: list[Extraction] = []
    proved: Audit | None = None
    if members := [one for one in attacks if isinstance(one, MembershipAttack)]:
        pool = Pool.of(learned, others, shadows=shadows, seed=subject.seed)
        found, values["shadow_models"], more, said = recognised(
            subject, members, training, pool, learned.digest, shadows, seconds, queries
        )
        records, notes = records + more, notes + said
        values["membership"] = [row.to_json() for row in found]
    if strategies := [one for one in attacks if isinstance(one, Strategy)]:
        copies, more, said = copied(subject, strategies, arch, queries)
        records, notes = records + more, notes + said
        values["copies"] = [row.to_json() for row in copies]
    if inversions := [one for one in attacks if isinstance(one, Inversion)]:
        values["rebuilt"], more = rebuilt(subject, inversions, learned, others)
        records += more
    for one in attacks:
        if isinstance(one, CanaryAudit):
            proved, more = audited(subject, one, training)
            records += more
            values["audit"] = proved.to_json()
    values["members"], values["data"] = len(learned), subject.data("test")
    values["subject"] = subject.about(training_set=learned.digest)
    return GivenAway(
        audit=proved,
        membership=tuple(found),
        copies=tuple(copies),
        values=values,
        records=(*records, subject.part()),
        notes=tuple(dict.fromkeys(notes)),
    )


def _attack(asked: Any) -> Any:
    """Return the attack that `NAME[:field=value,...]` means, of whatever kind."""
    from purpleteam.privacy.audit import CanaryAudit
    from purpleteam.privacy.extraction import EXTRACTIONS
    from purpleteam.privacy.inversion import INVERSIONS
    from purpleteam.privacy.membership import MEMBERSHIP
    from purpleteam.verbs.trained import part

    if not isinstance(asked, str):
        return asked
    kinds: dict[str, Any] = {CanaryAudit.name: CanaryAudit}
    for kind in (MEMBERSHIP, EXTRACTIONS, INVERSIONS):
        kinds |= dict(kind)
    if (name := asked.partition(":")[0]) not in kinds:
        raise UsageError(unknown("attack", name, kinds))
    return part(kinds, asked, "attack")  # type: ignore[arg-type]


def _possible(
    subject: Subject, attacks: Sequence[Any], queries: int | None, *, named: bool
) -> tuple[list[Any], list[str]]:
    """Return the attacks that can be tried, and notes on the others.

    Raises:
        UsageError: one of them cannot, and was asked for by name.
    """
    possible, notes = [], []
    for one in attacks:
        if not (why := _lacking(subject, one, queries)):
            possible.append(one)
        elif named:
            raise UsageError(f"{one.name}: {why}")
        else:
            notes.append(f"{one.name} is not tried: {why}")
    return possible, notes


def _lacking(subject: Subject, attack: Any, queries: int | None) -> str:
    """Return what an attack lacks, or nothing."""
    from purpleteam.privacy.extraction import Strategy
    from purpleteam.privacy.inversion import Inversion
    from purpleteam.privacy.membership import MembershipAttack

    net, dataset = subject.loaded.module, subject.dataset
    labels_only = getattr(net, "gives", "scores") == "labels"
    match attack:
        case MembershipAttack() if labels_only and attack.answers == "scores":
            return f"model {subject.loaded.name!r} gives labels only, and no scores"
        case MembershipAttack() if queries is not None and queries < 2 * attack.queries:
            each = attack.queries
            return f"it asks {each} questions about each image, so {queries} are too few"
        case Strategy() if not len(dataset.validation):
            return (
                f"dataset {dataset.name!r} has no validation images to ask about: "
                "put some into validation/<class>/"
            )
        case Inversion() if labels_only:
            return f"model {subject.loaded.name!r} gives labels only, and no scores"
        case Inversion() if attack.white_box and not getattr(net, "differentiable", True):
            return f"model {subject.loaded.name!r} gives no gradients"
    return ""
