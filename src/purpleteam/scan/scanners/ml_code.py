"""Our own rules for machine-learning code over Python files; nothing is imported or run.

A line may carry `# purple: allow PT004 because ...`: what that silences is counted, and said.
"""

from dataclasses import replace
from pathlib import Path

from purpleteam.core.records import Finding
from purpleteam.scan.rules import RULES, parse
from purpleteam.scan.scanner import PYTHON, ScanResult, file_scanner

MAX_BYTES = 2 << 20


@file_scanner("ml-code")
def scan_ml_code(file: Path, name: str) -> ScanResult | None:
    """Return what the rules find in a Python file."""
    if file.suffix == ".ipynb":
        return ScanResult(skipped=((name, "a notebook; export it as a script to have it scanned"),))
    if file.suffix not in PYTHON:
        return None
    if file.stat().st_size > MAX_BYTES:
        return ScanResult(skipped=((name, f"rules: larger than {MAX_BYTES} bytes"),))
    try:
        module = parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        why = f"rules: no Python that can be parsed: {type(error).__name__}"
        return ScanResult(skipped=((name, why),))
    findings: dict[tuple[str, int], Finding] = {}
    silenced: list[tuple[str, str]] = []
    for rule, look in RULES.values():
        for node, message, severity in look(module):
            line = int(getattr(node, "lineno", 1))
            if rule.id in module.allowed(line):
                silenced.append((name, f"line {line}: {rule.id} allowed by comment"))
                continue
            meant = replace(rule, severity=severity or rule.severity)
            finding = meant.finding("rules", message, path=name, line=line)
            findings.setdefault((rule.id, line), finding)
    return ScanResult(findings=tuple(findings.values()), scanned=(name,), silenced=tuple(silenced))
