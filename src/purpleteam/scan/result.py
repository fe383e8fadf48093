"""What scanners say: findings, and what was and was not looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from purpleteam.core.errors import UsageError, unknown
from purpleteam.core.records import Finding, Severity

__all__ = ["SEVERITIES", "ScanResult", "Scanner", "merged", "severity_at_least"]

SEVERITIES: tuple[str, ...] = get_args(Severity)
"""From the mildest to the worst."""


@dataclass(frozen=True, kw_only=True)
class ScanResult:
    """Findings with their surroundings; nothing that was not looked at is left unsaid."""

    findings: tuple[Finding, ...] = ()
    scanned: tuple[str, ...] = ()
    """Files that a scanner has read to the end."""
    skipped: tuple[tuple[str, str], ...] = ()
    """Path and reason."""
    errors: tuple[str, ...] = ()
    """Where a scanner itself failed; its silence then says nothing."""
    silenced: tuple[tuple[str, str], ...] = ()
    """Path, and what a comment in the code keeps from being a finding."""

    def worst(self, least: str) -> tuple[Finding, ...]:
        """Return the findings of severity `least` or worse."""
        return tuple(one for one in self.findings if severity_at_least(one.severity, least))

    def to_json(self) -> dict[str, Any]:
        """Return what `purple scan --json` prints."""
        return {
            "findings": [finding.to_json() for finding in self.findings],
            "scanned": list(self.scanned),
            "skipped": [{"path": path, "reason": reason} for path, reason in self.skipped],
            "errors": list(self.errors),
            "silenced": [{"path": path, "reason": reason} for path, reason in self.silenced],
        }


Scanner = Callable[[Path], ScanResult]
"""Looks at a file or a folder."""


def severity_at_least(severity: str, least: str) -> bool:
    """Return whether a severity is `least` or worse, as for --fail-on."""
    for value in (severity, least):
        if value not in SEVERITIES:
            raise UsageError(unknown("severity", value, SEVERITIES))
    return SEVERITIES.index(severity) >= SEVERITIES.index(least)


def merged(results: Iterable[ScanResult]) -> ScanResult:
    """Return all results as one: each thing once, in order of place."""
    all_results = list(results)
    return ScanResult(
        findings=tuple(
            sorted(
                {one.id: one for result in all_results for one in result.findings}.values(),
                key=_place,
            )
        ),
        scanned=tuple(sorted({path for result in all_results for path in result.scanned})),
        skipped=tuple(sorted({pair for result in all_results for pair in result.skipped})),
        errors=tuple(dict.fromkeys(text for result in all_results for text in result.errors)),
        silenced=tuple(sorted({pair for result in all_results for pair in result.silenced})),
    )


def _place(finding: Finding) -> tuple[str, int, str, str]:
    return (
        str(finding.place.get("path", "")),
        int(finding.place.get("line", 0)),
        finding.rule,
        finding.message,
    )
