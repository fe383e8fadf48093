"""The end of the page: what was not tested, and every record; and how a record opens."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from purpleteam.core.records import CheckResult, Measurement, Note, Record
from purpleteam.core.schema import GALLERY, MODEL, NOT_TESTED, SERVED
from purpleteam.core.statistics import Counts
from purpleteam.report import view
from purpleteam.report.blocks import checks, galleries
from purpleteam.report.chapter import CHAPTERS, ordered
from purpleteam.report.chapters.scan import MOST, gravest_first
from purpleteam.report.collect import Evidence, model_name
from purpleteam.report.numbers import meaning, number_of, of_epsilon

LONGEST = 900
"""Characters of a record that the page shows; the file has all of it."""
KINDS = ("measurement", "finding", "check", "threat", "artefact", "note", "failure")
NAMES = ("name", "rule", "check", "threat", "path", "what")
"""Fields by which a record is called, the first that it has."""
NORMS = ("linf", "l2", "l1", "l0")
ALWAYS = (
    "Adaptive attacks by a person, written against this very model",
    "Rotations, translations, weather and physical attacks",
    "Privacy: membership inference, model inversion and extraction",
    "Triggers of other kinds than those that the detectors know",
    "Published holes of packages that the snapshot of advisories does not list",
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
    """Return what was not tested: told from the records that are not there.

    Of a sweep whose records are not all at hand nothing is told.
    """
    if not evidence.swept.whole:
        return []
    (model, dataset), epsilon = evidence.typed, evidence.headline_epsilon or 0.1
    command = f"purple attack --model {model} --dataset {dataset}"
    missing: list[Gap] = []
    if met := evidence.find("robust_accuracy", evidence.at_hand):
        attacks = "+".join(str(record.how.get("attack")) for record in met)
        knowledge = {str(record.how.get("knowledge", "white-box")) for record in met}
        tried = {record.how.get("norm", "linf") for record in met}
        norms = [norm for norm in NORMS if norm not in tried]
        if "autoattack" not in attacks:  # its last member is a black-box attack
            untried = "The strongest ladder of attacks, AutoAttack"
            missing.append((untried, f"{command} --attack autoattack"))
            if knowledge <= {"white-box", "transfer"}:
                untried = "Black-box attacks, which show gradient masking"
                missing.append((untried, f"{command} --attack square"))
        if norms:
            untried = f"Evasion within other norms: {', '.join(norms)}"
            missing.append((untried, f"{command} --norm {norms[0]} --epsilon EPSILON"))
    return missing + [
        (
            chapter.gap,
            chapter.try_.format(model=model, dataset=dataset, epsilon=of_epsilon(epsilon)),
        )
        for chapter in ordered().values()
        if chapter.gap and not chapter.is_told(evidence)
    ]


def not_tested(evidence: Evidence) -> view.Section:
    """Return the section on what was not tested."""
    failed = [
        view.row(
            (f"{failure.stage}: {failure.what}", view.RecordLink(failure.id)),
            failure.reason,
            failure.needs or view.DASH,
        )
        for failure in evidence.failures()
    ]
    rows = [view.row(gap, view.Command(how) if how else view.DASH) for gap, how in gaps(evidence)]
    for note in evidence.notes(NOT_TESTED):
        for item in note.facts.get("items") or ():
            if isinstance(item, Mapping):
                gap, *rest = [*map(str, item.values()), ""]
                reason = "; ".join(filter(None, rest))
            elif evidence.info.get("schema", 0) >= DERIVED:
                gap, _, reason = str(item).partition(": ")
            else:
                continue
            rows.append(view.row(gap, reason or view.DASH, record=note.id))
    never = (*ALWAYS, *(ON_THE_APP if evidence.notes(SERVED) else ()))
    rows += [view.row(gap, "no run looks at it") for gap in never]
    again = ("purple run --resume tries these again.",)
    columns, why = ("What", "What to type, or why it is not"), ("What", "Why", "Needs")
    blocks = view.flat(
        view.Table("Asked for and not done", why, failed, note=again, stacked=True),
        view.Table("Not tested", columns, rows, stacked=True),
        view.Reading(
            "Nothing above says anything about these. The list follows from the records: what has "
            "none was not tested.",
            "That something is missing here does not mean that it was tested: only a record does.",
        ),
    )
    lead = "The gaps, and the command that fills each."
    return view.Section("not-tested", "What was not tested", lead, tuple(blocks))


def all_records(evidence: Evidence, told: Sequence[view.Section]) -> view.Section:
    """Return the last section; `told` are those before, to find what they left out."""
    numbers = (number for number in view.numbers_in(told) if not number.tally)
    shown = {record for number in numbers for record in number.records}
    rest = [
        view.row(
            (record.name.replace("_", " "), view.RecordLink(record.id)),
            model_name(record) or view.DASH,
            view.Mono(_text(record.how)) if record.how else view.DASH,
            number_of(record),
            record=record.id,
        )
        for record in evidence.measurements
        if record.id not in shown
    ]
    kinds = {str(note.facts.get("kind")) for note in evidence.notes(GALLERY)}
    kinds -= {kind for chapter in CHAPTERS.values() for kind in chapter.galleries}
    rooms = {check.check.split(".")[0] for check in evidence.of(CheckResult)} - {"run"}
    rooms -= {room for chapter in CHAPTERS.values() for room in chapter.checks}
    asked = [
        view.row(key.replace("_", " "), view.Mono(_text(value)), record="run.json")
        for key, value in sorted(evidence.info.items())
        if key != "artefacts"
    ]
    lists = []
    unlisted = {finding.id for finding in gravest_first(evidence)[MOST:]}
    for kind in KINDS:
        rows = []
        listed = [line for line in evidence.records if line.id not in unlisted]
        for line in [record for record in listed if record.kind == kind]:
            model = model_name(line) if isinstance(line, Measurement) else view.DASH
            rows.append(view.row(view.RecordLink(line.id), _title(line), model, record=line.id))
        title = "Files" if kind == "artefact" else f"{kind.capitalize()}s"
        lists.append(view.Table(title, ("Record", "What", "Of"), rows, folded=True, dense=True))
    untold, columns = "Measurements that no chapter tells of", "Measurement Model How Value"
    blocks = view.flat(
        view.Table(untold, columns.split(), rest, folded=len(rest) > 9),
        galleries(*sorted(kinds - {"planted", "recovered"}))(evidence),
        checks("Other checks", *rooms)(evidence),
        view.Table("What was asked, and of what", ("Entry", "In run.json"), asked, folded=True),
        lists,
    )
    lead = "Everything that the run wrote down, and the command that measures each number again."
    return view.Section("records", "All records", lead, tuple(blocks))


def opened(record: Record) -> tuple[str, str, str, str, str]:
    """Return a record as it opens on the page: id, title, meaning, command, content."""
    content = record.to_json()
    for name in ("id", "kind", "command", "cost"):
        content.pop(name, None)
    title, means, command = _title(record), "", ""
    if isinstance(record, Measurement):
        title = f"{title}, {model_name(record)}" if model_name(record) else title
        means, command = meaning(record.name), f"purple replay . {record.id}"
    if isinstance(record, CheckResult):
        means = record.proves
    lines = (f"{key}: {_text(value)}" for key, value in content.items() if value not in ({}, None))
    return record.id, title, means, command, "\n".join(lines)


def _title(record: Record) -> str:
    if isinstance(record, Note) and record.name == MODEL:
        return f"{MODEL}: {record.facts.get('role')}"
    names = [getattr(record, name, None) for name in NAMES]
    title = next((name for name in names if isinstance(name, str)), record.kind)
    return title.replace("_", " ") if isinstance(record, Measurement | Note) else title


def _text(value: Any) -> str:
    value = value.to_json() if isinstance(value, Counts) else value
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    text = str(value)
    return text if len(text) <= LONGEST else text[:LONGEST] + " … (cut; records.jsonl has it all)"
