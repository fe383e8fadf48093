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
    "critical": "error",
    "high": "error",
    "medium": "warning",
    "low": "note",
    "note": "note",
}
SCORES = {"critical": "9.5", "high": "8.0", "medium": "5.5", "low": "3.0", "note": "0.0"}
"""`security-severity`, by which code hosts sort."""


def to_sarif(result: ScanResult, *, version: str | None = None) -> dict[str, Any]:
    """Return the SARIF log of a scan, as a mapping for json.dumps.

    Args:
        result: what the scanners said.
        version: of Purpleteam; the installed one by default.
    """
    from purpleteam import __version__

    tools = _tools(result.findings)
    components = [_component(name, rules) for name, rules in tools.items()]
    driver = components[0] | {"version": version or __version__}
    run: dict[str, Any] = {
        "tool": {"driver": driver, "extensions": components[1:]},
        "columnKind": "utf16CodeUnits",
        "invocations": [_invocation(result)],
        "artifacts": [{"location": _location(path)} for path in result.scanned],
        "results": [_result(finding, list(tools), tools) for finding in result.findings],
    }
    weaknesses = sorted({finding.cwe for finding in result.findings if finding.cwe})
    if weaknesses:
        driver["supportedTaxonomies"] = [{"name": "CWE", "index": 0}]
        run["taxonomies"] = [_taxonomy(weaknesses)]
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _tools(findings: Iterable[Finding]) -> dict[str, dict[str, Finding]]:
    """Return for each tool, ours first, one finding of each of its rules."""
    tools: dict[str, dict[str, Finding]] = {OWN: {}}
    for finding in sorted(findings, key=lambda one: (one.tool, one.rule)):
        tools.setdefault(_owner(finding), {}).setdefault(finding.rule, finding)
    return tools


def _owner(finding: Finding) -> str:
    return OWN if finding.tool.startswith(OWN) else finding.tool


def _component(name: str, rules: Mapping[str, Finding]) -> dict[str, Any]:
    tool, _, version = name.partition(" ")
    component: dict[str, Any] = {"name": tool, "rules": [_rule(one) for one in rules.values()]}
    return component | ({"version": version} if version else {})


def _rule(finding: Finding) -> dict[str, Any]:
    tags = ["security"] + ([f"external/cwe/{finding.cwe.lower()}"] if finding.cwe else [])
    rule: dict[str, Any] = {
        "id": finding.rule,
        "shortDescription": {"text": finding.message},
        "defaultConfiguration": {"level": LEVELS[finding.severity]},
        "properties": {"tags": tags, "security-severity": SCORES[finding.severity]},
    }
    if finding.fix:
        rule["help"] = {"text": finding.fix}
    return rule


def _result(
    finding: Finding, names: list[str], tools: Mapping[str, Mapping[str, Finding]]
) -> dict[str, Any]:
    owner = _owner(finding)
    index = list(tools[owner]).index(finding.rule)
    reference: dict[str, Any] = {"id": finding.rule, "index": index}
    if owner != OWN:
        reference["toolComponent"] = {
            "name": owner.partition(" ")[0],
            "index": names.index(owner) - 1,
        }
    place: dict[str, Any] = {"artifactLocation": _location(str(finding.place.get("path", "")))}
    if "line" in finding.place:
        place["region"] = {"startLine": max(1, int(finding.place["line"]))}
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "rule": reference,
        "kind": "fail",
        "level": LEVELS[finding.severity],
        "message": {"text": finding.message},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {"purpleteam/v1": _fingerprint(finding)},
        "properties": {"severity": finding.severity, "confidence": finding.confidence},
    }
    if finding.cwe:
        result["taxa"] = [
            {"id": finding.cwe.removeprefix("CWE-"), "toolComponent": {"name": "CWE", "index": 0}}
        ]
    return result


def _fingerprint(finding: Finding) -> str:
    """Name a finding apart from its line, which moves with every edit above it."""
    what = [finding.tool.split(" ")[0], finding.rule, finding.place.get("path"), finding.message]
    return sha256_bytes(canonical_json(what).encode())[7:39]


def _invocation(result: ScanResult) -> dict[str, Any]:
    told: list[tuple[str, str, str | None]] = [("error", text, None) for text in result.errors]
    told += [("warning", f"skipped: {reason}", path) for path, reason in result.skipped]
    told += [("note", f"silenced: {reason}", path) for path, reason in result.silenced]
    return {
        "executionSuccessful": not result.errors,
        "toolExecutionNotifications": [_notification(*one) for one in told],
    }


def _notification(level: str, text: str, path: str | None) -> dict[str, Any]:
    notification: dict[str, Any] = {"level": level, "message": {"text": text}}
    if path is not None:
        notification["locations"] = [{"physicalLocation": {"artifactLocation": _location(path)}}]
    return notification


def _location(path: str) -> dict[str, Any]:
    return {"uri": quote(PurePath(path).as_posix())}


def _taxonomy(weaknesses: list[str]) -> dict[str, Any]:
    return {
        "name": "CWE",
        "organization": "MITRE",
        "shortDescription": {"text": "Common Weakness Enumeration"},
        "informationUri": "https://cwe.mitre.org/",
        "taxa": [
            {
                "id": cwe.removeprefix("CWE-"),
                "helpUri": f"https://cwe.mitre.org/data/definitions/{cwe.removeprefix('CWE-')}.html",
            }
            for cwe in weaknesses
        ],
    }
