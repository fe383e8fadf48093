"""A scan as SARIF 2.1.0 (OASIS, 2020): findings, and as notifications what was not looked at.

Our own rules belong to the driver; each other tool is an extension with its own rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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


def to_sarif(result: ScanResult, *, version: str | None = None) -> dict[str, Any]:
    """Return the SARIF log of a scan, as a mapping for json.dumps.

    Args:
        result: what the scanners said.
        version: of Purpleteam; the installed one by default.
    """
    from purpleteam import __version__

    tools = _tools(result.findings)
    components = [_component(name, rules.values()) for name, rules in tools.items()]
    driver = components[0] | {"version": version or __version__}
    run: dict[str, Any] = {
        "tool": {"driver": driver, "extensions": components[1:]},
        "columnKind": "utf16CodeUnits",
        "invocations": [
            {
                "executionSuccessful": not result.errors,
                "toolExecutionNotifications": _notifications(result),
            }
        ],
        "artifacts": [{"location": _location(path)} for path in result.scanned],
        "results": [_result(finding, tools) for finding in result.findings],
    }
    weaknesses = sorted({finding.cwe for finding in result.findings if finding.cwe})
    if weaknesses:
        driver["supportedTaxonomies"] = [{"name": "CWE", "index": 0}]
        run["taxonomies"] = [_taxonomy(weaknesses)]
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _tools(findings: Iterable[Finding]) -> dict[str, dict[str, Finding]]:
    """Return for each tool, ours first, one finding of each of its rules."""
    tools: dict[str, dict[str, Finding]] = {OWN: {}}
    for finding in sorted(findings, key=lambda row: (row.tool, row.rule)):
        tools.setdefault(_owner(finding), {}).setdefault(finding.rule, finding)
    return tools


def _owner(finding: Finding) -> str:
    return OWN if finding.tool.startswith(OWN) else finding.tool


def _component(name: str, findings: Iterable[Finding]) -> dict[str, Any]:
    tool, _, version = name.partition(" ")
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
        if finding.fix:
            rule["help"] = {"text": finding.fix}
        rules.append(rule)
    return {"name": tool, "rules": rules} | ({"version": version} if version else {})


def _result(finding: Finding, tools: Mapping[str, Mapping[str, Finding]]) -> dict[str, Any]:
    owner = _owner(finding)
    reference: dict[str, Any] = {
        "id": finding.rule,
        "index": list(tools[owner]).index(finding.rule),
    }
    if owner != OWN:
        index = list(tools).index(owner) - 1
        reference["toolComponent"] = {"name": owner.partition(" ")[0], "index": index}
    place: dict[str, Any] = {"artifactLocation": _location(str(finding.place.get("path", "")))}
    if "line" in finding.place:
        place["region"] = {"startLine": max(1, int(finding.place["line"]))}
    # A finding is named apart from its line, which moves with every edit above it.
    what = [finding.tool.split(" ")[0], finding.rule, finding.place.get("path"), finding.message]
    fingerprint = sha256_bytes(canonical_json(what).encode())[7:39]
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "rule": reference,
        "kind": "fail",
        "level": LEVELS[finding.severity][0],
        "message": {"text": finding.message},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {"purpleteam/v1": fingerprint},
        "properties": {"severity": finding.severity, "confidence": finding.confidence},
    }
    if finding.cwe:
        number = finding.cwe.removeprefix("CWE-")
        result["taxa"] = [{"id": number, "toolComponent": {"name": "CWE", "index": 0}}]
    return result


def _notifications(result: ScanResult) -> list[dict[str, Any]]:
    rows: list[tuple[str, str, str | None]]
    rows = [("error", text, None) for text in result.errors]
    rows += [("warning", f"skipped: {reason}", path) for path, reason in result.skipped]
    rows += [("note", f"silenced: {reason}", path) for path, reason in result.silenced]
    notifications: list[dict[str, Any]] = []
    for level, text, path in rows:
        notifications.append({"level": level, "message": {"text": text}})
        if path is not None:
            place = {"physicalLocation": {"artifactLocation": _location(path)}}
            notifications[-1]["locations"] = [place]
    return notifications


def _location(path: str) -> dict[str, Any]:
    return {"uri": quote(PurePath(path).as_posix())}


def _taxonomy(weaknesses: list[str]) -> dict[str, Any]:
    numbers = [cwe.removeprefix("CWE-") for cwe in weaknesses]
    return {
        "name": "CWE",
        "organization": "MITRE",
        "shortDescription": {"text": "Common Weakness Enumeration"},
        "informationUri": "https://cwe.mitre.org/",
        "taxa": [
            {"id": number, "helpUri": f"https://cwe.mitre.org/data/definitions/{number}.html"}
            for number in numbers
        ],
    }
