"""A scan as SARIF 2.1.0 (OASIS, 2020): findings, and as notifications what was not looked at."""

from collections.abc import Mapping
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
LEVELS = {  # the level, and `security-severity`, by which code hosts sort
    "critical": ("error", "9.5"),
    "high": ("error", "8.0"),
    "medium": ("warning", "5.5"),
    "low": ("note", "3.0"),
    "note": ("note", "0.0"),
}


def to_sarif(result: ScanResult) -> dict[str, Any]:
    """Return the SARIF log of a scan, as a mapping for json.dumps."""
    from purpleteam import __version__

    tools: dict[str, dict[str, Any]] = {OWN: {"name": OWN, "rules": [], "version": __version__}}
    rules: dict[tuple[str, str], dict[str, Any]] = {}  # by tool and id: where it stands in the log
    for finding in sorted(result.findings, key=lambda row: (row.tool, row.rule)):
        name, _, version = finding.tool.partition(" ")
        known = {"version": version} if version else {}
        tool = tools.setdefault(name, {"name": name, "rules": []} | known)
        if (name, finding.rule) not in rules:
            rules[name, finding.rule] = {"id": finding.rule, "index": len(tool["rules"])}
            if name != OWN:  # each other tool is an extension with its own rules
                extension = {"name": name, "index": len(tools) - 2}
                rules[name, finding.rule]["toolComponent"] = extension
            tool["rules"].append(_rule(finding))
    driver, *extensions = tools.values()
    told = [_told("error", text) for text in result.errors]
    told += [_told("warning", f"skipped: {why}", path) for path, why in result.skipped]
    told += [_told("note", f"silenced: {why}", path) for path, why in result.silenced]
    ended = {"executionSuccessful": not result.errors, "toolExecutionNotifications": told}
    run: dict[str, Any] = {
        "tool": {"driver": driver, "extensions": extensions},
        "columnKind": "utf16CodeUnits",
        "invocations": [ended],
        "artifacts": [{"location": _location(path)} for path in result.scanned],
        "results": [_result(row, rules) for row in result.findings],
    }
    if weaknesses := sorted({finding.cwe for finding in result.findings if finding.cwe}):
        driver["supportedTaxonomies"] = [{"name": "CWE", "index": 0}]
        page = "https://cwe.mitre.org/data/definitions/{}.html"
        numbers = [cwe.removeprefix("CWE-") for cwe in weaknesses]
        taxonomy = {
            "name": "CWE",
            "organization": "MITRE",
            "shortDescription": {"text": "Common Weakness Enumeration"},
            "informationUri": "https://cwe.mitre.org/",
            "taxa": [{"id": number, "helpUri": page.format(number)} for number in numbers],
        }
        run["taxonomies"] = [taxonomy]
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _location(path: str) -> dict[str, Any]:
    return {"uri": quote(PurePath(path).as_posix())}


def _place(path: str) -> dict[str, Any]:
    return {"physicalLocation": {"artifactLocation": _location(path)}}


def _told(level: str, text: str, *paths: str) -> dict[str, Any]:
    told: dict[str, Any] = {"level": level, "message": {"text": text}}
    return told | ({"locations": [_place(path) for path in paths]} if paths else {})


def _rule(finding: Finding) -> dict[str, Any]:
    level, score = LEVELS[finding.severity]
    tags = ["security"] + ([f"external/cwe/{finding.cwe.lower()}"] if finding.cwe else [])
    rule: dict[str, Any] = {
        "id": finding.rule,
        "shortDescription": {"text": finding.message},
        "defaultConfiguration": {"level": level},
        "properties": {"tags": tags, "security-severity": score},
    }
    return rule | ({"help": {"text": finding.fix}} if finding.fix else {})


def _result(finding: Finding, rules: Mapping[tuple[str, str], Any]) -> dict[str, Any]:
    tool, path = finding.tool.partition(" ")[0], finding.place.get("path")
    place = _place(str(path or ""))
    if "line" in finding.place:
        place["physicalLocation"]["region"] = {"startLine": max(1, int(finding.place["line"]))}
    # A finding is named apart from its line, which moves with every edit above it.
    identity = canonical_json([tool, finding.rule, path, finding.message])
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "rule": rules[tool, finding.rule],
        "kind": "fail",
        "level": LEVELS[finding.severity][0],
        "message": {"text": finding.message},
        "locations": [place],
        "partialFingerprints": {"purpleteam/v1": sha256_bytes(identity.encode())[7:39]},
        "properties": {"severity": finding.severity, "confidence": finding.confidence},
    }
    if finding.cwe:
        number = finding.cwe.removeprefix("CWE-")
        result["taxa"] = [{"id": number, "toolComponent": {"name": "CWE", "index": 0}}]
    return result
