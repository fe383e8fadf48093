"""A scan as SARIF 2.1.0 (OASIS, 2020): findings, and as notifications what was not looked at.

Our own rules belong to the driver; each other tool is an extension with its own rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from purpleteam.core.digest import canonical_json, sha256_bytes
from purpleteam.core.records import Finding
from purpleteam.scan.scanner import ScanResult

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
OWN = "purpleteam"
LEVELS = {
    "critical": ("error", "9.5"),
    "high": ("error", "8.0"),
    "medium": ("warning", "5.5"),
    "low": ("note", "3.0"),
    "note": ("note", "0.0"),
}
"""By severity: the level, and `security-severity`, by which code hosts sort."""


def to_sarif(result: ScanResult) -> dict[str, Any]:
    """Return the SARIF log of a scan, as a mapping for json.dumps."""
    from purpleteam import __version__

    tools: dict[str, dict[str, Finding]] = {OWN: {}}  # of each tool, a finding of each of its rules
    for finding in sorted(result.findings, key=lambda row: (row.tool, row.rule)):
        tools.setdefault(_owner(finding), {}).setdefault(finding.rule, finding)
    driver, *extensions = [_component(name, rules.values()) for name, rules in tools.items()]
    driver["version"] = __version__
    places = {  # of each rule, where it stands in the log
        (name, rule): {"id": rule, "index": index}
        | ({} if name == OWN else {"toolComponent": {"name": _short(name), "index": extension}})
        for extension, (name, rules) in enumerate(tools.items(), -1)
        for index, rule in enumerate(rules)
    }
    told = [_told("error", text) for text in result.errors]
    told += [_told("warning", f"skipped: {why}", path) for path, why in result.skipped]
    told += [_told("note", f"silenced: {why}", path) for path, why in result.silenced]
    run: dict[str, Any] = {
        "tool": {"driver": driver, "extensions": extensions},
        "columnKind": "utf16CodeUnits",
        "invocations": [
            {"executionSuccessful": not result.errors, "toolExecutionNotifications": told}
        ],
        "artifacts": [{"location": _location(path)} for path in result.scanned],
        "results": [_result(row, places[_owner(row), row.rule]) for row in result.findings],
    }
    if weaknesses := sorted({finding.cwe for finding in result.findings if finding.cwe}):
        driver["supportedTaxonomies"] = [{"name": "CWE", "index": 0}]
        page = "https://cwe.mitre.org/data/definitions/{}.html"
        numbers = [cwe.removeprefix("CWE-") for cwe in weaknesses]
        run["taxonomies"] = [
            {
                "name": "CWE",
                "organization": "MITRE",
                "shortDescription": {"text": "Common Weakness Enumeration"},
                "informationUri": "https://cwe.mitre.org/",
                "taxa": [{"id": number, "helpUri": page.format(number)} for number in numbers],
            }
        ]
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _owner(finding: Finding) -> str:
    return OWN if finding.tool.startswith(OWN) else finding.tool


def _short(tool: str) -> str:
    return tool.partition(" ")[0]


def _location(path: str) -> dict[str, Any]:
    return {"uri": quote(PurePath(path).as_posix())}


def _place(path: str) -> dict[str, Any]:
    return {"physicalLocation": {"artifactLocation": _location(path)}}


def _told(level: str, text: str, *paths: str) -> dict[str, Any]:
    places = {"locations": [_place(path) for path in paths]} if paths else {}
    return {"level": level, "message": {"text": text}} | places


def _component(name: str, findings: Iterable[Finding]) -> dict[str, Any]:
    rules = []
    for finding in findings:
        level, score = LEVELS[finding.severity]
        tags = ["security"] + ([f"external/cwe/{finding.cwe.lower()}"] if finding.cwe else [])
        rule: dict[str, Any] = {
            "id": finding.rule,
            "shortDescription": {"text": finding.message},
            "defaultConfiguration": {"level": level},
            "properties": {"tags": tags, "security-severity": score},
        }
        rules.append(rule | ({"help": {"text": finding.fix}} if finding.fix else {}))
    version = name.partition(" ")[2]
    return {"name": _short(name), "rules": rules} | ({"version": version} if version else {})


def _result(finding: Finding, rule: dict[str, Any]) -> dict[str, Any]:
    path = finding.place.get("path")
    place = _place(str(path or ""))
    if "line" in finding.place:
        place["physicalLocation"]["region"] = {"startLine": max(1, int(finding.place["line"]))}
    # A finding is named apart from its line, which moves with every edit above it.
    what = [_short(finding.tool), finding.rule, path, finding.message]
    fingerprint = sha256_bytes(canonical_json(what).encode())[7:39]
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "rule": rule,
        "kind": "fail",
        "level": LEVELS[finding.severity][0],
        "message": {"text": finding.message},
        "locations": [place],
        "partialFingerprints": {"purpleteam/v1": fingerprint},
        "properties": {"severity": finding.severity, "confidence": finding.confidence},
    }
    if finding.cwe:
        number = finding.cwe.removeprefix("CWE-")
        result["taxa"] = [{"id": number, "toolComponent": {"name": "CWE", "index": 0}}]
    return result
