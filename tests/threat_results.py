"""Results of checks that never ran, for deriving threats from them."""

from __future__ import annotations

from collections.abc import Mapping

from purpleteam.core.records import CheckResult, Verdict
from purpleteam.threats import SystemModel


def ran(check: str, verdict: Verdict, *digests: str, controlled: bool = True) -> CheckResult:
    """Return what a check said, and the digests of what it looked at."""
    return CheckResult(
        check=check,
        proves="",
        verdict=verdict,
        inputs={f"input {number}": digest for number, digest in enumerate(digests)},
        negative_control={"ran": True, "failed_as_required": controlled},
    )


def said(verdicts: Mapping[str, Verdict]) -> list[CheckResult]:
    """Return a result for each check."""
    return [ran(check, verdict) for check, verdict in verdicts.items()]


def passing(system: SystemModel, *digests: str) -> list[CheckResult]:
    """Return a pass of every check that the system's mitigations name, on the same inputs."""
    checks = {check for one in system.mitigations for check in one.checks.ids}
    return [ran(check, "pass", *digests) for check in sorted(checks)]
