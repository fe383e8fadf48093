"""After the scanners: one finding a fault, code that nobody read, and what comments allow.

A finding may be allowed on its own line, by rule, with a day and a reason:
`# purple: allow PT003 until 2027-01-31 because the file is written by the line above`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from purpleteam.core.digest import sha256_bytes
from purpleteam.core.records import Finding, Severity
from purpleteam.scan.scanner import Rule, ScanResult, Silenced, Tree, is_code
from purpleteam.scan.scanners.ml_code import scan_ml_code
from purpleteam.scan.text import Cell, decode, read_cells, split_lines

ID = r"(?:P[TMD]|B)\d{3}"
ALLOW = re.compile(rf"purple:\s*allow\s+({ID}(?:\s*,\s*{ID})*)(.*)")
UNTIL = re.compile(r"\buntil\s+(\d{4}-\d\d-\d\d)\b")
FILLING = re.compile(r"^(?:\W|\bbecause\b|\bas\b|\bsince\b)+|[\s*/>-]+$")
UNREAD = Rule("PT022", "medium", "CWE-693", "read it yourself, or write it as this Python reads it")
SHOWN = 5
"""Reasons that a finding of an unread file tells."""
MILDER: dict[str, Severity] = {"B615": "low"}  # a revision says which code, not that it is harmless
FOLLOWED = frozenset({"B202", "B506", "B614"})
"""Bandit's rules of calls by their own line; ours also read what the names on it stand for."""
REASON = 6
"""Letters of the shortest reason."""
HUSHED = re.compile(r"#\s*(nosec|noqa|nosemgrep)\b")
"""What other tools take as leave; here it is told and silences nothing."""
LEAVE = re.compile(r"(?:#|//|<!--)\s*(?:nosec|noqa|nosemgrep|purple:)")
TWINS = {  # Bandit's rule, and those of ours that name the same fault on the same line
    **dict.fromkeys(("B301", "B302"), ("PT003", "PT004")),
    **dict.fromkeys(("B307", "B102"), ("PT008",)),
    **dict.fromkeys(("B105", "B106", "B107"), ("PT020",)),
    "B614": ("PT001", "PT002"),
    "B506": ("PT009",),
    "B201": ("PT005",),
    "B615": ("PT011",),
    "B701": ("PT018",),
    **dict.fromkeys(("B501", "B323"), ("PT023",)),
    "B202": ("PT024",),
    "PT001": ("PT002",),
    "PD010": ("PD001",),
}
IMPORT_TWINS = {"B403": ("PT003",)}  # an import, and its use anywhere in the file


def settle(result: ScanResult, tree: Tree, *, inline_allow: bool = True) -> ScanResult:
    """Return the result with each fault once, its findings bound to their lines, allows applied.

    Args:
        result: what the scanners found under one path.
        tree: the files under that path.
        inline_allow: whether comments in the files may silence findings.
    """
    today = datetime.now(UTC).date()
    files = {tree.name(file): file for file in tree.files}
    texts: dict[str, Sequence[Cell | Sequence[str]]] = {}
    standing: list[Finding] = []
    silenced = list(result.silenced)
    for found in [*_once(result.findings), *_unread(result, files)]:
        name = str(found.place.get("path"))
        if found.rule in FOLLOWED and name in files:
            read = scan_ml_code(files[name])  # of which ours say nothing, on that line
            if read.scanned and all(_spot(row)[1:] != _spot(found)[1:] for row in read.findings):
                continue
        if not found.place.get("line"):  # of a model file, which may be of any size
            standing.append(found)
            continue
        if name not in texts:
            texts[name] = _texts(files.get(name))
        place = dict(found.place)
        line = _line(texts[name], place)
        if line is None:
            standing.append(found)
            continue
        code = LEAVE.split(line)[0].strip()  # a comment that silences is no other fault
        place.setdefault("context", sha256_bytes(code.encode("utf-8", "replace"))[7:23])
        if match := HUSHED.search(line):
            place["comment"] = match[1]
        finding = replace(found, place=place, severity=MILDER.get(found.rule, found.severity))
        allowed, why = _allowed(line, finding.rule, today) if inline_allow else (None, "")
        if allowed is not None:
            silenced.append(Silenced(finding, why, allowed.isoformat()))
        else:
            told = f"{finding.message} ({why})" if why else finding.message
            standing.append(replace(finding, message=told))
    return replace(result, findings=tuple(standing), silenced=tuple(silenced))


def _unread(result: ScanResult, files: Mapping[str, Path]) -> Iterator[Finding]:
    """Yield a finding for each file of code that a scanner did not read: it is not clean."""
    reasons: dict[str, list[str]] = {}
    for name, why in result.skipped:
        if name in files and is_code(files[name]):
            reasons.setdefault(name, []).append(why)
    for name, listed in reasons.items():
        place = {} if name.endswith(".ipynb") else {"line": 1}
        yield UNREAD.finding(
            "rules", f"code that was not read: {'; '.join(listed[:SHOWN])}", path=name, **place
        )


def _once(findings: Iterable[Finding]) -> list[Finding]:
    """Leave out what names a fault that a graver or a more telling finding names too."""
    rows = list(findings)
    seen = {(place, row.rule) for row in rows for place in (_spot(row), row.place.get("path"))}
    ours = {(_spot(row), row.rule) for row in rows if row.tool.startswith("purpleteam ")}
    return [
        row
        for row in rows
        if (row.tool.startswith("purpleteam ") or (_spot(row), row.rule) not in ours)
        and not any((_spot(row), twin) in seen for twin in TWINS.get(row.rule, ()))
        and not any(
            (row.place.get("path"), twin) in seen for twin in IMPORT_TWINS.get(row.rule, ())
        )
    ]


def _spot(row: Finding) -> tuple[object, ...]:
    return tuple(row.place.get(part) for part in ("path", "cell", "line"))


def _allowed(line: str, rule: str, today: date) -> tuple[date | None, str]:
    """Return until when a comment allows a rule, or its twin, and why; no day: what is wrong."""
    match = ALLOW.search(line)
    twins = {rule, *(other for other, ours in TWINS.items() if rule in ours)}
    if match is None or twins.isdisjoint(re.findall(ID, match[1])):
        return None, ""
    reason = FILLING.sub("", UNTIL.sub("", match[2]))
    told = UNTIL.search(match[2])
    try:
        until = date.fromisoformat(told[1]) if told else None
    except ValueError:
        until = None
    if until is None:
        return None, "its comment does not count: no `until YYYY-MM-DD`"
    if until < today:
        return None, f"its comment does not count: it ended on {until}"
    if len(reason) < REASON:
        return None, "its comment does not count: it gives no reason"
    return until, reason


def _texts(file: Path | None) -> Sequence[Cell | Sequence[str]]:
    """Return the lines of a file, or a notebook's cells."""
    try:
        data = file.read_bytes() if file is not None else b""
        if file is not None and file.suffix == ".ipynb":
            return read_cells(data, placed=True)
    except (OSError, ValueError):
        return []
    return [split_lines(decode(data) or "")]


def _line(texts: Sequence[Cell | Sequence[str]], place: dict[str, Any]) -> str | None:
    """Return the line of a finding, or None where it has none; add a notebook's line to its place.

    Code hosts show lines of files: `file_line` is the one of a cell's line.
    """
    number, cell = int(place.get("line", 0)), int(place.get("cell", 1))
    lines = texts[cell - 1] if cell <= len(texts) else ()
    if isinstance(lines, Cell):
        output = "output" in place
        place["file_line"] = lines.line_in_file(number, output=output)
        lines = lines.outputs if output else lines.lines
    return lines[number - 1] if 0 < number <= len(lines) else None
