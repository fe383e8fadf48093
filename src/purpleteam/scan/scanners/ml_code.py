"""Our own rules for machine-learning code over Python files and notebooks; nothing is run."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purpleteam.core.records import Finding
from purpleteam.scan.scanner import ScanResult, file_scanner, is_code
from purpleteam.scan.text import Script, as_script, read_cells

if TYPE_CHECKING:
    from purpleteam.scan.rules import Module

MAX_BYTES = 2 << 20
MAX_NOTEBOOK = 64 << 20  # pictures are most of it


@dataclass(frozen=True, eq=False)
class Code:
    """A Python file or a notebook, parsed once for whoever looks at it."""

    file: Path
    name: str

    @cached_property
    def script(self) -> Script | None:
        """The cells of a notebook as one script; a ValueError where it is none."""
        notebook = self.file.suffix == ".ipynb"
        return as_script(read_cells(self.file.read_bytes())) if notebook else None

    @property
    def source(self) -> bytes:
        script = self.script
        return script.source.encode("utf-8", "replace") if script else self.file.read_bytes()

    @cached_property
    def module(self) -> "Module":
        """What is parsed; a SyntaxError or a ValueError where it is no Python."""
        from purpleteam.scan.rules import parse  # mostly in another process

        return parse(self.source)

    def place(self, line: int) -> dict[str, Any]:
        """Return where a line of the module stands, as findings have it."""
        if self.script is None:
            return {"path": self.name, "line": line}
        cell, line = self.script.places[line - 1]
        return {"path": self.name, "cell": cell, "line": line}


def look(code: Code) -> ScanResult:
    """Return what the rules find in a file."""
    from purpleteam.scan.rules import RULES

    name, notebook = code.name, code.file.suffix == ".ipynb"
    most = MAX_NOTEBOOK if notebook else MAX_BYTES
    if code.file.stat().st_size > most:
        return ScanResult(skipped=((name, f"rules: larger than {most} bytes"),))
    findings: dict[tuple[Any, ...], Finding] = {}
    try:
        for rule, asked in RULES.values():
            for node, message, severity in asked(code.module):
                place = code.place(int(getattr(node, "lineno", 1)))
                meant = replace(rule, severity=severity or rule.severity)
                finding = meant.finding("rules", message, **place)
                findings.setdefault((rule.id, *place.values()), finding)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        kind = "notebook" if notebook and "script" not in vars(code) else "Python"
        why = f"rules: no {kind} that can be parsed: {type(error).__name__}"
        return ScanResult(skipped=((name, why),))
    left_out = code.script.left_out if code.script else ()
    skipped = tuple((name, f"rules: cell {cell} is no Python") for cell in left_out)
    return ScanResult(findings=tuple(findings.values()), scanned=(name,), skipped=skipped)


@file_scanner("ml-code")
def scan_ml_code(file: Path, name: str) -> ScanResult | None:
    """Return what the rules find in a Python file or in a notebook's cells."""
    return look(Code(file, name)) if is_code(file) else None
