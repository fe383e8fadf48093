"""What can be wrong with a model file: one table of rules, one exception."""

from __future__ import annotations

from dataclasses import dataclass

from purpleteam.core.errors import Refused
from purpleteam.core.records import Severity


@dataclass(frozen=True)
class ProblemKind:
    """What a kind of problem is called in findings, how bad it is, what to do about it."""

    rule: str
    severity: Severity
    cwe: str
    fix: str


_CONVERT = "make it a stored model with: purple import FILE --arch NAME"
_ASK = "do not load it; ask its maker for the weights as safetensors"
_SAVE_AGAIN = "write the file again with the library of its format, and compare digests"

PROBLEMS: dict[str, ProblemKind] = {
    "unsafe-global": ProblemKind("PM001", "critical", "CWE-502", _ASK),
    "pickle": ProblemKind("PM002", "medium", "CWE-502", _CONVERT),
    "damaged-pickle": ProblemKind("PM003", "high", "CWE-502", _ASK),
    "archive": ProblemKind("PM004", "high", "CWE-436", _SAVE_AGAIN),
    "bomb": ProblemKind("PM005", "high", "CWE-409", _ASK),
    "safetensors": ProblemKind("PM006", "high", "CWE-20", _SAVE_AGAIN),
    "metadata": ProblemKind("PM007", "medium", "CWE-94", "keep plain text in the metadata"),
    "not-finite": ProblemKind("PM008", "medium", "CWE-20", "train again; such weights are useless"),
    "external-data": ProblemKind("PM009", "high", "CWE-73", "save the model as a single file"),
    "custom-operator": ProblemKind("PM010", "medium", "CWE-829", "use standard operators only"),
    "onnx": ProblemKind("PM011", "high", "CWE-20", _SAVE_AGAIN),
    "unknown-format": ProblemKind("PM012", "medium", "CWE-434", _CONVERT),
    "name": ProblemKind("PM013", "high", "CWE-646", "give the file the name of its content"),
    "object-array": ProblemKind("PM014", "critical", "CWE-502", _ASK),
    "tensor": ProblemKind("PM015", "high", "CWE-125", _ASK),
}
"""Kind to rule; the identifiers never change their meaning."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a model file."""

    kind: str
    message: str

    @property
    def rule(self) -> ProblemKind:
        """The rule that it breaks."""
        return PROBLEMS[self.kind]


class Malformed(Refused):
    """A file that is not what its format demands; the reading stops here."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(kind, message)
