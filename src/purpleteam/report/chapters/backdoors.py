"""The poison lab: attack, detection and repair side by side, the lost cells included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from purpleteam.core.records import Measurement
from purpleteam.report.blocks import bar_of, galleries
from purpleteam.report.chapters.searches import (
    about,
    note_about,
    rankings,
    repairs,
    searches,
    seed_of,
    shares,
    success,
    verdict,
)
from purpleteam.report.collect import Evidence, model_name
from purpleteam.report.figures import bars
from purpleteam.report.numbers import number_or_dash
from purpleteam.report.view import (
    Block,
    Cell,
    Chapter,
    Figure,
    Gallery,
    Given,
    Missing,
    Prose,
    Reading,
    RecordLink,
    Row,
    Table,
    row,
)

LEAD = "Backdoors that were planted, looked for without being told, and taken out again."
OWN_LEAD = "What a search for backdoors says of the models and of the training set."
OWN_MEANS = (
    "Nothing was planted here: the searches looked into what this run trained on and what is "
    "served. A score that reaches its limit is one that a clean model or set would hardly have."
)
OWN_MEANS_NOT = (
    "That nothing was found does not prove that nothing is there: weak, rare and adaptive "
    "triggers pass, and an adversary who knows the search will try to hide from it."
)
MEANS = (
    "Each backdoor was planted in a training set and learned by a model of its own. The searches "
    "were told neither class nor number nor trigger; what was planted was used only to count "
    "afterwards. The clean models show what the same searches say where there is nothing to find."
)
MEANS_NOT = (
    "A search that finds these backdoors need not find others: an adversary who knows it will try "
    "to hide from it. And a repair that lowers the success of the planted trigger has been judged "
    "with that trigger alone."
)


def chapter(evidence: Evidence) -> Chapter:
    """Return the chapter."""
    planted = [one for one in success(evidence) if "repair" not in one.how]
    scans = evidence.notes("model-scan") + evidence.notes("training-set-scan")
    blocks: list[Block] = []
    if not planted and not scans and not evidence.notes("no-search"):
        blocks.append(Missing("No backdoor was planted in the lab, and nothing was looked for."))
    else:
        blocks += [_side_by_side(evidence, planted)] if planted else []
        blocks += [figure] if (figure := _figure(evidence, planted)) is not None else []
        blocks += _pictures(evidence)
        found = (shares(evidence), searches(evidence), rankings(evidence), repairs(evidence))
        blocks += [table for table in found if table is not None]
        blocks += _refused(evidence)
    blocks.append(Reading(MEANS, MEANS_NOT) if planted else Reading(OWN_MEANS, OWN_MEANS_NOT))
    lead = LEAD if planted else OWN_LEAD
    return Chapter(id="backdoors", title="Backdoors", lead=lead, blocks=tuple(blocks))


def is_told_of(evidence: Evidence) -> bool:
    """Say whether backdoors were planted in a lab or looked for."""
    searches = evidence.notes("model-scan") + evidence.notes("training-set-scan")
    return bool(searches or success(evidence))


def _pictures(evidence: Evidence) -> list[Block]:
    """Return what was planted with what was recovered beside it, a backdoor at a time."""
    shown: dict[str, Gallery] = {}
    for one in galleries(evidence, "planted", "recovered"):
        about = one.title.partition(": ")[2]
        before = shown.get(about)
        pictures = one.pictures if before is None else before.pictures + one.pictures
        title = one.title if before is None else f"Planted, and recovered: {about}"
        shown[about] = replace(before or one, title=title, pictures=pictures)
    return list(shown.values())


def _side_by_side(evidence: Evidence, planted: Sequence[Measurement]) -> Table:
    columns = (
        "Backdoor",
        "Seed",
        "Clean accuracy",
        "Attack success rate",
        "Base rate",
        "Poisoned images found",
        "Clean images flagged",
        "Model scan",
        "Success after the best repair",
    )
    return Table(
        caption="Attack, detection and repair",
        columns=columns,
        rows=tuple(_trial(evidence, one) for one in planted),
        dense=True,
        note=("The best repair is the one after which the trigger works least.",),
    )


def _trial(evidence: Evidence, one: Measurement) -> Row:
    after = _after(evidence, one)
    best = min(after, key=lambda other: other.value.value, default=None)
    repair: Cell = (number_or_dash(best),)
    if best is not None:
        repair = (*repair, " ", Given(str(best.how["repair"]), best.id))
    return row(
        (model_name(one), RecordLink(one.id)),
        seed_of(one),
        number_or_dash(about(evidence.find("clean_accuracy"), one)),
        number_or_dash(one),
        number_or_dash(about(evidence.find("base_rate"), one)),
        number_or_dash(about(evidence.find("detection_recall"), one, detector="combined")),
        number_or_dash(about(evidence.find("false_positive_rate"), one, detector="combined")),
        verdict(note_about(evidence, "model-scan", one)),
        repair,
    )


def _after(evidence: Evidence, one: Measurement) -> list[Measurement]:
    """Return the success rates of the repaired versions of a backdoored model."""
    before = one.subject.get("model")
    return [other for other in success(evidence) if other.subject.get("before") == before]


def _figure(evidence: Evidence, planted: Sequence[Measurement]) -> Figure | None:
    shown = [(one, _after(evidence, one)) for one in planted if one.seed == planted[0].seed]
    shown = [(one, after) for one, after in shown if after]
    if not shown:
        return None
    groups = [
        (
            model_name(one),
            (
                bar_of(one, "attack", "not repaired"),
                *(bar_of(other, "plain", str(other.how["repair"])) for other in after),
            ),
        )
        for one, after in shown
    ]
    title = "What the trigger still does after each repair"
    rows = tuple(
        row(model_name(one), str(one.how.get("repair", "not repaired")), number_or_dash(one))
        for before, after in shown
        for one in (before, *after)
    )
    return Figure(
        title=title,
        svg=bars(title, "For each backdoor, attack success before and after.", groups),
        caption=("Red: before. Grey: after each repair; the shorter, the better. First seed.",),
        table=Table(
            caption=title,
            columns=("Model", "Repair", "Attack success rate"),
            rows=rows,
            folded=True,
        ),
    )


def _refused(evidence: Evidence) -> list[Block]:
    """Say which searches could not be done, and which repairs had nothing to go by."""
    return [
        Prose(
            (
                f"{what} {note.facts.get('model_name')}: {note.facts.get('why')} ",
                RecordLink(note.id),
            )
        )
        for name, what in (("no-search", "No search of"), ("no-repair", "No repair"))
        for note in evidence.notes(name)
    ]
