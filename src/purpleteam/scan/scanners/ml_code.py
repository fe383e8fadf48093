"""Our own rules for machine-learning code over Python files and notebooks; nothing is run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from purpleteam.core.records import Finding
from purpleteam.scan.rules import RULES, parse
from purpleteam.scan.scanner import ScanResult, file_scanner, is_code
from purpleteam.scan.text import Script, as_script, read_cells

MAX_BYTES = 2 << 20
MAX_NOTEBOOK = 64 << 20  # pictures are most of it


@file_scanner("ml-code")
def scan_ml_code(file: Path, name: str) -> ScanResult | None:
    """Return what the rules find in a Python file or in a notebook's cells."""
    notebook = file.suffix == ".ipynb"
    if not is_code(file):
        return None
    most = MAX_NOTEBOOK if notebook else MAX_BYTES
    if file.stat().st_size > most:
        return ScanResult(skipped=((name, f"rules: larger than {most} bytes"),))
    data, script = file.read_bytes(), Script("", (), ())
    findings: dict[tuple[Any, ...], Finding] = {}
    try:
        if notebook:
            script = as_script(read_cells(data))
        module = parse(script.source.encode() if notebook else data)
        for rule, look in RULES.values():
            for node, message, severity in look(module):
                line = int(getattr(node, "lineno", 1))
                cell, line = script.places[line - 1] if notebook else (0, line)
                place = {"cell": cell, "line": line} if notebook else {"line": line}
                meant = replace(rule, severity=severity or rule.severity)
                finding = meant.finding("rules", message, path=name, **place)
                findings.setdefault((rule.id, cell, line), finding)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        kind = "notebook" if notebook and not script.source else "Python"
        why = f"rules: no {kind} that can be parsed: {type(error).__name__}"
        return ScanResult(skipped=((name, why),))
    left_out = [(name, f"rules: cell {cell} is no Python") for cell in script.left_out]
    return ScanResult(findings=tuple(findings.values()), scanned=(name,), skipped=tuple(left_out))
