"""privacy: what a model gives away of its training images, and of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Unpack

from purpleteam.core.errors import UsageError, unknown
from purpleteam.core.records import Record
from purpleteam.verbs.attack import listed
from purpleteam.verbs.options import Budget, Epochs, Images, Model, OnModel
from purpleteam.verbs.result import Result, percent, table
from purpleteam.verbs.verb import Option, verb

if TYPE_CHECKING:
    from purpleteam.models.black_box import Gives
    from purpleteam.privacy.audit import Audit
    from purpleteam.privacy.extraction.extract import Extraction
    from purpleteam.privacy.membership.measure import Membership

USUAL = (
    *("loss", "entropy", "lira", "rmia", "bavaria", "label_only"),
    *("extraction_natural", "inversion_gradient"),
)
FALSE_POSITIVES = (0.001, 0.01)


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
                found = [percent(row["tpr_at"][f"{rate:g}"]) for rate in FALSE_POSITIVES]
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
    from purpleteam.privacy.extraction import EXTRACTIONS
    from purpleteam.privacy.inversion import INVERSIONS
    from purpleteam.privacy.membership import MEMBERSHIP
    from purpleteam.privacy.shadows import halves
    from purpleteam.verbs._audited import audited
    from purpleteam.verbs._copies import copied
    from purpleteam.verbs._membership import recognised
    from purpleteam.verbs._rebuilt import rebuilt
    from purpleteam.verbs._shadows import Training, learned_by
    from purpleteam.verbs._subject import code_of, open_subject
    from purpleteam.verbs.trained import part, seconds_of

    named, seconds = listed(attack), seconds_of(budget)
    AUDITS = {CanaryAudit.name: CanaryAudit}  # noqa: N806
    kinds: dict[str, Any] = {
        name: kind for kind in (MEMBERSHIP, EXTRACTIONS, INVERSIONS, AUDITS) for name in kind
    }
    asked: dict[int, list[Any]] = {id(kind): [] for kind in kinds.values()}
    for text in named or USUAL:
        if isinstance(text, str):
            name = text.partition(":")[0]
            if name not in kinds:
                raise UsageError(unknown("attack", name, kinds))
            asked[id(kinds[name])].append(part(kinds[name], text, "attack"))
        else:
            asked[id(kinds[text.name])].append(text)
    halves(0, shadows, 0)  # an odd number is refused before anything is read
    arch, given["arch"] = given.get("arch"), code_of(given.get("arch"), model)
    subject = open_subject(images, labels, model=model, **given)
    training = Training.of(subject, arch, recipe, epochs)
    learned, others, guessed = learned_by(subject)
    notes = [*subject.notes]
    gives: Gives = getattr(subject.loaded.module, "gives", "scores")
    white_box = getattr(subject.loaded.module, "differentiable", True)
    for attacks in asked.values():
        cannot = [
            one
            for one in attacks
            if (gives == "labels" and getattr(one, "answers", "labels") == "scores")
            or (gives == "labels" and one.name in INVERSIONS)
            or (getattr(one, "white_box", False) and not white_box)
        ]
        if cannot:
            needs = "gradients" if getattr(cannot[0], "white_box", False) else "scores"
            only = f"model {subject.loaded.name!r} gives {gives} only"
            if named:
                raise UsageError(f"{only}, and {cannot[0].name} needs {needs}")
            notes.append(f"{only}: not tried are {', '.join(one.name for one in cannot)}")
            attacks[:] = [one for one in attacks if one not in cannot]
    records: list[Record] = []
    values: dict[str, Any] = {"membership": [], "copies": [], "rebuilt": [], "audit": None}
    found: list[Membership] = []
    copies: list[Extraction] = []
    if attacks := asked[id(MEMBERSHIP)]:
        told = recognised(subject, attacks, training, learned, others, shadows, seconds, queries)
        found, values["shadow_models"], more, said = told
        records += more
        notes += [*guessed, *said]
        values["membership"] = [row.to_json() for row in found]
    if attacks := asked[id(EXTRACTIONS)]:
        copies, more, said = copied(subject, attacks, arch, queries, gives)
        records += more
        notes += said
        values["copies"] = [row.to_json() for row in copies]
    if attacks := asked[id(INVERSIONS)]:
        values["rebuilt"], more = rebuilt(subject, attacks, learned, others)
        records += more
    proved = None
    if not named and training.recipe.name == "dp_sgd":
        asked[id(AUDITS)].append(CanaryAudit())
    for one in asked[id(AUDITS)]:
        proved, more = audited(subject, one, training)
        records += more
        values["audit"] = proved.to_json()
    return GivenAway(
        audit=proved,
        membership=tuple(found),
        copies=tuple(copies),
        values={
            **values,
            "members": len(learned),
            "subject": subject.about(training_set=learned.digest),
            "data": subject.data("test"),
        },
        records=(*records, subject.part()),
        notes=tuple(dict.fromkeys(notes)),
    )
