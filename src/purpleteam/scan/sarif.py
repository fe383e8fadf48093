"""A scan as SARIF 2.1.0 (OASIS, 2020): findings, and as notifications what was not looked at."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from purpleteam.core.digest import canonical_json, sha256_bytes
from purpleteam.core.records import Finding
from purpleteam.scan.scanner import ScanResult, Silenced

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
OWN = "purpleteam"
ROOT = "%SRCROOT%"
FINGERPRINT, CONTEXT = "purpleteam/v2", "contextLine/v1"
CWE_PAGE = "https://cwe.mitre.org/data/definitions/{}.html"
LEVELS = {  # the level, and `security-severity`, by which code hosts sort
    "critical": ("error", "9.5"),
    "high": ("error", "8.0"),
    "medium": ("warning", "5.5"),
    "low": ("note", "3.0"),
    "note": ("note", "0.0"),
}


def printable(text: str) -> str:
    """Return a text without characters that a terminal obeys: those are shown as escapes."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def to_sarif(
    result: ScanResult, targets: Iterable[str] = (), states: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the SARIF log of a scan, as a mapping for json.dumps.

    Args:
        result: what was found, silenced, skipped.
        targets: names of what was scanned: code hosts keep one analysis for each set of them.
        states: `baselineState` of findings, by their ids, where there was a baseline.
    """
    from purpleteam import __version__

    tools: dict[str, dict[str, Any]] = {OWN: {"name": OWN, "rules": [], "version": __version__}}
    rules: dict[tuple[str, str], dict[str, Any]] = {}  # by tool and id: where it stands in the log
    about, quiet = _about(), {row.finding.id: row for row in result.silenced}
    findings = [*result.findings, *(row.finding for row in result.silenced)]
    for finding in sorted(findings, key=lambda row: (row.tool, row.rule)):
        name, _, version = finding.tool.partition(" ")
        known = {"version": version} if version else {}
        tool = tools.setdefault(name, {"name": name, "rules": []} | known)
        if (name, finding.rule) not in rules:
            rules[name, finding.rule] = {"id": finding.rule, "index": len(tool["rules"])}
            if name != OWN:  # each other tool is an extension with its own rules
                extension = {"name": name, "index": len(tools) - 2}
                rules[name, finding.rule]["toolComponent"] = extension
            tool["rules"].append(_rule(finding, about.get(finding.rule)))
    driver, *extensions = tools.values()
    told = [_told("error", text) for text in result.errors]
    told += [_told("warning", f"skipped: {why}", path) for path, why in result.skipped]
    ended = {"executionSuccessful": not result.errors, "toolExecutionNotifications": told}
    names = "+".join(quote(printable(name), safe="") or "." for name in targets)
    run: dict[str, Any] = {
        "tool": {"driver": driver, "extensions": extensions},
        "automationDetails": {"id": "/".join(filter(None, (OWN, "scan", names))) + "/"},
        "originalUriBaseIds": {ROOT: {"description": {"text": "where the scan was started"}}},
        "columnKind": "utf16CodeUnits",
        "invocations": [ended],
        "artifacts": [{"location": _location(path)} for path in result.scanned],
        "results": [
            _result(row, rules, print, quiet.get(row.id), (states or {}).get(row.id))
            for row, print in zip(findings, fingerprints(findings), strict=True)
        ],
    }
    if weaknesses := sorted({finding.cwe for finding in findings if finding.cwe}):
        driver["supportedTaxonomies"] = [{"name": "CWE", "index": 0}]
        numbers = [cwe.removeprefix("CWE-") for cwe in weaknesses]
        taxonomy = {
            "name": "CWE",
            "organization": "MITRE",
            "shortDescription": {"text": "Common Weakness Enumeration"},
            "informationUri": "https://cwe.mitre.org/",
            "taxa": [{"id": number, "helpUri": CWE_PAGE.format(number)} for number in numbers],
        }
        run["taxonomies"] = [taxonomy]
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def fingerprints(findings: Iterable[Finding]) -> list[str]:
    """Return a name for each finding that no other has and that edits above it do not change.

    It is made of the tool, the rule, the file, what the line says, and of how many like it come
    before: never of the line's number.
    """
    seen: Counter[str] = Counter()
    names = []
    for row in findings:
        what = row.place.get("context", row.message)
        like = canonical_json([row.tool.partition(" ")[0], row.rule, row.place.get("path"), what])
        names.append(sha256_bytes(f"{like}{seen[like]}".encode("utf-8", "replace"))[7:39])
        seen[like] += 1
    return names


def _about() -> dict[str, str]:
    """Return what each rule of ours looks for, by its id."""
    from purpleteam.scan.formats.problem import PROBLEMS
    from purpleteam.scan.rules import RULES
    from purpleteam.scan.scanners.packages import ABOUT
    from purpleteam.scan.scanners.packages import RULES as PACKAGE_RULES
    from purpleteam.scan.scanners.secrets import RULE
    from purpleteam.scan.second_opinion import DISAGREES
    from purpleteam.scan.settle import UNREAD

    kinds = {row.id: kind.replace("-", " ") for kind, row in PROBLEMS.items()}
    told = {id: f"A model file with a fault of the kind: {kind}." for id, kind in kinds.items()}
    told |= {row.id: str(look.__doc__).partition("\n")[0] for row, look in RULES.values()}
    told[UNREAD.id] = "Code that a scanner did not read: nothing is known of it."
    told[DISAGREES.id] = "A model file that another scanner calls bad, and we do not."
    told |= {PACKAGE_RULES[kind].id: text for kind, text in ABOUT.items()}
    told["PD010"] = "The index knows of a hole in a declared version (pip-audit)."
    return told | {RULE.id: "A key or a password in plain text."}


def _location(path: str) -> dict[str, Any]:
    parts = [part for part in PurePath(path).as_posix().split("/") if part not in ("", "..")]
    return {"uri": quote(os.fsencode("/".join(parts))), "uriBaseId": ROOT}


def _place(path: str) -> dict[str, Any]:
    return {"physicalLocation": {"artifactLocation": _location(path)}}


def _told(level: str, text: str, *paths: str) -> dict[str, Any]:
    told: dict[str, Any] = {"level": level, "message": {"text": printable(text)}}
    return told | ({"locations": [_place(path) for path in paths]} if paths else {})


def _rule(finding: Finding, about: str | None) -> dict[str, Any]:
    level, score = LEVELS[finding.severity]
    name, found, text = finding.message.partition(": ")  # of Bandit: its test, and what it means
    short = about or (text if found else finding.message)
    page = finding.fix if str(finding.fix).startswith("https://") else None
    tags = ["security"] + ([f"external/cwe/{finding.cwe.lower()}"] if finding.cwe else [])
    rule: dict[str, Any] = {
        "id": finding.rule,
        "shortDescription": {"text": printable(short)},
        "fullDescription": {"text": printable(short)},
        "defaultConfiguration": {"level": level},
        "properties": {"tags": tags, "security-severity": score},
    }
    if about is None and found and name.isidentifier():
        rule["name"] = name
    if finding.fix:
        rule["fullDescription"]["text"] += "" if page else f" What to do: {finding.fix}."
        rule["help"] = {"text": finding.fix}
    if finding.cwe:
        number = finding.cwe.removeprefix("CWE-")
        page = page or CWE_PAGE.format(number)
        target = {"id": number, "toolComponent": {"name": "CWE", "index": 0}}
        rule["relationships"] = [{"target": target, "kinds": ["superset"]}]
    return rule | ({"helpUri": page} if page else {})


def _result(
    finding: Finding,
    rules: Mapping[tuple[str, str], Any],
    fingerprint: str,
    silenced: Silenced | None,
    state: str | None,
) -> dict[str, Any]:
    facts = finding.place
    place = _place(str(facts.get("path") or ""))
    cell, line = facts.get("cell"), int(facts.get("file_line", facts.get("line", 1)))
    place["physicalLocation"]["region"] = {"startLine": max(1, line)}
    if cell:
        name = f"cell {cell}, line {facts['line']}"
        place["logicalLocations"] = [{"fullyQualifiedName": name, "kind": "cell"}]
    prints = {FINGERPRINT: fingerprint}
    prints |= {CONTEXT: str(facts["context"])} if "context" in facts else {}
    more = {name: facts[name] for name in ("cell", "comment") if name in facts}
    more |= {"line": facts["line"]} if cell else {}
    where = f" ({place['logicalLocations'][0]['fullyQualifiedName']})" if cell else ""
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "rule": rules[finding.tool.partition(" ")[0], finding.rule],
        "kind": "fail",
        "level": LEVELS[finding.severity][0],
        "message": {"text": printable(finding.message) + where},
        "locations": [place],
        "partialFingerprints": prints,
        "properties": {"severity": finding.severity, "confidence": finding.confidence} | more,
    }
    if silenced is not None:
        why = printable(f"{silenced.reason} (until {silenced.until})")
        result["suppressions"] = [{"kind": "inSource", "justification": why}]
    if state is not None:
        result["baselineState"] = state
    if finding.cwe:
        number = finding.cwe.removeprefix("CWE-")
        result["taxa"] = [{"id": number, "toolComponent": {"name": "CWE", "index": 0}}]
    return result
