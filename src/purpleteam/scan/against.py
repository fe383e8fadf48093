"""A scan against an older one: what a fix fixed, what it did not, and what it only silenced."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from purpleteam.core.errors import UsageError, reason_of
from purpleteam.core.records import Finding
from purpleteam.scan.sarif import CONTEXT, FINGERPRINT, fingerprints
from purpleteam.scan.scanner import ScanResult

MAX_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True)
class Row:
    """A finding as far as two scans can be compared by it."""

    rule: str
    path: str
    line: int | None
    cell: int | None = None
    message: str
    cwe: str | None
    context: str | None
    fingerprint: str | None
    comment: str | None = None

    @property
    def place(self) -> tuple[str, int, int]:
        return self.path, self.cell or 0, self.line or 0

    def to_json(self) -> dict[str, Any]:
        told = {name: getattr(self, name) for name in ("rule", "path", "cell", "line", "message")}
        return {name: fact for name, fact in told.items() if fact is not None}


Same = Callable[[Row], tuple[Any, ...] | None]
# How an old finding is found again, the surest way first. At last `compare` tries its file alone,
# as its line may be edited: a fault that is named in a file as often as before is not fixed.
SAME: tuple[Same, ...] = (
    lambda row: (row.fingerprint,) if row.fingerprint else None,
    lambda row: (row.rule, row.path, row.context) if row.context else None,
    lambda row: (row.rule, PurePosixPath(row.path).name, row.context) if row.context else None,
    lambda row: (row.rule, row.context) if row.context else None,
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Each finding of the baseline in one of four lists, and what is new."""

    fixed: tuple[Row, ...]
    not_fixed: tuple[Row, ...]
    silenced: tuple[Row, ...]
    """Still there, under a comment that was not there before: ours, `# nosec` or `# noqa`."""
    not_scanned: tuple[Row, ...]
    """Their files were not read this time: nothing is known."""
    new: tuple[Row, ...]
    """Those that a comment silenced before, and no longer does, are among them."""
    states: Mapping[str, str]
    """`baselineState` of each finding of today, by its id."""

    def lists(self) -> dict[str, tuple[Row, ...]]:
        names = ("new", "not_fixed", "fixed", "silenced", "not_scanned")
        return {name: getattr(self, name) for name in names}


def read_baseline(path: Path) -> list[Row]:
    """Return the findings of a SARIF file of ours or of another tool.

    Raises:
        UsageError: it cannot be read, or is no SARIF 2.1.0.
    """
    named = f"baseline {str(path)!r}"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{named} is larger than {MAX_BYTES} bytes")
        log = json.loads(path.read_text(encoding="utf-8-sig"))
        if log["version"] != "2.1.0":
            raise ValueError
        return [_read(result) for run in log["runs"] for result in run.get("results") or ()]
    except OSError as error:
        raise UsageError(f"{named} cannot be read: {reason_of(error)}") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        made = "make one with: purple scan PATH --sarif FILE"
        raise UsageError(f"{named} is no SARIF 2.1.0 log; {made}") from None


def _read(result: Mapping[str, Any]) -> Row:
    place = (result.get("locations") or [{}])[0].get("physicalLocation") or {}
    prints, more = result.get("partialFingerprints") or {}, result.get("properties") or {}
    taxa = [row for row in result.get("taxa") or () if row["toolComponent"].get("name") == "CWE"]
    return Row(
        rule=str(result["ruleId"]),
        path=unquote(str(place.get("artifactLocation", {}).get("uri", ""))),
        line=more.get("line", place.get("region", {}).get("startLine")),
        cell=more.get("cell"),
        message=str(result["message"]["text"]),
        cwe=f"CWE-{taxa[0]['id']}" if taxa else None,
        context=prints.get(CONTEXT),
        fingerprint=prints.get(FINGERPRINT),
        comment=more.get("comment") or ("allow" if result.get("suppressions") else None),
    )


def compare(baseline: list[Row], result: ScanResult) -> Comparison:
    """Return what became of each finding of the baseline."""
    quiet = {row.finding.id for row in result.silenced}
    today = [*result.findings, *(row.finding for row in result.silenced)]
    rows = {
        finding.id: _row(finding, fingerprint, finding.id in quiet)
        for finding, fingerprint in zip(today, fingerprints(today), strict=True)
    }
    unread = {name for name, _ in result.skipped}
    roots = {name.partition("/")[0] for name in (*result.scanned, *unread)}
    apart = roots.isdisjoint(row.path.partition("/")[0] for row in baseline)

    def file(path: str) -> str:
        """Return the path, below its root where the two scans call their roots differently."""
        return (path.partition("/")[2] or path) if apart else path

    by_rule: Same = lambda row: (row.rule, file(row.path))  # noqa: E731
    by_cwe: Same = lambda row: (row.cwe, file(row.path)) if row.cwe else None  # noqa: E731
    before, after, pairs = dict(enumerate(baseline)), dict(rows), {}
    for level, same in enumerate((*SAME, by_rule, by_cwe)):
        waiting = defaultdict(list)
        for id, row in after.items():
            if (key := same(row)) is not None:
                waiting[key].append(id)
        for number, old in list(before.items()):
            if (key := same(old)) is not None and waiting[key]:
                id = waiting[key].pop(0)
                pairs[id] = (before.pop(number), after.pop(id), level)
    read = {file(name) for name in result.scanned if name not in unread}
    gone = {old: file(old.path) in read for old in before.values()}
    hushed = {id for id, (old, row, _) in pairs.items() if row.comment and not old.comment}
    woken = {id for id, (old, *_) in pairs.items() if old.comment == "allow" and id not in quiet}
    states = {
        id: "unchanged" if level < len(SAME) else "updated" for id, (*_, level) in pairs.items()
    }
    found = sorted(pairs.items(), key=lambda pair: pair[1][1].place)
    return Comparison(
        fixed=tuple(old for old in before.values() if gone[old]),
        not_fixed=tuple(row for id, (_, row, _) in found if id not in hushed | woken),
        silenced=tuple(row for id, (_, row, _) in found if id in hushed),
        not_scanned=tuple(old for old in before.values() if not gone[old]),
        new=tuple(row for id, row in rows.items() if id in woken | (after.keys() - quiet)),
        states=dict.fromkeys(after, "new") | states | dict.fromkeys(woken, "new"),
    )


def _row(finding: Finding, fingerprint: str, silenced: bool) -> Row:
    facts = finding.place
    return Row(
        rule=finding.rule,
        path=str(facts.get("path", "")),
        line=facts.get("line"),
        cell=facts.get("cell"),
        message=finding.message,
        cwe=finding.cwe,
        context=facts.get("context"),
        fingerprint=fingerprint,
        comment="allow" if silenced else facts.get("comment"),
    )
