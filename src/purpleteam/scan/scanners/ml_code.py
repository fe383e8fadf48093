"""Our own rules for machine-learning code over Python files; nothing is imported or run.

A line may carry `# purple: allow PT004 because ...`: what that silences is counted, and said.
"""

from __future__ import annotations

from pathlib import Path

from purpleteam.core.records import Finding
from purpleteam.scan.module import Module, parse
from purpleteam.scan.result import ScanResult
from purpleteam.scan.rules import RULES
from purpleteam.scan.rules.rule import Hit, Rule
from purpleteam.scan.scanners import SCANNERS
from purpleteam.scan.tree import walk

__all__ = ["scan_ml_code"]

TOOL = "purpleteam rules"
PYTHON = frozenset({".py", ".pyw"})
MAX_BYTES = 2 << 20


@SCANNERS.register("ml-code")
def scan_ml_code(path: Path) -> ScanResult:
    """Return what the rules find in the Python files under `path`."""
    tree = walk(path)
    findings: list[Finding] = []
    scanned: list[str] = []
    skipped: list[tuple[str, str]] = []
    silenced: list[tuple[str, str]] = []
    rules = [RULES[name]() for name in RULES]
    for file in tree.files:
        name = tree.name(file)
        if file.suffix == ".ipynb":
            skipped.append((name, "a notebook; export it as a script to have it scanned"))
        if file.suffix not in PYTHON:
            continue
        module = _parse(file)
        if isinstance(module, str):
            skipped.append((name, module))
            continue
        scanned.append(name)
        found, allowed = _look(module, rules, name)
        findings.extend(found)
        silenced.extend((name, f"line {line}: {rule} allowed by comment") for line, rule in allowed)
    return ScanResult(
        findings=tuple(findings),
        scanned=tuple(scanned),
        skipped=tuple(skipped),
        silenced=tuple(silenced),
    )


def _parse(file: Path) -> Module | str:
    """Return the module, or why it could not be read."""
    try:
        if file.stat().st_size > MAX_BYTES:
            return f"rules: larger than {MAX_BYTES} bytes"
        return parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"rules: no Python that can be parsed: {type(error).__name__}"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _look(
    module: Module, rules: list[Rule], name: str
) -> tuple[list[Finding], list[tuple[int, str]]]:
    findings: dict[tuple[str, int], Finding] = {}
    allowed: list[tuple[int, str]] = []
    for rule in rules:
        for hit in rule.look(module):
            if rule.id in module.allowed(hit.line):
                allowed.append((hit.line, rule.id))
            else:
                findings.setdefault((rule.id, hit.line), _finding(rule, hit, name))
    return list(findings.values()), allowed


def _finding(rule: Rule, hit: Hit, name: str) -> Finding:
    return Finding(
        tool=TOOL,
        rule=rule.id,
        severity=hit.severity or rule.severity,
        confidence=rule.confidence,
        cwe=rule.cwe,
        place={"path": name, "line": hit.line},
        message=hit.message,
        fix=rule.fix,
    )
