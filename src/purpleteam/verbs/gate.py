"""Gates: what a result must reach, and the same for build servers as JUnit and SARIF."""

import json
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from xml.etree import ElementTree

from purpleteam.core.config import number
from purpleteam.core.errors import ConfigError, UsageError
from purpleteam.core.records import CheckResult, Finding, Measurement, Record
from purpleteam.core.statistics import Estimate, Rate
from purpleteam.verbs.result import Result

COMPARED: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
FORM = re.compile(r"\s*([A-Za-z_]\w*)\s*(>=|<=|>|<)\s*([^\s%]+)\s*(%?)\s*")


@dataclass(frozen=True)
class Requirement:
    """A metric, a comparison and a limit, such as `robust_accuracy>=0.8`."""

    text: str
    metric: str
    comparison: str
    limit: float


@dataclass(frozen=True)
class Verdict:
    """What became of one requirement."""

    require: str
    passed: bool
    message: str


def parse_requirement(text: str) -> Requirement:
    """Return the requirement that a text means: `metric>=value`, a fraction or percent."""
    try:
        if (form := FORM.fullmatch(text)) is None:
            raise ConfigError("no comparison")
        limit = number(form[3]) / (100 if form[4] else 1)
    except ConfigError:
        raise UsageError(
            f"--require {text!r} is not of the form metric>=value, such as robust_accuracy>=0.8 "
            "or attack_success_rate<=5%"
        ) from None
    return Requirement(text, form[1], form[2], limit)


def require(requirements: Sequence[Requirement], records: Sequence[Record]) -> list[Verdict]:
    """Return whether the records reach each requirement.

    The end of the interval that is worse counts: the lower one for >=, the upper one for <=. An
    evaluation that is not established does not pass, nor does a number that was not measured.
    """
    measured = [record for record in records if isinstance(record, Measurement)]
    verdicts = []
    for wanted in requirements:
        named = [record for record in measured if record.name == wanted.metric]
        problems = [text for record in named if (text := _problem(wanted, record))]
        if not named:
            known = ", ".join(sorted({record.name for record in measured})) or "nothing"
            problems = [f"{wanted.metric} was not measured; measured: {known}"]
        message = "; ".join(problems) or ", ".join(map(_shown, named))
        verdicts.append(Verdict(wanted.text, not problems, message))
    return verdicts


def _problem(wanted: Requirement, record: Measurement) -> str | None:
    """Say why a measurement does not reach a requirement."""
    soundness = record.detail.get("soundness", {})
    if soundness.get("verdict") == "not_established":
        return f"{record.name} is not established: {'; '.join(soundness.get('reasons', ()))}"
    value = record.value
    if not isinstance(value, Rate | Estimate):
        return f"{record.name} is no single number"
    end = value.low if wanted.comparison in (">=", ">") else value.high
    if COMPARED[wanted.comparison](end, wanted.limit):
        return None
    side = "lower" if end == value.low else "upper"
    return f"{_shown(record)}: the {side} end {end:.4g} is not {wanted.comparison} {wanted.limit:g}"


def _shown(record: Measurement) -> str:
    value, how = record.value, record.how
    at = f" at {how['norm']} {how['epsilon']:g}" if {"norm", "epsilon"} <= how.keys() else ""
    if isinstance(value, Rate | Estimate):
        return f"{record.name} {value.value:.4g} ({value.low:.4g} to {value.high:.4g}){at}"
    return record.name + at


def junit(verb: str, result: Result, verdicts: Sequence[Verdict]) -> str:
    """Return a JUnit file: a test for each requirement, number, check and finding.

    The verb's own answer is one where that is no and nothing else says so, or where there is none.
    """
    cases = [(f"require {v.require}", v.passed, v.message) for v in verdicts]
    for record in result.records:
        if isinstance(record, Measurement):
            cases.append((f"{_shown(record)} [{record.id}]", True, json.dumps(record.to_json())))
        if isinstance(record, CheckResult) and record.verdict != "skipped":
            text = f"{record.verdict}: {record.message or record.proves}"
            cases.append((f"{record.check} [{record.id}]", record.verdict == "pass", text))
        if isinstance(record, Finding):
            text = f"{record.severity}: {record.message} ({record.place})"
            cases.append((f"{record.rule} [{record.id}]", False, text))
    if not cases or (result.exit_code and all(passed for _, passed, _ in cases)):
        cases.insert(0, (f"purple {verb}", not result.exit_code, "; ".join(result.lines())))
    failures = sum(not passed for _, passed, _ in cases)
    counts = {"tests": str(len(cases)), "failures": str(failures), "errors": "0"}
    suites = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(suites, "testsuite", {"name": f"purple {verb}", **counts})
    for name, passed, message in cases:
        facts = {"classname": f"purple.{verb}", "name": name}
        case = ElementTree.SubElement(suite, "testcase", facts)
        text = "".join(c if c.isprintable() or c in "\n\t" else "?" for c in message)  # in XML
        if passed:
            ElementTree.SubElement(case, "system-out").text = text
        else:
            ElementTree.SubElement(case, "failure", {"message": text})
    body = ElementTree.tostring(suites, "unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{body}\n'


def sarif(result: Result, verdicts: Sequence[Verdict]) -> str:
    """Return a SARIF file: findings, failed checks, requirements not reached, or a no."""
    from purpleteam.scan.sarif import to_sarif
    from purpleteam.scan.scanner import ScanResult

    findings = [record for record in result.records if isinstance(record, Finding)]
    others = [("require", f"{v.require}: {v.message}") for v in verdicts if not v.passed]
    for record in result.records:
        if isinstance(record, CheckResult) and record.verdict in ("fail", "error", "broken"):
            text = f"{record.check}: {record.verdict}: {record.message or record.proves}"
            others.append(("check", text))
    if result.exit_code and not findings and not others:
        others.append(("answer", "; ".join(result.lines())))
    facts: Any = {"tool": "purpleteam", "severity": "high", "confidence": "high"}
    place = {"path": "run.json"}
    findings += [Finding(rule=rule, message=told, place=place, **facts) for rule, told in others]
    looked_at: ScanResult = getattr(result, "scanned", ScanResult())
    return json.dumps(to_sarif(replace(looked_at, findings=tuple(findings))), indent=2) + "\n"
