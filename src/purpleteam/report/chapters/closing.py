"""The end: what was not tested, how to run each number again, and every record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from purpleteam.core.records import CheckResult, Measurement, Note, Record
from purpleteam.core.statistics import Counts
from purpleteam.report.blocks import checks_block, galleries
from purpleteam.report.collect import Evidence, model_name
from purpleteam.report.numbers import number_of
from purpleteam.report.view import (
    DASH,
    Block,
    Chapter,
    Missing,
    Mono,
    Prose,
    Reading,
    RecordLink,
    Row,
    Table,
    numbers_in,
    row,
)

LONGEST = 600
"""Characters of a record that the appendix shows; the file has all of it."""
KNOWN_ROOMS = (
    "data",
    "model",
    "models",
    "attack",
    "attacks",
    "defence",
    "defences",
    "scan",
    "code",
    "serve",
    "app",
    "web",
    "probe",
)
KNOWN_PICTURES = ("digits", "evasion", "trigger", "planted", "recovered", "drawing")


def chapters(evidence: Evidence, told: Sequence[Chapter]) -> tuple[Chapter, ...]:
    """Return the last three chapters; `told` are the ones before, to find what they left out."""
    return _not_tested(evidence), _again(evidence), _appendix(evidence, tuple(told))


def _not_tested(evidence: Evidence) -> Chapter:
    lines = [
        (note.id, item) for note in evidence.notes("not-tested") for item in _lines(note.facts)
    ]
    failures = evidence.failures()
    blocks: list[Block] = [
        Table(
            caption="Asked for and not done",
            columns=("What", "Why", "Needs"),
            rows=tuple(
                row((f"{one.stage}: {one.what}", RecordLink(one.id)), one.reason, one.needs or DASH)
                for one in failures
            ),
            note=("purple run --resume tries these again.",),
        )
    ] * bool(failures)
    blocks += [
        Table(
            caption="Not tested, and what that leaves open",
            columns=("What", "Why, and what follows"),
            rows=tuple(row(what, why or DASH, record=record) for record, (what, why) in lines),
        )
        if lines
        else Missing(
            "The run recorded no list of what it did not test; take nothing as tested that has "
            "no record."
        ),
        Reading(
            "A report is as honest as its list of gaps. Whoever relies on a number above should "
            "read this list first.",
            "That something is missing here does not mean that it was tested: only a record does.",
        ),
    ]
    return Chapter(
        id="not-tested",
        title="What was not tested",
        lead="The gaps, said by the run itself.",
        blocks=tuple(blocks),
    )


def _lines(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines = []
    for item in facts.get("items") or ():
        if isinstance(item, Mapping):
            values = [str(value) for value in item.values()]
            lines.append((values[0] if values else "", "; ".join(values[1:])))
        else:
            what, _, why = str(item).partition(": ")
            lines.append((what, why))
    return lines


def _again(evidence: Evidence) -> Chapter:
    blocks: list[Block] = [
        Prose(
            (
                "Each number has a record, and each record can be measured again. Inside the "
                "folder that holds this report, type the command in its row; it measures the same "
                "thing anew and says whether the two agree.",
            )
        )
    ]
    rows = tuple(_replay(one) for one in evidence.measurements)
    if rows:
        columns = ("Number", "As recorded", "Command")
        blocks.append(Table(caption="Commands", columns=columns, rows=rows, folded=True))
    else:
        blocks.append(Missing("This run measured nothing, so there is nothing to run again."))
    checks = [one for one in evidence.of(CheckResult) if one.check.split(".")[0] not in KNOWN_ROOMS]
    blocks += [checks_block(checks, "Checks of the record itself", "")] if checks else []
    return Chapter(
        id="again",
        title="How to run each number again",
        lead="No number here has to be believed.",
        blocks=tuple(blocks),
    )


def _replay(one: Measurement) -> Row:
    about = " ".join(part for part in (one.name.replace("_", " "), "of", model_name(one)) if part)
    return row(
        (about if model_name(one) else one.name.replace("_", " "), " ", RecordLink(one.id)),
        number_of(one),
        Mono(f"purple replay . {one.id}"),
        record=one.id,
    )


def _appendix(evidence: Evidence, told: tuple[Chapter, ...]) -> Chapter:
    shown = {record for number in numbers_in(told) if not number.tally for record in number.records}
    rest = [one for one in evidence.measurements if one.id not in shown]
    blocks: list[Block] = []
    if rest:
        blocks.append(_rest(rest))
    kinds = {str(note.facts.get("kind")) for note in evidence.notes("gallery")}
    blocks += galleries(evidence, *sorted(kinds - set(KNOWN_PICTURES)))
    blocks.append(_asked(evidence.info))
    for kind, title in KINDS.items():
        found = [record for record in evidence.records if record.kind == kind]
        if found:
            rows = tuple(_record_row(record) for record in found)
            columns = ("Record", "What", "Content")
            blocks.append(Table(caption=title, columns=columns, rows=rows, folded=True, dense=True))
    return Chapter(
        id="records",
        title="All records",
        lead="Everything that the run wrote down; every number above leads here.",
        blocks=tuple(blocks),
    )


KINDS = {
    "measurement": "Measurements",
    "finding": "Findings",
    "check": "Checks",
    "threat": "Threats",
    "artefact": "Files",
    "note": "Notes",
    "failure": "Failures",
}


def _rest(rest: Sequence[Measurement]) -> Table:
    rows = tuple(
        row(
            (one.name.replace("_", " "), RecordLink(one.id)),
            model_name(one) or DASH,
            Mono(_text({**one.how})) if one.how else DASH,
            number_of(one),
            record=one.id,
        )
        for one in rest
    )
    columns = ("Measurement", "Model", "How", "Value")
    return Table(caption="Measurements that no chapter tells of", columns=columns, rows=rows)


def _asked(info: Mapping[str, Any]) -> Table:
    rows = tuple(
        row(key.replace("_", " "), Mono(_text(value)), record="run.json")
        for key, value in sorted(info.items())
        if key != "artefacts"
    )
    return Table(
        caption="What was asked, and of what",
        columns=("Entry", "In run.json"),
        rows=rows,
        folded=True,
    )


def _record_row(record: Record) -> Row:
    content = record.to_json()
    for name in ("id", "kind", "command", "cost"):
        content.pop(name, None)
    return row(
        Mono(record.id), _title(record), Mono(_text(content)), record=record.id, anchor=record.id
    )


def _title(record: Record) -> str:
    for name in ("name", "rule", "check", "threat", "path", "what"):
        found = getattr(record, name, None)
        if isinstance(found, str):
            about = (
                f", {model_name(record)}"
                if isinstance(record, Measurement) and model_name(record)
                else ""
            )
            return (
                found.replace("_", " ") + about if isinstance(record, Measurement | Note) else found
            )
    return record.kind


def _text(value: Any) -> str:
    if isinstance(value, Counts):
        value = value.to_json()
    text = json.dumps(
        value, ensure_ascii=False, sort_keys=True, separators=(", ", ": "), default=str
    )
    return (
        text if len(text) <= LONGEST else text[:LONGEST] + " … (cut; records.jsonl has all of it)"
    )
