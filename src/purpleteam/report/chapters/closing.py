"""The end of the page: what was not tested, and every record; and how a record opens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from purpleteam.core.records import CheckResult, Measurement, Note, Record
from purpleteam.core.schema import GALLERY, MODEL, NOT_TESTED, SERVED
from purpleteam.core.statistics import Counts
from purpleteam.report.blocks import checks_table, gallery_blocks
from purpleteam.report.chapter import CHAPTERS, ordered
from purpleteam.report.collect import Evidence, model_name
from purpleteam.report.numbers import BETTER, metric_of, number_of
from purpleteam.report.view import (
    DASH,
    Block,
    Cell,
    Command,
    Mono,
    Reading,
    RecordLink,
    RecordView,
    Row,
    Section,
    Table,
    numbers_in,
    row,
)

LONGEST = 900
"""Characters of a record that the page shows; the file has all of it."""
KINDS = {
    "measurement": "Measurements",
    "finding": "Findings",
    "check": "Checks",
    "threat": "Threats",
    "artefact": "Files",
    "note": "Notes",
    "failure": "Failures",
}
NORMS = ("linf", "l2", "l1", "l0")
ALWAYS = (
    "Adaptive attacks by a person, written against this very model",
    "Rotations, translations, weather and physical attacks",
    "Privacy: membership inference, model inversion and extraction",
    "Triggers of other kinds than those that the detectors know",
    "Published vulnerabilities of the dependencies: no advisories are consulted",
)
"""What no run of this version looks at."""
ON_THE_APP = (
    "The app under load, behind a proxy or on a network: it is asked on the loopback address only",
    "Drawings by people: what is drawn here are test images, enlarged and shifted",
)
"""What no run looks at where an app was started."""

DERIVED = 2
"""From this version of a run on the list is derived; before, each run carried the same lines."""

Gap = tuple[str, str]
"""What was not tested, and the command that tests it; without one, none does."""


def gaps(evidence: Evidence) -> list[Gap]:
    """Return what was not tested: told from the records that are not there."""
    model, dataset = evidence.typed
    chapters = [
        (chapter.gap, chapter.try_.format(model=model, dataset=dataset))
        for chapter in map(CHAPTERS.__getitem__, ordered())
        if chapter.gap and not chapter.is_told(evidence)
    ]
    attack = f"purple attack --model {model} --dataset {dataset}"
    return [*_attack_gaps(evidence, attack), *chapters]


def _attack_gaps(evidence: Evidence, command: str) -> list[Gap]:
    """Return which kinds of attack the model at hand did not meet."""
    met = evidence.find("robust_accuracy", evidence.at_hand)
    if not met:
        return []
    attacks = "+".join(str(record.how.get("attack")) for record in met)
    knowledge = {str(record.how.get("knowledge", "white-box")) for record in met}
    tried = {record.how.get("norm", "linf") for record in met}
    norms = [norm for norm in NORMS if norm not in tried]
    missing: list[Gap] = []
    if "autoattack" not in attacks:  # its last member is a black-box attack
        what = "The strongest ladder of attacks, AutoAttack"
        missing.append((what, f"{command} --attack autoattack"))
        if knowledge <= {"white-box", "transfer"}:
            what = "Black-box attacks, which show gradient masking"
            missing.append((what, f"{command} --attack square"))
    if norms:
        said = f"Evasion within other norms: {', '.join(norms)}"
        missing.append((said, f"{command} --norm {norms[0]} --epsilon EPSILON"))
    return missing


def last_sections(evidence: Evidence, told: tuple[Section, ...]) -> tuple[Section, Section]:
    """Return the last two sections; `told` are those before, to find what they left out."""
    return _not_tested(evidence), _records(evidence, told)


def _not_tested(evidence: Evidence) -> Section:
    failed = tuple(
        row(
            (f"{record.stage}: {record.what}", RecordLink(record.id)),
            record.reason,
            record.needs or DASH,
        )
        for record in evidence.failures()
    )
    noted = [
        row(what, why or DASH, record=note.id)
        for note in evidence.notes(NOT_TESTED)
        for what, why in _items(evidence, note.facts)
    ]
    served = evidence.notes(SERVED)
    rows = [row(what, Command(how) if how else DASH) for what, how in gaps(evidence)]
    rows += noted
    rows += [row(what, "no run looks at it") for what in (*ALWAYS, *(ON_THE_APP if served else ()))]
    blocks: list[Block] = []
    if failed:
        columns = ("What", "Why", "Needs")
        note = ("purple run --resume tries these again.",)
        caption = "Asked for and not done"
        blocks.append(Table(caption=caption, columns=columns, rows=failed, note=note, stacked=True))
    blocks.append(
        Table(
            caption="Not tested",
            columns=("What", "What to type, or why it is not"),
            rows=tuple(rows),
            stacked=True,
        )
    )
    blocks.append(
        Reading(
            "Nothing above says anything about these. The list follows from the records: what has "
            "none was not tested.",
            "That something is missing here does not mean that it was tested: only a record does.",
        )
    )
    return Section(
        id="not-tested",
        title="What was not tested",
        lead="The gaps, and the command that fills each.",
        blocks=tuple(blocks),
    )


def _items(evidence: Evidence, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines = []
    for item in facts.get("items") or ():
        if isinstance(item, Mapping):
            first, *rest = [*map(str, item.values()), ""]
            lines.append((first, "; ".join(filter(None, rest))))
        elif evidence.info.get("schema", 0) >= DERIVED:
            what, _, why = str(item).partition(": ")
            lines.append((what, why))
    return lines


def _records(evidence: Evidence, told: tuple[Section, ...]) -> Section:
    shown = {record for number in numbers_in(told) if not number.tally for record in number.records}
    rest = [record for record in evidence.measurements if record.id not in shown]
    blocks: list[Block] = []
    if rest:
        rows = tuple(
            row(
                (record.name.replace("_", " "), RecordLink(record.id)),
                model_name(record) or DASH,
                Mono(_text(record.how)) if record.how else DASH,
                number_of(record),
                record=record.id,
            )
            for record in rest
        )
        columns = ("Measurement", "Model", "How", "Value")
        caption = "Measurements that no chapter tells of"
        blocks.append(Table(caption=caption, columns=columns, rows=rows, folded=len(rest) > 9))
    shown_kinds = {kind for chapter in CHAPTERS.values() for kind in chapter.galleries}
    shown_kinds |= {"planted", "recovered"}
    kinds = {str(note.facts.get("kind")) for note in evidence.notes(GALLERY)}
    blocks += gallery_blocks(evidence, *sorted(kinds - shown_kinds))
    rooms = {room for chapter in CHAPTERS.values() for room in chapter.checks} | {"run"}
    checks = [
        record for record in evidence.of(CheckResult) if record.check.split(".")[0] not in rooms
    ]
    blocks += [checks_table(checks, "Other checks")] if checks else []
    blocks.append(_asked(evidence.info))
    for kind, title in KINDS.items():
        listed = tuple(_row(record) for record in evidence.records if record.kind == kind)
        if listed:
            of = ("Record", "What", "Of")
            table = Table(caption=title, columns=of, rows=listed, folded=True, dense=True)
            blocks.append(table)
    return Section(
        id="records",
        title="All records",
        lead="Everything that the run wrote down, and the command that measures each number again.",
        blocks=tuple(blocks),
    )


def _asked(info: Mapping[str, Any]) -> Table:
    rows = tuple(
        row(key.replace("_", " "), Mono(_text(value)), record="run.json")
        for key, value in sorted(info.items())
        if key != "artefacts"
    )
    columns = ("Entry", "In run.json")
    return Table(caption="What was asked, and of what", columns=columns, rows=rows, folded=True)


def _row(record: Record) -> Row:
    about: Cell = (model_name(record),) if isinstance(record, Measurement) else ()
    return row(RecordLink(record.id), _title(record), about or DASH, record=record.id)


def record_views(evidence: Evidence) -> tuple[RecordView, ...]:
    """Return every record as it opens on the page."""
    return tuple(map(_view, evidence.records))


def _view(record: Record) -> RecordView:
    content = record.to_json()
    for name in ("id", "kind", "command", "cost"):
        content.pop(name, None)
    title, meaning, command = _title(record), "", ""
    if isinstance(record, Measurement):
        title = f"{title}, {model_name(record)}" if model_name(record) else title
        metric = metric_of(record.name)
        meaning = metric.meaning + BETTER[metric.better] if metric else ""
        command = f"purple replay . {record.id}"
    if isinstance(record, CheckResult):
        meaning = record.proves
    lines = (f"{key}: {_text(value)}" for key, value in content.items() if value not in ({}, None))
    return RecordView(
        id=record.id, title=title, meaning=meaning, command=command, content="\n".join(lines)
    )


def _title(record: Record) -> str:
    for name in ("name", "rule", "check", "threat", "path", "what"):
        text = getattr(record, name, None)
        if isinstance(text, str):
            plain = isinstance(record, Measurement | Note)
            role = (
                f": {record.facts.get('role')}"
                if isinstance(record, Note) and text == MODEL
                else ""
            )
            return (text.replace("_", " ") if plain else text) + role
    return record.kind


def _text(value: Any) -> str:
    if isinstance(value, Counts):
        value = value.to_json()
    if isinstance(value, str):
        text = value
    else:
        text = json.dumps(
            value, ensure_ascii=False, sort_keys=True, separators=(", ", ": "), default=str
        )
    return text if len(text) <= LONGEST else text[:LONGEST] + " … (cut; records.jsonl has it all)"
